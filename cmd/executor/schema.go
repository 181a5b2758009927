package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas"
)

// asyncAPI is the name by which schema prints the AsyncAPI document.
const asyncAPI = "asyncapi"

func (p *program) schemaCommand() *cobra.Command {
	names := append(schemas.Names(), asyncAPI)
	c := &cobra.Command{
		Use: "schema [NAME]", Short: "Print a JSON Schema, or the AsyncAPI document",
		Long: `schema prints the JSON Schema (2020-12) of a kind of document, for editors and for clients in other languages, or, for
asyncapi, the AsyncAPI document of all subjects and messages. Without a name it lists what there is.`,
		Example:   "  executor schema contract > contract.schema.json\n  executor schema asyncapi > executor.asyncapi.yaml",
		ValidArgs: names,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("name one schema; %q is too much", args[1])
			}
			return nil
		},
	}
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			_, err := fmt.Fprintln(p.stdout, strings.Join(names, "\n"))
			return err
		}
		if args[0] == asyncAPI {
			_, err := p.stdout.Write(schemas.AsyncAPI())
			return err
		}
		text, err := schemas.Text(args[0])
		if err != nil {
			if near := contracts.Closest(args[0], names); near != "" {
				return usage("there is no schema %q; did you mean %q?", args[0], near)
			}
			return usage("%s", err)
		}
		_, err = p.stdout.Write(text)
		return err
	}
	return c
}
