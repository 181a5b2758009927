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
		Long: `tools lists the tools that the executors know: those of their directories, and those of the registry, a bucket that all
executors of the fleet read and that push and rm write. With --as it prints them as a language model's API takes them: a JSON
array of function tools for openai (Chat Completions) and anthropic (Messages), the answer to tools/list for mcp.`,
		Example: "  executor tools\n  executor tools show python_data_processor\n  executor tools push my-tool.yaml\n  executor tools --as anthropic",
	}
	flags.registerAll(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return p.tools(c.Context(), "", &flags) }
	c.AddCommand(p.toolsListCommand(), p.toolsShowCommand(), p.toolsPushCommand(), p.toolsRemoveCommand())
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
		Use: "show TOOL[@VERSION]", Short: "Show a tool: what it does, its arguments, how to run it", Args: one("the tool to show"),
		Example:           "  executor tools show word_report\n  executor tools show word_report@1.2.0 --json",
		ValidArgsFunction: p.completeTools(&flags.serverFlags),
	}
	flags.registerAll(c)
	c.RunE = func(c *cobra.Command, args []string) error { return p.tools(c.Context(), args[0], &flags) }
	return c
}

// tools lists all tools, or shows one.
func (p *program) tools(ctx context.Context, what string, flags *toolsFlags) error {
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
	name, version, versioned := strings.Cut(what, "@")
	if flags.as != "" && !versioned {
		return p.declarations(ctx, executors, name, flags.as)
	}
	found, err := executors.Discover(ctx, name)
	if err != nil {
		return explain(err)
	}
	if what == "" {
		if flags.json {
			return p.listToolsJSON(found)
		}
		return p.listTools(found)
	}
	if len(found.Tools) == 0 {
		return unknownTool(ctx, executors, name)
	}
	shown := found.Tools[0] // the newest
	if versioned {
		if shown = versionOf(found.Tools, version); shown == nil {
			return unknownVersion(name, version, versionsOf(found.Tools))
		}
	}
	switch {
	case flags.as != "":
		declared, err := contracts.Declare([]*contracts.Contract{shown}, flags.as)
		if err != nil {
			return err
		}
		return p.printDeclarations(declared.Tools, flags.as)
	case flags.json:
		return p.printJSON(shown)
	}
	return p.showTool(shown, found)
}

// noVersion stands for the version of a contract that has none, where a version is named: as in keys of the registry.
const noVersion = "_"

// versionOf is the contract of a version, nil where there is none.
func versionOf(versions []*client.Contract, version string) *client.Contract {
	for _, c := range versions {
		if cmp.Or(c.Version, noVersion) == version {
			return c
		}
	}
	return nil
}

func versionsOf(versions []*client.Contract) []string {
	var list []string
	for _, c := range versions {
		list = append(list, cmp.Or(c.Version, noVersion))
	}
	return list
}

// unknownVersion names the versions that there are, and the one that was probably meant.
func unknownVersion(name, version string, known []string) error {
	if near := contracts.Closest(version, known); near != "" {
		return fmt.Errorf("the tool %q has no version %q; did you mean %s@%s?", name, version, name, near)
	}
	return fmt.Errorf("the tool %q has no version %q; it has %s", name, version, strings.Join(known, ", "))
}

func (p *program) declarations(ctx context.Context, executors *client.Client, name, as string) error {
	list, err := executors.Declarations(ctx, name, as)
	if err != nil {
		return explain(err)
	}
	if name != "" && len(list) == 0 {
		return unknownTool(ctx, executors, name)
	}
	return p.printDeclarations(list, as)
}

func (p *program) printDeclarations(list []client.Declaration, as string) error {
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

func (p *program) listTools(found *client.Discovery) error {
	if len(found.Tools) == 0 {
		fmt.Fprintln(p.stdout, "the executors know no tools; start them with a directory of contracts (--tools DIR), or register some: executor tools push FILE")
	} else {
		rows := [][]string{{"NAME", "VERSION", "ENGINE", "SOURCE", "DESCRIPTION"}}
		for _, c := range found.Tools {
			about, _, _ := strings.Cut(strings.TrimSpace(c.Description), "\n")
			rows = append(rows, []string{c.Name, cmp.Or(c.Version, "-"), c.Engine, cmp.Or(sourceText(found.Sources[c.Name]), "-"), about})
		}
		if err := p.table(rows); err != nil {
			return err
		}
	}
	if len(found.Refused) == 0 {
		return nil
	}
	fmt.Fprintln(p.stdout, "\nNot taken by the executor that answered:")
	for _, one := range found.Refused {
		fmt.Fprintf(p.stdout, "  %s: %s\n", sourceText(one.Source), refusal(one))
	}
	return nil
}

// sourceText is a source for people, who know the bucket as the registry.
func sourceText(source string) string {
	if source == contracts.SourceBucket {
		return "registry"
	}
	return source
}

// refusal says where something is that is not taken, and why.
func refusal(one contracts.Refusal) string {
	if strings.HasPrefix(one.Reason, one.Where) {
		return one.Reason
	}
	return one.Where + ": " + one.Reason
}

// listedTool is a contract in tools --json: with where it is from.
type listedTool struct {
	contract *client.Contract
	source   string // "": an older executor, which does not tell
}

// MarshalJSON puts the source before the keys of the contract.
func (t listedTool) MarshalJSON() ([]byte, error) {
	text, err := t.contract.MarshalJSON()
	if err != nil || t.source == "" {
		return text, err
	}
	return append([]byte(`{"source":"`+t.source+`",`), text[1:]...), nil
}

// listToolsJSON prints a list of contracts. What is not taken is no tool; it is told on stderr.
func (p *program) listToolsJSON(found *client.Discovery) error {
	list := make([]listedTool, 0, len(found.Tools))
	for _, c := range found.Tools {
		list = append(list, listedTool{c, found.Sources[c.Name]})
	}
	for _, one := range found.Refused {
		fmt.Fprintf(p.stderr, "executor: not taken: %s: %s\n", sourceText(one.Source), refusal(one))
	}
	return p.printJSON(list)
}

func (p *program) showTool(c *client.Contract, found *client.Discovery) error {
	from := ""
	if source := found.Sources[c.Name]; source != "" {
		from = ", from the " + sourceText(source)
	}
	fmt.Fprintf(p.stdout, "%s, on %s%s\n", strings.TrimSpace(c.Name+" "+c.Version), c.Engine, from)
	if text := strings.TrimSpace(c.Description); text != "" {
		fmt.Fprintf(p.stdout, "%s\n", text)
	}
	if others := slices.DeleteFunc(versionsOf(found.Tools), func(v string) bool { return v == cmp.Or(c.Version, noVersion) }); len(others) > 0 {
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
	if about := aboutRuns(c); len(about) > 0 {
		fmt.Fprintln(p.stdout)
		if err := p.table(about); err != nil {
			return err
		}
	}
	version := ""
	if c != found.Tools[0] && c.Version != "" { // not what is run without
		version = " --version " + c.Version
	}
	_, err := fmt.Fprintf(p.stdout, "\nRun it:\n  executor run %s%s%s\n", c.Name, version, hint(c.Parameters))
	return err
}

// aboutRuns is what a contract says about how its runs go, a line for each key that is set.
func aboutRuns(c *client.Contract) [][]string {
	var rows [][]string
	if c.Spec != nil && c.Spec.Common().Timeout > 0 {
		rows = append(rows, []string{"timeout", c.Spec.Common().Timeout.String()})
	}
	if r := c.Retry; r != nil {
		on := r.On
		if len(on) == 0 {
			on = contracts.DefaultRetryOn
		}
		names := make([]string, len(on))
		for i, status := range on {
			names[i] = string(status)
		}
		text := fmt.Sprintf("%d attempts at most, after %s", r.MaxAttempts, strings.Join(names, ", "))
		if r.Backoff > 0 {
			text += fmt.Sprintf("; backoff %s", r.Backoff)
		}
		if r.MaxBackoff > 0 {
			text += fmt.Sprintf("; max_backoff %s", r.MaxBackoff)
		}
		rows = append(rows, []string{"retry", text})
	}
	if c.Delivery != "" {
		rows = append(rows, []string{"delivery", c.Delivery})
	}
	if c.Concurrency > 0 {
		text := fmt.Sprintf("%d at a time in the whole fleet", c.Concurrency)
		if c.ConcurrencyKey != "" {
			text += ", for each " + c.ConcurrencyKey
		}
		rows = append(rows, []string{"concurrency", text})
	}
	if len(c.Fallback) > 0 {
		names := make([]string, len(c.Fallback))
		for i, f := range c.Fallback {
			names[i] = f.Engine
		}
		rows = append(rows, []string{"fallback", strings.Join(names, ", ")})
	}
	return rows
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
