package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/executor"
)

func (p *program) validateCommand() *cobra.Command {
	var config bool
	c := &cobra.Command{
		Use: "validate PATH...", Short: "Check contracts, or with --config a configuration", Args: some("the contracts, files or directories, to check"),
		Long: `validate reads contracts, files or directories of them, and says for each mistake where it is and what to write
instead. It needs no NATS.`,
		Example: "  executor validate tools/\n  executor validate my-tool.yaml\n  executor validate --config executor.yaml",
	}
	c.Flags().BoolVar(&config, "config", false, "the files are configurations")
	c.RunE = func(_ *cobra.Command, paths []string) error {
		wrong := 0
		for _, path := range paths {
			var err error
			if config {
				_, err = configs.Load(path, configs.Default())
				if err == nil {
					fmt.Fprintf(p.stdout, "%s: ok\n", path)
				}
			} else {
				err = p.validate(path)
			}
			if err != nil {
				wrong++
				fmt.Fprintln(p.stderr, err)
			}
		}
		if wrong > 0 {
			return exitCode{code: exitUsage}
		}
		return nil
	}
	return c
}

// contractFiles are the file that a path names, or those of a directory that hold contracts.
func contractFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := executor.ContractFiles(path)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: there are no contracts: no .yaml, .yml or .json file, and no contract.yaml below", path)
	}
	return files, err
}

// validate checks a contract file, or all of a directory.
func (p *program) validate(path string) error {
	files, err := contractFiles(path)
	if err != nil {
		return err
	}
	var wrong []error
	for _, file := range files {
		list, err := contracts.LoadFile(file)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		for _, one := range list {
			name := one.Name
			if one.Version != "" {
				name += " " + one.Version
			}
			fmt.Fprintf(p.stdout, "%s:%d: %s (%s): ok\n", file, one.Line, name, one.Engine)
		}
	}
	if len(wrong) == 0 && files[0] != path { // a directory
		wrong = append(wrong, executor.NewRegistry().Load([]string{path})) // the same tool in two files
	}
	return errors.Join(wrong...)
}
