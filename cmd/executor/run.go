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

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// serverFlags say where the executors are.
type serverFlags struct {
	server, creds, data, prefix string
}

func (f *serverFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the NATS server (default $NATS_URL, else the executor dev of this machine)")
	c.Flags().StringVar(&f.creds, "creds", "", "`FILE` with NATS user credentials (default $NATS_CREDS)")
	c.Flags().StringVar(&f.data, "data", "", "data `DIR` of the executor dev to use")
	c.Flags().StringVar(&f.prefix, "prefix", contracts.DefaultPrefix, "subject prefix of the executors")
}

// connect finds the server: --server, then $NATS_URL, then the executor dev that runs here, then NATS's usual address.
func (f *serverFlags) connect(ctx context.Context) (*client.Client, *nats.Conn, error) {
	config := bus.DefaultConfig()
	config.ConnectWait = contracts.Seconds(2) // a server that is just being restarted is waited for
	config.Creds = f.creds
	if config.Creds == "" {
		config.Creds = os.Getenv("NATS_CREDS")
	}
	data, dev := f.data, false
	if data == "" {
		data = configs.DefaultDataDir(false)
	}
	switch url := os.Getenv("NATS_URL"); {
	case f.server != "":
		config.URLs = strings.Split(f.server, ",")
	case f.data == "" && url != "":
		config.URLs = strings.Split(url, ",")
	default:
		if text, err := os.ReadFile(filepath.Join(data, devURL)); err == nil {
			config.URLs, dev = []string{strings.TrimSpace(string(text))}, true
		} else if f.data != "" {
			return nil, nil, fmt.Errorf("no executor dev runs with the data directory %s; start it: executor dev --data %s", f.data, f.data)
		}
	}
	here := f.server == "" && (f.data != "" || os.Getenv("NATS_URL") == "")
	if here && !dev {
		config.ConnectWait = contracts.Seconds(0.1)
	}
	nc, err := bus.DialClient(ctx, config, "executor cli")
	if err != nil {
		if here {
			return nil, nil, fmt.Errorf("no executor runs on this machine (%w); start one with: executor dev", err)
		}
		return nil, nil, err
	}
	c, err := client.New(nc, client.Prefix(f.prefix))
	if err != nil {
		nc.Close()
		return nil, nil, usage("--prefix: %s", err)
	}
	return c, nc, nil
}

type runFlags struct {
	serverFlags
	args, context, labels []string
	argsJSON, stdin       string
	version, tool, id     string
	priority              string
	timeout, queueTimeout time.Duration
	json                  bool
}

func (p *program) runCommand() *cobra.Command {
	var flags runFlags
	c := &cobra.Command{
		Use: "run TOOL|FILE", Short: "Run a tool and follow it to its end", Args: one("the tool, or the contract file, to run"),
		Long: `run hands in a request, shows the tool's stdout and stderr as they come, and exits with the tool's exit code. TOOL is a
name that the executors know; FILE is a contract of your own, where they allow that (executor dev does).
Ctrl-C stops the tool; a second one leaves it alone and ends this command.

Exit codes: the tool's own; 128+n where signal n ended it; 124 after a timeout; 130 after a cancel; 125 where it was not run
(rejected, unavailable, expired, lost); 2 for mistakes on the command line; 1 where the executors cannot be reached.`,
		Example: `  executor run system_info
  executor run python_data_processor --arg operation=numbers --arg data=1,2,3,4,5
  executor run ./my-tool.yaml --arg count=3 --timeout 10s
  echo hello | executor run word_count --stdin -`,
	}
	flags.register(c)
	c.Flags().StringArrayVar(&flags.args, "arg", nil, "argument `NAME=VALUE`, the value as the tool's parameter has its type; NAME:=JSON gives JSON; repeatable")
	c.Flags().StringVar(&flags.argsJSON, "args", "", "all arguments as a `JSON` object, or @FILE")
	c.Flags().StringArrayVar(&flags.context, "ctx", nil, "context value `NAME=VALUE`; repeatable")
	c.Flags().StringArrayVar(&flags.labels, "label", nil, "label `NAME=VALUE`; repeatable")
	c.Flags().StringVar(&flags.stdin, "stdin", "", "`FILE` that the tool reads as its stdin; - for this command's own")
	c.Flags().DurationVar(&flags.timeout, "timeout", 0, "longest run, as 30s (default the contract's)")
	c.Flags().DurationVar(&flags.queueTimeout, "queue-timeout", 0, "longest wait in the queue")
	c.Flags().StringVar(&flags.version, "version", "", "`VERSION` of the tool (default the newest)")
	c.Flags().StringVar(&flags.tool, "tool", "", "`NAME` of the tool in a FILE with several")
	c.Flags().StringVar(&flags.id, "id", "", "`ID` of the request (default a random one)")
	c.Flags().StringVar(&flags.priority, "priority", "", "high, normal or low")
	c.Flags().BoolVar(&flags.json, "json", false, "print the result as JSON instead of the tool's output")
	c.RunE = func(c *cobra.Command, args []string) error { return p.run(c, args[0], flags) }
	return c
}

func (p *program) run(c *cobra.Command, what string, flags runFlags) error {
	ctx := c.Context()
	request := client.Request{ID: flags.id, Version: flags.version, Priority: flags.priority,
		Timeout: contracts.Duration(flags.timeout), QueueTimeout: contracts.Duration(flags.queueTimeout)}
	for name, d := range map[string]time.Duration{"timeout": flags.timeout, "queue-timeout": flags.queueTimeout} {
		if c.Flags().Changed(name) && d <= 0 {
			return usage("--%s must be above 0", name)
		}
	}
	if flags.id != "" {
		if err := contracts.CheckID(flags.id); err != nil {
			return usage("--id: %s", err)
		}
	}
	contract, err := contractOf(what, flags.tool)
	if err != nil {
		return err
	}
	request.Contract = contract
	if contract == nil {
		request.Tool = what
	}
	if request.Labels, err = texts("--label", flags.labels); err != nil {
		return err
	}
	if _, err := pairs("--arg", flags.args, nil); err != nil {
		return err
	}
	if request.Context, err = pairs("--ctx", flags.context, nil); err != nil {
		return err
	}
	if request.StdinBase64, err = p.readStdin(flags.stdin); err != nil {
		return err
	}
	executors, nc, err := flags.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	parameters := func() contracts.Parameters {
		if contract != nil {
			return contract.Parameters
		}
		found, err := executors.Discover(ctx, what)
		if err != nil || len(found.Tools) == 0 {
			return contracts.Parameters{} // the executor will say what is wrong
		}
		return found.Tools[0].Parameters
	}
	if request.Args, err = arguments(flags, parameters); err != nil {
		return err
	}
	return p.follow(ctx, executors, request, flags)
}

// follow hands the request in and shows the run.
func (p *program) follow(ctx context.Context, executors *client.Client, request client.Request, flags runFlags) error {
	run, err := executors.Start(ctx, request)
	if errors.Is(err, client.ErrNoExecutor) {
		return errors.New("the NATS server is there, but no executor on it; start one with: executor serve")
	}
	if err != nil {
		return err
	}
	defer run.Close()
	// Ctrl-C stops the tool, and we still want to hear how it ended.
	stop := context.AfterFunc(ctx, func() {
		if err := executors.Cancel(context.WithoutCancel(ctx), run.ID); err != nil {
			fmt.Fprintln(p.stderr, "executor:", err)
			os.Exit(exitInterrupted)
		}
	})
	defer stop()
	attempt := 1
	for event, err := range run.Events(context.WithoutCancel(ctx)) {
		if err != nil {
			return err
		}
		switch event.Type {
		case client.TypeStarted:
			if event.Attempt > attempt && !flags.json {
				attempt = event.Attempt
				fmt.Fprintf(p.stderr, "executor: attempt %d begins on %s; what was printed so far is void\n", attempt, event.Executor)
			}
		case client.TypeOutput:
			if flags.json {
				continue
			}
			w := p.stdout
			if event.Stream == contracts.Stderr {
				w = p.stderr
			}
			if _, err := w.Write(event.Data); err != nil { // nobody reads us any more, as in "| head"
				return errors.Join(fmt.Errorf("write the tool's output: %w; the tool was told to stop", err), executors.Cancel(context.WithoutCancel(ctx), run.ID))
			}
		case client.TypeResult:
			return p.ended(event, flags.json)
		}
	}
	return nil
}

// ended turns a result into our exit code, and says what the tool itself could not.
func (p *program) ended(event client.Event, asJSON bool) error {
	result := event.Result
	if asJSON {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(result); err != nil {
			return err
		}
	}
	var code exitCode
	switch {
	case result.Status == contracts.Succeeded:
		if event.Incomplete && !asJSON {
			fmt.Fprintln(p.stderr, "executor: part of the output was not kept as long as the result")
		}
		if result.DroppedBytes > 0 && !asJSON {
			fmt.Fprintf(p.stderr, "executor: %d bytes of output were beyond what is published of one run\n", result.DroppedBytes)
		}
		return nil
	case result.Status == contracts.TimedOut:
		code.code = exitTimeout
	case result.Status == contracts.Cancelled:
		code.code = exitInterrupted
	case result.Status == contracts.Failed && result.Signal != "":
		code.code = exitSignal + signalNumber(result.Signal)
	case result.Status == contracts.Failed && result.ExitCode != nil && *result.ExitCode != 0:
		return exitCode{code: *result.ExitCode}
	case result.Status == contracts.Failed:
		code.code = exitError
	default:
		code.code = exitNotRun
	}
	if result.Error != nil && !asJSON {
		code.text = fmt.Sprintf("%s: %s", result.Status, result.Error.Message)
	}
	return code
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
func arguments(flags runFlags, parameters func() contracts.Parameters) (map[string]any, error) {
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
