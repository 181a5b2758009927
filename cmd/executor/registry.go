package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// registered is what push and rm --json print of each contract.
type registered struct {
	Tool    string `json:"tool"`
	Version string `json:"version,omitempty"`
	Did     string `json:"did"`               // new, same, replaced or removed
	DryRun  bool   `json:"dry_run,omitempty"` // it was not done
}

func (p *program) toolsPushCommand() *cobra.Command {
	var flags serverFlags
	var asJSON, dry bool
	c := &cobra.Command{
		Use: "push PATH...", Short: "Register contracts, so that all executors know them", Args: some("the contracts, files or directories, to register"),
		Long: `push checks contracts, files or directories of them, as validate does, and writes them into the registry of the fleet. All
executors know them within a second; attempts under way keep what they began with. A contract with the name and version of one
that is there replaces it. Nothing is written if anything is wrong, if a path is relative that only a directory could give
a beginning to, or if the executors have a name from their own directories, which are stronger.`,
		Example: "  executor tools push my-tool.yaml\n  executor tools push tools/ --dry-run",
	}
	flags.register(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be done")
	c.Flags().BoolVar(&asJSON, "json", false, "print what was done as JSON, a line for each contract")
	c.RunE = func(c *cobra.Command, paths []string) error {
		list, err := pushable(paths)
		if err != nil {
			return wrongFile(err)
		}
		return p.withRegistrar(c.Context(), &flags, func(registrar *bus.Registrar, executors *client.Client) error {
			if err := p.notInDirectories(c.Context(), executors, list); err != nil {
				return err
			}
			for _, one := range list {
				did, err := registrar.Put(c.Context(), one, dry)
				if err == nil {
					err = p.printRegistered(registered{one.Name, one.Version, did, dry}, asJSON)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return c
}

func (p *program) toolsRemoveCommand() *cobra.Command {
	var flags serverFlags
	var asJSON, all bool
	c := &cobra.Command{
		Use: "rm TOOL[@VERSION]...", Short: "Remove contracts from the registry", Args: some("the tools to remove"),
		Long: `rm removes contracts from the registry of the fleet; executors forget them within a second, and runs under way go on. A tool
of which several versions are registered needs its version, or --all. The one without a version is TOOL@_.`,
		Example:           "  executor tools rm word_report@1.2.0\n  executor tools rm word_report --all",
		ValidArgsFunction: p.completeTools(&flags),
	}
	flags.register(c)
	c.Flags().BoolVar(&all, "all", false, "all versions")
	c.Flags().BoolVar(&asJSON, "json", false, "print what was done as JSON, a line for each contract")
	c.RunE = func(c *cobra.Command, args []string) error {
		if all && slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(arg, "@") }) {
			return usage("--all removes all versions; name the tool without one")
		}
		return p.withRegistrar(c.Context(), &flags, func(registrar *bus.Registrar, executors *client.Client) error {
			there, err := registrar.Keys(c.Context())
			if err != nil {
				return err
			}
			var keys []string
			for _, arg := range args {
				some, err := removable(c.Context(), arg, all, there, executors)
				if err != nil {
					return err
				}
				keys = append(keys, some...)
			}
			slices.Sort(keys)
			for _, key := range slices.Compact(keys) {
				name, version, _ := contracts.ParseKey(key)
				err := registrar.Remove(c.Context(), key)
				if err == nil {
					err = p.printRegistered(registered{Tool: name, Version: version, Did: "removed"}, asJSON)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return c
}

func (p *program) printRegistered(r registered, asJSON bool) error {
	if asJSON {
		return p.printJSON(r)
	}
	did := r.Did
	if r.DryRun && did != bus.PutSame {
		did = "would be " + did
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %s\n", strings.TrimSpace(r.Tool+" "+r.Version), did)
	return err
}

// withRegistrar connects as an operator and as somebody who asks executors, which may not be there.
func (p *program) withRegistrar(ctx context.Context, flags *serverFlags, do func(*bus.Registrar, *client.Client) error) error {
	executors, nc, err := flags.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	registrar, err := bus.OpenRegistrar(ctx, nc, flags.prefix)
	if err != nil {
		return err
	}
	return do(registrar, executors)
}

// pushable reads contracts and finds all that keeps them from being registered.
func pushable(paths []string) ([]*contracts.Contract, error) {
	var list []*contracts.Contract
	var wrong []error
	at := map[string]*contracts.Contract{}
	for _, path := range paths {
		files, err := contractFiles(path)
		if err != nil {
			wrong = append(wrong, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				wrong = append(wrong, err)
				continue
			}
			some, err := contracts.ParseContracts(file, text)
			if err != nil {
				wrong = append(wrong, err)
			}
			for _, c := range some {
				key := contracts.Key(c.Name, c.Version)
				if other := at[key]; other != nil {
					wrong = append(wrong, fmt.Errorf("%s:%d: the tool %q is already defined in %s:%d; give it another name or version", c.File, c.Line, c.Name, other.File, other.Line))
				}
				if err := c.CheckRegistrable(); err != nil {
					wrong = append(wrong, err)
				}
				at[key], list = c, append(list, c)
			}
		}
	}
	return list, errors.Join(wrong...)
}

// notInDirectories reports which of the contracts have a name that the executors have from their directories: those would
// not be taken. Executors with other directories may differ; one of them answers.
func (p *program) notInDirectories(ctx context.Context, executors *client.Client, list []*contracts.Contract) error {
	var wrong []error
	asked := map[string]bool{}
	for _, c := range list {
		if asked[c.Name] {
			continue
		}
		asked[c.Name] = true
		found, err := executors.Discover(ctx, c.Name)
		switch {
		case errors.Is(err, client.ErrNoExecutor):
			return nil
		case err != nil:
			fmt.Fprintf(p.stderr, "executor: the executors do not say which names their directories have: %s\n", err)
			return nil
		case found.Sources[c.Name] == contracts.SourceDirectory:
			wrong = append(wrong, fmt.Errorf("%s:%d: the name %q belongs to a directory of the executors, which would not take it from the registry; use another name, or remove it there",
				c.File, c.Line, c.Name))
		}
	}
	return errors.Join(wrong...)
}

// removable are the keys that an argument of rm stands for.
func removable(ctx context.Context, arg string, all bool, there []string, executors *client.Client) ([]string, error) {
	name, version, versioned := strings.Cut(arg, "@")
	var versions, names, keys []string
	for _, key := range there {
		n, v, ok := contracts.ParseKey(key)
		if !ok {
			continue
		}
		names = append(names, n)
		if n != name {
			continue
		}
		if v == "" {
			v = noVersion
		}
		versions, keys = append(versions, v), append(keys, key)
	}
	switch {
	case len(keys) == 0:
		return nil, notRegistered(ctx, name, names, executors)
	case versioned && !slices.Contains(versions, version):
		return nil, unknownVersion(name, version, versions)
	case versioned:
		return []string{keys[slices.Index(versions, version)]}, nil
	case len(keys) > 1 && !all:
		return nil, usage("%s has the versions %s; name one, as %s@%s, or remove all by --all", name, strings.Join(versions, ", "), name, versions[0])
	}
	return keys, nil
}

// notRegistered says what else a name may be.
func notRegistered(ctx context.Context, name string, known []string, executors *client.Client) error {
	if found, err := executors.Discover(ctx, name); err == nil && found.Sources[name] == contracts.SourceDirectory {
		return fmt.Errorf("%q is in a directory of the executors, not in the registry; remove its file there", name)
	}
	if near := contracts.Closest(name, known); near != "" {
		return fmt.Errorf("there is no tool %q in the registry; did you mean %q?", name, near)
	}
	if len(known) == 0 {
		return fmt.Errorf("there is no tool %q in the registry: it is empty", name)
	}
	return fmt.Errorf("there is no tool %q in the registry; executor tools lists those there are", name)
}
