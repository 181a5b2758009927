package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/mod/semver"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	localengine "github.com/praxis-sdk/executor/internal/engines/local"
	"github.com/praxis-sdk/executor/internal/executor"
)

// finding is what doctor says about one thing.
type finding struct {
	Name   string `json:"name"`
	State  string `json:"state"` // ok, warn, fail
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"` // what to do about it
}

// The states of a finding.
const (
	findingOK   = "ok"
	findingWarn = "warn"
	findingFail = "fail"
)

// oldestServer is the first NATS server that has a time to live for each message, which presence needs.
const oldestServer = "2.11.0"

// doctorWait is how long doctor may take.
const doctorWait = 30 * time.Second

func (p *program) doctorCommand() *cobra.Command {
	var flags fleetFlags
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Say what works here, what does not, and how to mend it", Args: none,
		Long: `doctor looks at the configuration and its contracts, tries each engine with a tool that does nothing, connects to NATS, looks
at streams and at what this user may do, and at the executors that are there. Without --config it looks at the engines as
executor dev uses them. It changes nothing, but that what dead executors left running in cgroups and in bwrap is ended, as at the
start of each. It exits with 1 if something does not work.`,
		Example: "  executor doctor\n  executor doctor --config /etc/executor/executor.yaml --json",
	}
	flags.registerAll(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), doctorWait)
		defer cancel()
		d := &doctor{ctx: ctx, service: flags.config != ""}
		d.examine(&flags)
		if asJSON {
			if err := p.printJSON(map[string]any{"findings": d.found}); err != nil {
				return err
			}
		} else if err := p.printFindings(d.found); err != nil {
			return err
		}
		if slices.ContainsFunc(d.found, func(f finding) bool { return f.State == findingFail }) {
			return exitCodeOf(exitError)
		}
		return nil
	}
	return c
}

func (p *program) printFindings(found []finding) error {
	wide := 0
	for _, f := range found {
		wide = max(wide, len(f.Name))
	}
	colours := map[string]string{findingOK: green, findingWarn: yellow, findingFail: red}
	for _, f := range found {
		fmt.Fprintf(p.stdout, "%s  %-*s  %s\n", paint(p.stdout, colours[f.State], fmt.Sprintf("%-4s", f.State)), wide, f.Name, f.Detail)
		if f.Mend != "" {
			fmt.Fprintf(p.stdout, "      %-*s  → %s\n", wide, "", f.Mend)
		}
	}
	return nil
}

// doctor gathers findings.
type doctor struct {
	ctx     context.Context
	service bool // looks at what serve would do, else at what dev would
	found   []finding
}

func (d *doctor) say(state, name, detail, mend string) {
	d.found = append(d.found, finding{Name: name, State: state, Detail: strings.ReplaceAll(detail, "\n", "; "), Mend: mend})
}

func (d *doctor) examine(flags *fleetFlags) {
	d.say(findingOK, "program", fmt.Sprintf("executor %s, %s, %s/%s", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH), "")
	config, err := flags.configuration()
	switch {
	case flags.config != "" && err != nil:
		d.say(findingFail, "configuration", err.Error(), "mend the file; configs/executor.yaml shows every key")
		return
	case flags.config != "":
		d.say(findingOK, "configuration", flags.config, "")
	default:
		nats := config.NATS
		config = development()
		config.NATS = nats
	}
	d.contracts(config)
	d.engines(config)
	if err != nil {
		d.say(findingFail, "nats", err.Error(), "start a server, or say where one is: --server, --context, $NATS_URL")
		return
	}
	d.nats(config, flags)
}

// writableTools says what follows from Config.WritableTools.
const writableTools = "tools that mount this for writing can put contracts or programs there that count as the operator's own"

func (d *doctor) contracts(config configs.Config) {
	if writable := config.WritableTools(); len(writable) > 0 {
		d.say(findingWarn, "policy.mounts", strings.Join(writable, ", ")+": "+writableTools, "let tools write elsewhere")
	}
	if len(config.Tools.Directories) == 0 {
		return
	}
	registry := executor.NewRegistry()
	if err := registry.Load(config.Tools.Directories); err != nil {
		d.say(findingFail, "contracts", err.Error(), "executor validate shows the same; serve does not start until they are right")
		return
	}
	d.say(findingOK, "contracts", fmt.Sprintf("%d in %s", registry.Len(), strings.Join(config.Tools.Directories, ", ")), "")
}

// engines tries each engine of the table with a tool that does nothing.
func (d *doctor) engines(config configs.Config) {
	for _, e := range engineTable {
		if !e.enabled(config) {
			d.say(findingWarn, e.name, "not enabled", fmt.Sprintf("execution.%s.enabled: true, if it is to be served", e.name))
			continue
		}
		dataDir := cmp.Or(config.Executor.DataDir, configs.DefaultDataDir(d.service))
		tried := config
		tried.Policy.Local.Commands = nil // a program that does nothing is of no interest there
		place := trial{dir: dataDir}
		if e.name == contracts.EngineLocal {
			place = newTrial(dataDir)
			defer place.remove()
		}
		engine, err := e.build(tried, place.dir, zerolog.Nop())
		if err != nil {
			d.say(findingFail, e.name, place.message(err), "")
			if e.name == contracts.EngineLocal {
				d.sandboxes(tried, e, place, "")
			}
			continue
		}
		found, err := try(d.ctx, e.name, engine)
		exit := found.Exit
		if c, ok := engine.(io.Closer); ok {
			c.Close()
		}
		switch {
		case err != nil:
			d.say(findingFail, e.name, "a tool that does nothing did not run: "+place.message(err), "")
		case exit.Code != 0 || exit.Signal != "":
			d.say(findingFail, e.name, fmt.Sprintf("a tool that does nothing failed: exit code %d %s", exit.Code, exit.Signal), "")
		case exit.Isolation.Tier == "none":
			d.say(findingWarn, e.name, "runs tools, as ordinary processes of this user: no sandbox, no limits of memory, cpu and network", "execution.enable_sandboxing: true runs them in a sandbox; without one, give it a user of its own, and only tools that you trust")
		default:
			state, detail := isolation(engine, exit.Isolation)
			detail = place.named(detail)
			if found.About != "" {
				detail += "; " + found.About
			}
			d.say(state, e.name, "runs tools; "+detail, "")
		}
		for _, lack := range found.Lacks {
			d.say(findingWarn, e.name, lack.What, lack.Mend)
		}
		if e.name == contracts.EngineLocal {
			d.limits(engine)
			d.commands(config)
			d.sandboxes(tried, e, place, exit.Isolation.Tier)
		}
	}
	for _, name := range []string{contracts.EngineDocker, contracts.EngineDagger} {
		if !slices.ContainsFunc(engineTable, func(e engineEntry) bool { return e.name == name }) {
			d.say(findingWarn, name, "this version cannot serve it", "")
		}
	}
}

// trial is what the local engine is tried with instead of the data directory, which an engine changes: tiers differ in who gets
// there, and what dead executors left there is removed. It lies in that, or in what there is of the way to it, so that what
// keeps an engine from that keeps it from this.
type trial struct{ dir, temp, base string }

// trialName begins the names of such directories. One that a doctor left who was killed is removed by the next.
const trialName = ".doctor-"

// newTrial makes one. Where it cannot be made the data directory has to do: an engine says what is wrong with that.
func newTrial(dataDir string) trial {
	here := trial{dir: dataDir}
	data, err := filepath.Abs(dataDir)
	if err != nil {
		return here
	}
	base := data
	for base != "/" {
		if _, err := os.Stat(base); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		base = filepath.Dir(base)
	}
	left, _ := filepath.Glob(filepath.Join(base, trialName+"*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(dir) // else the next one does
		}
	}
	temp, err := os.MkdirTemp(base, trialName)
	if err != nil {
		return here
	}
	t := trial{dir: filepath.Join(temp, strings.TrimPrefix(data, base)), temp: temp, base: strings.TrimSuffix(base, "/")}
	if err := os.Chmod(temp, 0o711); err != nil { // what is above it is asked about
		t.remove()
		return here
	}
	return t
}

func (t trial) remove() {
	if t.temp != "" {
		_ = os.RemoveAll(t.temp) // else the next one does
	}
}

// named gives a text the name of the directory that is meant.
func (t trial) named(text string) string {
	if t.temp == "" {
		return text
	}
	return strings.ReplaceAll(text, t.temp, t.base)
}

func (t trial) message(err error) string { return t.named(contracts.AsError(err).Message) }

// sandboxes tells of each tier but the one in use whether it works here, and what would make it work.
func (d *doctor) sandboxes(config configs.Config, local engineEntry, place trial, used string) {
	config.Execution.EnableSandboxing = true
	for _, tier := range localengine.Tiers {
		if tier == used || tier == localengine.TierNone {
			continue
		}
		config.Execution.Local.Sandbox.Mode = tier
		engine, err := local.build(config, place.dir, zerolog.Nop())
		if err != nil {
			reason, _, _ := strings.Cut(place.message(err), "; execution.enable_sandboxing: false")
			d.say(findingWarn, "sandbox", reason, "")
			continue
		}
		if c, ok := engine.(io.Closer); ok {
			c.Close()
		}
		d.say(findingOK, "sandbox", tier+" works here, and is not what tools of the local engine are run in", "")
	}
}

// limits tells what enforces the limits of contracts.
func (d *doctor) limits(engine engines.Engine) {
	limited, ok := engine.(interface {
		Limits() (memory, cpu, pids, remedy string)
	})
	if !ok {
		return
	}
	memory, cpu, pids, remedy := limited.Limits()
	if memory+cpu+pids == "" {
		return // the engine has no sandbox, which has been said
	}
	how := func(what, by string) string {
		switch {
		case by == "":
			return what + " is refused"
		case by == "rlimit" && what == "memory_limit":
			return what + " by rlimit, for each process"
		}
		return what + " by " + by
	}
	state := findingOK
	if remedy != "" {
		state = findingWarn
	}
	d.say(state, "limits", strings.Join([]string{how("memory_limit", memory), how("cpu_limit", cpu), how("pids_limit", pids)}, ", "), remedy)
}

// commands looks whether the list of allowed commands can be meant.
func (d *doctor) commands(config configs.Config) {
	var wrong []string
	for _, entry := range config.Policy.Local.Commands {
		info, err := os.Stat(entry)
		switch {
		case err != nil:
			wrong = append(wrong, entry+" is not there")
		case info.IsDir() && !strings.HasSuffix(entry, "/"):
			wrong = append(wrong, entry+" is a directory: with a slash at its end it stands for all that is in it")
		}
	}
	if len(wrong) > 0 {
		d.say(findingWarn, "commands", "policy.local.commands: "+strings.Join(wrong, "; "), "")
	} else if n := len(config.Policy.Local.Commands); n > 0 {
		d.say(findingOK, "commands", fmt.Sprintf("the local engine may execute what the %d entries of policy.local.commands name, and no more", n), "")
	}
}

// isolation describes how an engine keeps tools apart. That a stronger way does not work here is worth a warning, with what each
// needs.
func isolation(engine engines.Engine, is contracts.Isolation) (state, text string) {
	var by string
	var lacks, weaker []string
	if tiered, ok := engine.(interface {
		TierDetail() (by string, lacks, weaker []string)
	}); ok {
		by, lacks, weaker = tiered.TierDetail()
	}
	state, text = findingOK, "isolation "+is.Tier
	if by != "" {
		text += " (" + strings.Join(append([]string{by}, lacks...), "; ") + ")"
	}
	text += fmt.Sprintf(", network %s, limits %s", is.Network, is.Limits)
	if len(lacks) > 0 {
		state = findingWarn
	}
	for _, reason := range weaker {
		state, text = findingWarn, text+"; "+reason
	}
	return state, text
}

// try runs a tool that does nothing.
func try(ctx context.Context, name string, engine engines.Engine) (engines.Examination, error) {
	if examiner, is := engine.(engines.Examiner); is {
		return examiner.Examine(ctx)
	}
	if err := engine.Ready(ctx); err != nil {
		return engines.Examination{}, err
	}
	list, err := contracts.ParseContracts("doctor", []byte("{name: doctor, engine: "+name+", engine_spec: {command: [\"/bin/true\"]}}"))
	if err != nil {
		return engines.Examination{}, err
	}
	exit, err := engine.Run(ctx, &engines.Job{
		ID: "doctor", Attempt: 1, Contract: list[0], Spec: list[0].Spec,
		Starting: func() error { return nil }, Progress: func(string, string, float64) {},
	}, io.Discard, io.Discard)
	return engines.Examination{Exit: exit}, err
}

func (d *doctor) nats(config configs.Config, flags *fleetFlags) {
	config.NATS.ConnectWait = contracts.Seconds(2)
	b, err := flags.dial(d.ctx, &config, "doctor-"+instanceName(), zerolog.Nop())
	if err != nil {
		d.say(findingFail, "nats", err.Error(), "start a server, or say where one is: --server, --context, $NATS_URL")
		return
	}
	defer b.Close()
	version, away, err := b.Server()
	if err != nil {
		d.say(findingFail, "nats", err.Error(), "")
		return
	}
	if semver.Compare("v"+version, "v"+oldestServer) < 0 {
		d.say(findingFail, "nats", fmt.Sprintf("%s, version %s", b.URL(), version), "use a NATS server of version "+oldestServer+" or newer")
	} else {
		d.say(findingOK, "nats", fmt.Sprintf("%s, version %s, %s away", b.URL(), version, away.Round(10*time.Microsecond)), "")
	}
	names := enabledEngines(config)
	// First, because what is denied looks like a server that does not answer.
	denied, err := b.Rights(d.ctx, names, config.Executor.Name)
	switch {
	case err != nil:
		d.say(findingFail, "permissions", err.Error(), "")
		return
	case len(denied) > 0:
		d.say(findingWarn, "permissions", "this user may not "+strings.Join(denied, ", "), permit(denied))
	default:
		d.say(findingOK, "permissions", "all that an executor needs", "")
	}
	if blind(denied) {
		d.say(findingFail, "streams", "this user may not look at them", "")
		return
	}
	if d.streams(b, names) {
		d.executors(b, config)
	}
}

// permit says what to add to the permissions of a user, in the words of nats-server's configuration.
func permit(denied []string) string {
	var lines []string
	for _, verb := range []string{"publish", "subscribe"} {
		var subjects []string
		for _, one := range denied {
			if subject, ok := strings.CutPrefix(one, verb+" "); ok {
				subjects = append(subjects, strconv.Quote(subject))
			}
		}
		if len(subjects) > 0 {
			lines = append(lines, verb+": ["+strings.Join(subjects, ", ")+"]")
		}
	}
	return "if it is an executor's user, add to its permissions " + strings.Join(lines, " and ") + " (configs/nats/executor.conf has all); an agent's needs none of that"
}

// blind reports whether questions about streams would not be answered.
func blind(denied []string) bool {
	return slices.ContainsFunc(denied, func(one string) bool {
		return strings.HasPrefix(one, "publish $JS.API.INFO") || strings.HasPrefix(one, "publish $JS.API.STREAM.INFO.") || strings.HasPrefix(one, "publish $JS.API.CONSUMER.INFO.")
	})
}

// streams reports whether it makes sense to look further.
func (d *doctor) streams(b *bus.Bus, engines []string) bool {
	list, err := b.Inspect(d.ctx, engines)
	if err != nil {
		d.say(findingFail, "streams", err.Error(), "")
		return false
	}
	var missing, differ []string
	for _, one := range list {
		switch one.Did {
		case bus.DidMiss:
			missing = append(missing, one.Name)
		case bus.DidDiffer:
			differ = append(differ, one.Name+" ("+one.What+")")
		}
	}
	if len(missing) > 0 {
		d.say(findingWarn, "streams", "missing: "+strings.Join(missing, ", "), "the first executor that starts makes them, or executor provision")
	}
	if len(differ) > 0 {
		d.say(findingWarn, "streams", "not as configured: "+strings.Join(differ, ", "), "executor provision changes them, if that is meant")
	}
	if len(missing)+len(differ) == 0 {
		d.say(findingOK, "streams", fmt.Sprintf("%d streams, buckets and consumers, as configured", len(list)), "")
	}
	return true
}

// fleet asks who is there, and how many tools they know. It asks as an agent does, because executors do not answer where
// executors have their own answers; an executor's user may have no other place, and looks into the bucket itself.
func (d *doctor) fleet(b *bus.Bus, config configs.Config) (there []contracts.Presence, tools int, err error) {
	if !b.MayListen(d.ctx, cmp.Or(config.NATS.Inbox, "_INBOX")+".doctor."+client.NewID()) && config.NATS.Context == "" {
		if there, err = b.Presence(nil).Fleet(d.ctx); err == nil && len(there) == 0 {
			err = client.ErrNoExecutor
		}
		for _, one := range there {
			tools = max(tools, one.Tools)
		}
		return there, tools, err
	}
	nc, err := bus.DialClient(d.ctx, config.NATS, "executor doctor")
	if err != nil {
		return nil, 0, err
	}
	defer nc.Close()
	c, err := client.New(nc, client.Prefix(config.NATS.SubjectPrefix))
	if err != nil {
		return nil, 0, err
	}
	discovery, err := c.Discover(d.ctx, "")
	if err != nil {
		return nil, 0, err
	}
	return discovery.Executors, len(discovery.Tools), nil
}

// executors tells who is there.
func (d *doctor) executors(b *bus.Bus, config configs.Config) {
	there, tools, err := d.fleet(b, config)
	switch {
	case errors.Is(err, client.ErrNoExecutor):
		d.say(findingWarn, "executors", "none is running", "start one: executor serve")
		return
	case err != nil:
		d.say(findingFail, "executors", err.Error(), "")
		return
	}
	versions, served := map[string]int{}, map[string]bool{}
	slots, busy := 0, 0
	for _, one := range there {
		versions[one.Version]++
		slots, busy = slots+one.Slots, busy+one.Busy
		for _, name := range slices.Sorted(maps.Keys(one.Engines)) {
			state := one.Engines[name]
			if state.Ready && !one.Drains {
				served[name] = true
			}
			if !state.Ready {
				d.say(findingWarn, "executors", fmt.Sprintf("%s does not serve %s: %s", one.Name, name, state.Reason), "")
			}
		}
	}
	detail := fmt.Sprintf("%d, with %d slots of which %d are busy, %d tools; engines served: %s", len(there), slots, busy, tools, cmp.Or(strings.Join(slices.Sorted(maps.Keys(served)), ", "), "none"))
	if len(versions) > 1 {
		d.say(findingWarn, "executors", detail+"; versions "+strings.Join(slices.Sorted(maps.Keys(versions)), ", "), "bring all to one version when the upgrade is over")
		return
	}
	d.say(findingOK, "executors", detail, "")
}
