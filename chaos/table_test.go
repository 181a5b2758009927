//go:build linux

package chaos_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// row is what a scenario adds to the table.
type row struct {
	scenario string
	faults   string
	*verdict
	left     int // processes, directories, consumers
	duration time.Duration
	failed   bool
}

var table struct {
	sync.Mutex
	rows []row
}

func (f *fleet) faultsText() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, kind := range f.kinds {
		list = append(list, fmt.Sprintf("%s ×%d", kind, f.faults[kind]))
	}
	return strings.Join(list, ", ")
}

// printTable prints one line for each scenario. Columns from lost to left must be 0.
func printTable(w io.Writer) {
	table.Lock()
	defer table.Unlock()
	if len(table.rows) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "scenario\tfaults\trequests\tresults\tlost\tdoubled\tstarted unseen\tstarted twice\twrong\tleft\tagain\tlongest wait\ttakeover\tduration\t")
	sum := verdict{}
	left := 0
	var duration time.Duration
	for _, r := range table.rows {
		name := r.scenario
		if r.failed {
			name += " FAILED"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.2fs\t%s\t%.1fs\t\n", name, r.faults, r.requests, r.results, r.lost, r.doubled, r.unseen, r.twice,
			len(r.problems), r.left, r.again, r.wait.Seconds(), most(r.takeover), r.duration.Seconds())
		sum.requests += r.requests
		sum.results += r.results
		sum.lost += r.lost
		sum.doubled += r.doubled
		sum.unseen += r.unseen
		sum.twice += r.twice
		sum.problems = append(sum.problems, r.problems...)
		sum.again += r.again
		left += r.left
		duration += r.duration
	}
	fmt.Fprintf(t, "all\t\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\t\t%.1fs\t\n", sum.requests, sum.results, sum.lost, sum.doubled, sum.unseen, sum.twice,
		len(sum.problems), left, sum.again, duration.Seconds())
	t.Flush()
}

// most is the longest of some times.
func most(list []time.Duration) string {
	if len(list) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fs", slices.Max(list).Seconds())
}
