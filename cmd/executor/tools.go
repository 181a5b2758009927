package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

type toolsFlags struct {
	serverFlags
	as   string
	json bool
}

func (f *toolsFlags) registerAll(c *cobra.Command) {
	f.register(c)
	c.Flags().StringVar(&f.as, "as", "", "print declarations for a language model instead: "+strings.Join(contracts.Dialects, ", "))
	c.Flags().BoolVar(&f.json, "json", false, "print the contracts as JSON")
}

func (p *program) toolsCommand() *cobra.Command {
	var flags toolsFlags
	c := &cobra.Command{
		Use: "tools", Short: "List the tools that the executors know", Args: unknownCommand,
		Long: `tools lists the tools that the executors know. With --as it prints them as a language model's API takes them: a JSON array
of function tools for openai (Chat Completions) and anthropic (Messages), the answer to tools/list for mcp.`,
		Example: "  executor tools\n  executor tools show python_data_processor\n  executor tools --as anthropic",
	}
	flags.registerAll(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return p.tools(c.Context(), "", &flags) }
	c.AddCommand(p.toolsListCommand(), p.toolsShowCommand())
	return c
}

func (p *program) toolsListCommand() *cobra.Command {
	var flags toolsFlags
	c := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the tools, as tools alone does", Args: none}
	flags.registerAll(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return p.tools(c.Context(), "", &flags) }
	return c
}

func (p *program) toolsShowCommand() *cobra.Command {
	var flags toolsFlags
	c := &cobra.Command{
		Use: "show TOOL", Short: "Show a tool: what it does, its arguments, how to run it", Args: one("the tool to show"),
		ValidArgsFunction: p.completeTools(&flags.serverFlags),
	}
	flags.registerAll(c)
	c.RunE = func(c *cobra.Command, args []string) error { return p.tools(c.Context(), args[0], &flags) }
	return c
}

// tools lists all tools, or shows one.
func (p *program) tools(ctx context.Context, name string, flags *toolsFlags) error {
	if flags.as != "" && !slices.Contains(contracts.Dialects, flags.as) {
		near := ""
		if n := contracts.Closest(flags.as, contracts.Dialects); n != "" {
			near = fmt.Sprintf("; did you mean %q?", n)
		}
		return usage("--as %s: there are %s%s", flags.as, strings.Join(contracts.Dialects, ", "), near)
	}
	executors, nc, err := flags.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	if flags.as != "" {
		return p.declarations(ctx, executors, name, flags.as)
	}
	found, err := executors.Discover(ctx, name)
	if err != nil {
		return explain(err)
	}
	if name != "" && len(found.Tools) == 0 {
		return unknownTool(ctx, executors, name)
	}
	switch {
	case flags.json && name != "":
		return p.printJSON(found.Tools[0])
	case flags.json:
		return p.printJSON(found.Tools)
	case name != "":
		return p.showTool(found.Tools)
	}
	return p.listTools(found.Tools)
}

func (p *program) declarations(ctx context.Context, executors *client.Client, name, as string) error {
	list, err := executors.Declarations(ctx, name, as)
	if err != nil {
		return explain(err)
	}
	if name != "" && len(list) == 0 {
		return unknownTool(ctx, executors, name)
	}
	encoder := json.NewEncoder(p.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if as == contracts.DialectMCP {
		return encoder.Encode(map[string]any{"tools": list})
	}
	return encoder.Encode(list)
}

// unknownTool names the tool that was probably meant.
func unknownTool(ctx context.Context, executors *client.Client, name string) error {
	all, err := executors.Discover(ctx, "")
	if err != nil {
		return explain(err)
	}
	var known []string
	for _, c := range all.Tools {
		known = append(known, c.Name)
	}
	if near := contracts.Closest(name, known); near != "" {
		return fmt.Errorf("there is no tool %q; did you mean %q?", name, near)
	}
	if len(known) == 0 {
		return fmt.Errorf("there is no tool %q: the executors know no contracts", name)
	}
	return fmt.Errorf("there is no tool %q; executor tools lists those there are", name)
}

func (p *program) listTools(tools []*client.Contract) error {
	if len(tools) == 0 {
		_, err := fmt.Fprintln(p.stdout, "the executors know no tools; start them with a directory of contracts: --tools DIR")
		return err
	}
	rows := [][]string{{"NAME", "VERSION", "ENGINE", "DESCRIPTION"}}
	for _, c := range tools {
		about, _, _ := strings.Cut(strings.TrimSpace(c.Description), "\n")
		rows = append(rows, []string{c.Name, cmp.Or(c.Version, "-"), c.Engine, about})
	}
	return p.table(rows)
}

// showTool shows the newest version, which is the first.
func (p *program) showTool(versions []*client.Contract) error {
	c := versions[0]
	fmt.Fprintf(p.stdout, "%s %s, on %s\n", c.Name, c.Version, c.Engine)
	if text := strings.TrimSpace(c.Description); text != "" {
		fmt.Fprintf(p.stdout, "%s\n", text)
	}
	if len(versions) > 1 {
		var others []string
		for _, other := range versions[1:] {
			others = append(others, cmp.Or(other.Version, "one without a version"))
		}
		fmt.Fprintf(p.stdout, "other versions: %s\n", strings.Join(others, ", "))
	}
	fmt.Fprintln(p.stdout)
	switch {
	case !c.Parameters.Declared:
		fmt.Fprintln(p.stdout, "It takes any arguments.")
	case len(c.Parameters.List) == 0:
		fmt.Fprintln(p.stdout, "It takes no arguments.")
	default:
		rows := [][]string{{"ARGUMENT", "TYPE", "", "DESCRIPTION"}}
		for _, one := range c.Parameters.List {
			need := ""
			switch {
			case one.Default != nil:
				need = "default " + shown(one.Default)
			case bool(one.Required):
				need = "required"
			}
			about := one.Description
			if len(one.Enum) > 0 {
				var values []string
				for _, v := range one.Enum {
					values = append(values, shown(v))
				}
				about = strings.TrimSpace(about + " (" + strings.Join(values, ", ") + ")")
			}
			rows = append(rows, []string{one.Name, cmp.Or(one.Type, "string"), need, about})
		}
		if err := p.table(rows); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(p.stdout, "\nRun it:\n  executor run %s%s\n", c.Name, hint(c.Parameters))
	return err
}

// shown is a value for people: text as it is, unless there is nothing to see.
func shown(v any) string {
	if text := contracts.Text(v); strings.TrimSpace(text) != "" {
		return text
	}
	return strconv.Quote(contracts.Text(v))
}

// hint is a command line with the arguments that must be given.
func hint(parameters contracts.Parameters) string {
	var args strings.Builder
	for _, one := range parameters.List {
		if !one.Required || one.Default != nil {
			continue
		}
		value := strings.ToUpper(one.Name)
		if len(one.Enum) > 0 {
			value = contracts.Text(one.Enum[0])
		}
		fmt.Fprintf(&args, " --arg %s=%s", one.Name, value)
	}
	return args.String()
}

// completeTools offers the names of tools, and files, to a shell that completes a command line.
func (p *program) completeTools(flags *serverFlags) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeoutCause(c.Context(), 2*time.Second, errors.New("too late to be of use"))
		defer cancel()
		executors, nc, err := flags.connect(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		defer nc.Close()
		found, err := executors.Discover(ctx, "")
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var names []string
		for _, t := range found.Tools {
			about, _, _ := strings.Cut(t.Description, "\n")
			names = append(names, cobra.CompletionWithDesc(t.Name, about))
		}
		return names, cobra.ShellCompDirectiveDefault
	}
}
