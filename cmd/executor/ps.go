package main

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
)

// unfinished is what ps --json prints.
type unfinished struct {
	Queues   []client.Queue      `json:"queues"`
	Requests []client.Unfinished `json:"requests"`
}

func (p *program) psCommand() *cobra.Command {
	var flags serverFlags
	var asJSON bool
	var limit int
	c := &cobra.Command{
		Use: "ps", Short: "List what waits and what runs", Args: none,
		Long: `ps lists the requests that have no result yet, the oldest first: which tool, in which queue, since when, and where it runs.
It reads the streams, for which the user needs the rights of an operator.`,
	}
	flags.register(c)
	c.Flags().IntVar(&limit, "limit", 50, "list `N` requests at most")
	c.Flags().BoolVar(&asJSON, "json", false, "print queues and requests as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if limit < 0 {
			return usage("--limit must not be below 0")
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		queues, requests, err := executors.Queues(c.Context(), limit)
		if err != nil {
			return err
		}
		if asJSON {
			return p.printJSON(unfinished{queues, requests})
		}
		return p.printUnfinished(queues, requests)
	}
	return c
}

func (p *program) printUnfinished(queues []client.Queue, requests []client.Unfinished) error {
	total := uint64(0)
	for _, q := range queues {
		total += q.Requests
	}
	if total == 0 {
		_, err := fmt.Fprintln(p.stdout, "nothing waits and nothing runs")
		return err
	}
	rows := [][]string{{"ID", "TOOL", "ENGINE", "PRIORITY", "STATE", "AGE", "ATTEMPT", "EXECUTOR"}}
	for _, r := range requests {
		row := []string{r.ID, cmp.Or(r.Tool, "-"), r.Engine, r.Priority, r.State, age(r.Queued), "-", "-"}
		if r.State == client.StateRunning {
			row[6], row[7] = strconv.Itoa(r.Attempt), r.Executor
		}
		rows = append(rows, row)
	}
	if len(requests) > 0 {
		if err := p.table(rows); err != nil {
			return err
		}
	}
	if total > uint64(len(requests)) {
		fmt.Fprintf(p.stdout, "%d of %d are listed; by queue:\n", len(requests), total)
		for _, q := range queues {
			fmt.Fprintf(p.stdout, "  %s %s: %d\n", q.Engine, q.Priority, q.Requests)
		}
	}
	return nil
}
