package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// requestFlags are those of the commands that hand in a request.
type requestFlags struct {
	args, context, labels []string
	argsJSON, stdin       string
	version, tool, id     string
	priority              string
	timeout, queueTimeout time.Duration
}

func (f *requestFlags) register(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.args, "arg", nil, "argument `NAME=VALUE`, the value as the tool's parameter has its type; NAME:=JSON gives JSON; repeatable")
	c.Flags().StringVar(&f.argsJSON, "args", "", "all arguments as a `JSON` object, or @FILE")
	c.Flags().StringArrayVar(&f.context, "ctx", nil, "context value `NAME=VALUE`; repeatable")
	c.Flags().StringArrayVar(&f.labels, "label", nil, "label `NAME=VALUE`; repeatable")
	c.Flags().StringVar(&f.stdin, "stdin", "", "`FILE` that the tool reads as its stdin; - for this command's own")
	c.Flags().DurationVar(&f.timeout, "timeout", 0, "longest run, a `DURATION` as 30s (default the contract's)")
	c.Flags().DurationVar(&f.queueTimeout, "queue-timeout", 0, "longest wait in the queue, a `DURATION` as 1m")
	c.Flags().StringVar(&f.version, "version", "", "`VERSION` of the tool (default the newest)")
	c.Flags().StringVar(&f.tool, "tool", "", "`NAME` of the tool in a FILE with several")
	c.Flags().StringVar(&f.id, "id", "", "`ID` of the request (default a random one)")
	c.Flags().StringVar(&f.priority, "priority", "", "`PRIORITY` of the request: high, normal or low")
}

// check finds the mistakes that can be seen without asking anybody.
func (f *requestFlags) check(c *cobra.Command) error {
	for name, d := range map[string]time.Duration{"timeout": f.timeout, "queue-timeout": f.queueTimeout} {
		if c.Flags().Changed(name) && d <= 0 {
			return usage("--%s must be above 0", name)
		}
	}
	if f.id != "" {
		if err := contracts.CheckID(f.id); err != nil {
			return usage("--id: %s", err)
		}
	}
	_, err := pairs("--arg", f.args, nil)
	return err
}

// request makes the request for a tool, or for the contract in a file.
func (p *program) request(ctx context.Context, what string, flags *requestFlags, executors func() (*client.Client, error)) (client.Request, error) {
	request := client.Request{ID: flags.id, Version: flags.version, Priority: flags.priority,
		Timeout: contracts.Duration(flags.timeout), QueueTimeout: contracts.Duration(flags.queueTimeout)}
	contract, err := contractOf(what, flags.tool)
	if err != nil {
		return request, err
	}
	request.Contract = contract
	if contract == nil {
		request.Tool = what
	}
	if request.Labels, err = texts("--label", flags.labels); err != nil {
		return request, err
	}
	if request.Context, err = pairs("--ctx", flags.context, nil); err != nil {
		return request, err
	}
	if request.StdinBase64, err = p.readStdin(flags.stdin); err != nil {
		return request, err
	}
	c, err := executors()
	if err != nil {
		return request, err
	}
	request.Args, err = arguments(flags, func() contracts.Parameters {
		if contract != nil {
			return contract.Parameters
		}
		found, err := c.Discover(ctx, what)
		if err != nil || len(found.Tools) == 0 {
			return contracts.Parameters{} // the executor will say what is wrong
		}
		return found.Tools[0].Parameters
	})
	return request, err
}

// contractOf reads a contract file; nil where what is given is a name.
func contractOf(what, tool string) (*contracts.Contract, error) {
	ext := filepath.Ext(what)
	if !strings.ContainsRune(what, os.PathSeparator) && ext != ".yaml" && ext != ".yml" && ext != ".json" {
		return nil, nil
	}
	if info, err := os.Stat(what); err == nil && info.IsDir() {
		what = filepath.Join(what, "contract.yaml")
	}
	list, err := contracts.LoadFile(what)
	if err != nil {
		return nil, wrongFile(err)
	}
	var names []string
	for _, c := range list {
		if c.Name == tool || tool == "" && len(list) == 1 {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return nil, usage("%s has the tools %s; choose one by --tool", what, strings.Join(names, ", "))
}

func (p *program) readStdin(from string) ([]byte, error) {
	var data []byte
	var err error
	switch from {
	case "":
		return nil, nil
	case "-":
		data, err = io.ReadAll(p.stdin)
	default:
		data, err = os.ReadFile(from)
	}
	if err != nil {
		return nil, fmt.Errorf("--stdin: %w", err)
	}
	return data, nil
}

// arguments joins --args and --arg. A value given as text gets the type that the tool's parameter has.
func arguments(flags *requestFlags, parameters func() contracts.Parameters) (map[string]any, error) {
	args := map[string]any{}
	if text := flags.argsJSON; text != "" {
		if file, ok := strings.CutPrefix(text, "@"); ok {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("--args: %w", err)
			}
			text = string(data)
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&args); err != nil {
			return nil, usage("--args is not a JSON object: %s", err)
		}
		if args == nil {
			return nil, usage("--args is null; write {} for no arguments")
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
			return nil, usage("--args has something behind the JSON object")
		}
	}
	typed := func(string, string) any { return nil }
	if len(flags.args) > 0 {
		declared := parameters()
		typed = func(name, value string) any {
			if one := declared.Find(name); one != nil {
				return parse(one.Type, value)
			}
			return nil
		}
	}
	given, err := pairs("--arg", flags.args, typed)
	if err != nil {
		return nil, err
	}
	for name, value := range given {
		args[name] = value
	}
	return args, nil
}

// parse reads a value as a type other than text, nil where it is not of that type.
func parse(kind, value string) any {
	switch kind {
	case "integer", "number", "boolean", "array", "object", "any":
		var v any
		decoder := json.NewDecoder(strings.NewReader(value))
		decoder.UseNumber()
		if err := decoder.Decode(&v); err == nil && !decoder.More() {
			return v
		}
	}
	return nil
}

// pairs reads NAME=VALUE and NAME:=JSON.
func pairs(flag string, list []string, typed func(name, value string) any) (map[string]any, error) {
	values := map[string]any{}
	for _, pair := range list {
		name, value, ok := strings.Cut(pair, "=")
		name, isJSON := strings.CutSuffix(name, ":")
		if !ok || name == "" {
			return nil, usage("%s %s: write NAME=VALUE", flag, strconv.Quote(pair))
		}
		if _, twice := values[name]; twice {
			return nil, usage("%s %s is given twice", flag, name)
		}
		values[name] = value
		if isJSON {
			v := parse("any", value)
			if v == nil && value != "null" {
				return nil, usage("%s %s: what follows := is not JSON", flag, strconv.Quote(pair))
			}
			values[name] = v
		} else if typed != nil {
			if v := typed(name, value); v != nil {
				values[name] = v
			}
		}
	}
	return values, nil
}

func texts(flag string, list []string) (map[string]string, error) {
	values, err := pairs(flag, list, nil)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	for name, value := range values {
		labels[name] = contracts.Text(value)
	}
	return labels, nil
}
