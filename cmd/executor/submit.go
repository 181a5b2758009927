package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
)

func (p *program) submitCommand() *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use: "submit TOOL|FILE", Short: "Hand in a request and do not wait", Args: one("the tool, or the contract file, to run"),
		Long: `submit hands in a request and prints its id when it is stored. It takes the flags of run. Ask for the run by its id:
executor logs -f ID, executor result ID, executor cancel ID. A request that is refused exits with 125. That an id
belongs to another request is found out later, by the executor that takes it.`,
		Example:           "  id=$(executor submit text_analyzer --arg text='to be or not to be')\n  executor logs -f \"$id\"",
		ValidArgsFunction: p.completeTools(&flags.serverFlags),
	}
	flags.serverFlags.register(c)
	flags.requestFlags.register(c)
	c.Flags().BoolVar(&flags.json, "json", false, "print where it is stored, as JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		return p.handIn(c, args[0], &flags.serverFlags, &flags.requestFlags, func(executors *client.Client, request client.Request) error {
			accepted, err := executors.Submit(c.Context(), request)
			if err != nil {
				return refused(explain(err))
			}
			if flags.json {
				return p.printJSON(accepted)
			}
			_, err = fmt.Fprintln(p.stdout, accepted.ID)
			return err
		})
	}
	return c
}
