package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
)

// cancelled is what cancel says about one run.
type cancelled struct {
	ID     string         `json:"id"`
	Asked  bool           `json:"asked"`            // false: it had ended before
	Result *client.Result `json:"result,omitempty"` // of a run that has ended
}

func (p *program) cancelCommand() *cobra.Command {
	var flags serverFlags
	var wait, asJSON bool
	c := &cobra.Command{
		Use: "cancel ID...", Short: "Stop runs, queued or running", Args: some("the ids of the runs"),
		Long: `cancel asks for the end of runs. One that runs is stopped, with all its processes; one that waits in a queue will not
start; one that has ended stays as it is. It returns when the ask is stored; --wait waits for the results.`,
		Example: "  executor cancel 01JD3Z7GQ3X8W2C5T9V4B6N8M0\n  executor ps --json | jq -r '.requests[].id' | xargs executor cancel --wait",
	}
	flags.register(c)
	c.Flags().BoolVar(&wait, "wait", false, "wait for the results")
	c.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each run")
	c.RunE = func(c *cobra.Command, args []string) error {
		for _, id := range args {
			if err := checkRun(id); err != nil {
				return err
			}
		}
		executors, nc, err := flags.connect(c.Context())
		if err != nil {
			return err
		}
		defer nc.Close()
		for _, id := range args {
			one, err := p.cancel(c, executors, id, wait)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				err = p.printJSON(one)
			case !one.Asked:
				_, err = fmt.Fprintf(p.stdout, "%s had ended before: %s\n", id, one.Result.Status)
			case one.Result != nil:
				_, err = fmt.Fprintf(p.stdout, "%s: %s\n", id, one.Result.Status)
			default:
				_, err = fmt.Fprintf(p.stdout, "%s will be stopped\n", id)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func (p *program) cancel(c *cobra.Command, executors *client.Client, id string, wait bool) (cancelled, error) {
	one := cancelled{ID: id}
	state, err := executors.State(c.Context(), id)
	if err != nil {
		return one, explain(err)
	}
	if one.Result = state.Result; one.Result != nil {
		return one, nil
	}
	if err := executors.Cancel(c.Context(), id); err != nil {
		return one, explain(err)
	}
	one.Asked = true
	if wait {
		one.Result, err = resultOf(c.Context(), executors, id, true)
	}
	return one, err
}
