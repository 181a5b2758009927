//go:build linux

package abuse

import (
	"fmt"
	"io"
	"strings"
)

// table is what is printed at the end.
type table struct {
	columns []column
	names   []string
	rows    [][]outcome
}

// row is where the outcomes of an attempt go.
func (t *table) row(a *attempt) []outcome {
	t.names = append(t.names, a.name)
	t.rows = append(t.rows, make([]outcome, len(t.columns)))
	return t.rows[len(t.rows)-1]
}

var signs = map[outcome]string{stopped: "✓", refused: "✓ r", open: "✗", absent: "–", "": " "}

// print prints the attempts that were made.
func (t *table) print(to io.Writer) {
	line := func(area, name string, cell func(i int) string) {
		text := fmt.Sprintf("%-16s %-28s", area, name)
		for i := range t.columns {
			text += fmt.Sprintf(" %-11s", cell(i))
		}
		fmt.Fprintln(to, strings.TrimRight(text, " "))
	}
	fmt.Fprintln(to)
	line("area", "attempt", func(i int) string { return t.columns[i].tier })
	line("", "", func(i int) string { return "as " + t.columns[i].user })
	last := ""
	stoppedIn, madeIn := make([]int, len(t.columns)), make([]int, len(t.columns))
	for n, row := range t.rows {
		if strings.Join(asStrings(row), "") == "" {
			continue // not asked for
		}
		area, name, _ := strings.Cut(t.names[n], "/")
		shown := area
		if area == last {
			shown = ""
		}
		last = area
		line(shown, name, func(i int) string { return signs[row[i]] })
		for i, o := range row {
			if o == stopped || o == refused {
				stoppedIn[i]++
			}
			if o != absent && o != "" {
				madeIn[i]++
			}
		}
	}
	line("stopped", "", func(i int) string { return fmt.Sprintf("%d of %d", stoppedIn[i], madeIn[i]) })
	fmt.Fprintln(to, "\n✓ stopped   ✓ r refused: what it asks for cannot be enforced, so it is not run   ✗ not stopped   – this machine or user cannot do it anyway")
	fmt.Fprintln(to, "bare: a plain fork and exec, to compare with. Why something is not stopped says the header of abuse/attempts/<area>/<attempt>.sh.")
	for _, c := range t.columns {
		if c.why != "" {
			fmt.Fprintf(to, "%s as %s is not there: %s\n", c.tier, c.user, c.why)
		}
	}
}

func asStrings(row []outcome) (words []string) {
	for _, o := range row {
		words = append(words, string(o))
	}
	return words
}
