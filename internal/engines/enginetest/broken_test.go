package enginetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// broken is an engine with one mistake, to see that the suite finds it.
type broken struct {
	*enginetest.Fake
	mistake string
}

// mistakes are what engines get wrong, each with the part of the suite that has to find it.
var mistakes = []struct {
	name string
	part enginetest.Part
}{
	{"exchanges the streams", enginetest.Output},
	{"loses the last byte", enginetest.Output},
	{"keeps the output to the end", enginetest.Live},
	{"forgets the output of what was stopped", enginetest.Partial},
	{"buffers all that the writer does not take", enginetest.BackPressure},
	{"gives up when a writer fails", enginetest.WriterFails},
	{"has codes of seven bits", enginetest.ExitCodes},
	{"takes a signal for an exit", enginetest.Signals},
	{"forgets stdin", enginetest.Stdin},
	{"makes text of bytes", enginetest.Binary},
	{"calls Starting twice", enginetest.Starting},
	{"never calls Starting", enginetest.Starting},
	{"calls Starting after the start", enginetest.Starting},
	{"starts although Starting failed", enginetest.Starting},
	{"hides the cause of a cancel", enginetest.Cancel},
	{"takes a cancel for an exit", enginetest.Cancel},
	{"starts what was cancelled before", enginetest.Cancel},
	{"splices arguments", enginetest.Arguments},
	{"takes any contract", enginetest.ReadyAndCheck},
	{"runs one at a time and mixes them up", enginetest.Concurrency},
}

const asBroken = "EXECUTOR_TEST_BROKEN"

func suiteOf(e func() engines.Engine) enginetest.Suite {
	const noProcess = "it has no processes"
	return enginetest.Suite{
		Engine: contracts.EngineDocker,
		New:    func(testing.TB, time.Duration) engines.Engine { return e() },
		Tool:   []string{"fake"},
		Spec: func(c contracts.CommonSpec) contracts.Spec {
			return &contracts.DockerSpec{ContainerSpec: contracts.ContainerSpec{CommonSpec: c}}
		},
		Refused: map[string]contracts.Spec{"unsupported": &contracts.DockerSpec{ContainerSpec: contracts.ContainerSpec{
			CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: []string{"fake", "unsupported:there is no such thing here"}}}}}},
		Cannot: map[enginetest.Part]string{
			enginetest.Environment: noProcess, enginetest.ArgsFile: noProcess, enginetest.Directories: noProcess, enginetest.Spawn: noProcess,
			enginetest.Grace: noProcess, enginetest.Tree: noProcess,
		},
	}
}

// TestSuiteFindsMistakes runs the suite on broken engines, each in a process of its own, because it has to fail.
func TestSuiteFindsMistakes(t *testing.T) {
	if mistake := os.Getenv(asBroken); mistake != "" {
		fake := enginetest.NewFake(contracts.EngineDocker)
		enginetest.Run(t, suiteOf(func() engines.Engine { return broken{fake, mistake} }))
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			c := exec.Command(self, "-test.run", "^TestSuiteFindsMistakes$/^"+strings.ReplaceAll(string(m.part), " ", "_")+"$", "-test.v")
			c.Env = append(os.Environ(), asBroken+"="+m.name, "EXECUTOR_TEST_PATIENCE=2s")
			text, err := c.CombinedOutput()
			if err == nil || !bytes.Contains(text, []byte("--- FAIL: TestSuiteFindsMistakes/"+strings.ReplaceAll(string(m.part), " ", "_"))) {
				t.Errorf("the suite did not find that an engine %s: %v\n%s", m.name, err, text)
			}
		})
	}
}

func (b broken) Check(c *contracts.Contract) error {
	if b.mistake == "takes any contract" {
		return nil
	}
	return b.Fake.Check(c)
}

var oneAtATime struct {
	sync.Mutex
	last string
}

func (b broken) Run(ctx context.Context, job *engines.Job, stdout, stderr io.Writer) (engines.Exit, error) {
	var kept bytes.Buffer
	copied := *job
	inner := &copied
	run := func() (engines.Exit, error) { return b.Fake.Run(ctx, inner, stdout, stderr) }
	switch b.mistake {
	case "exchanges the streams":
		stdout, stderr = stderr, stdout
	case "loses the last byte":
		to := stdout
		stdout = &kept
		exit, err := run()
		to.Write(kept.Bytes()[:max(0, kept.Len()-1)])
		return exit, err
	case "keeps the output to the end", "buffers all that the writer does not take":
		to := stdout
		stdout = &kept
		exit, err := run()
		to.Write(kept.Bytes())
		return exit, err
	case "forgets the output of what was stopped":
		to := stdout
		stdout = &kept
		exit, err := run()
		if err == nil {
			to.Write(kept.Bytes())
		}
		return exit, err
	case "gives up when a writer fails":
		to := stdout
		var failed error
		stdout = writerFunc(func(p []byte) (int, error) {
			n, err := to.Write(p)
			failed = errors.Join(failed, err)
			return n, err
		})
		exit, err := run()
		return exit, errors.Join(err, failed)
	case "has codes of seven bits":
		exit, err := run()
		exit.Code &= 127
		return exit, err
	case "takes a signal for an exit":
		exit, err := run()
		if exit.Signal != "" {
			exit.Signal, exit.Code = "", 137
		}
		return exit, err
	case "forgets stdin":
		inner.Stdin = nil
	case "makes text of bytes":
		to := stdout
		stdout = writerFunc(func(p []byte) (int, error) { return to.Write(bytes.ToValidUTF8(p, []byte("�"))) })
	case "calls Starting twice":
		inner.Starting = func() error { return errors.Join(job.Starting(), job.Starting()) }
	case "never calls Starting":
		inner.Starting = func() error { return nil }
	case "calls Starting after the start":
		inner.Starting = func() error { return nil }
		stdout.Write([]byte("early"))
		if err := job.Starting(); err != nil {
			return engines.Exit{}, err
		}
	case "starts although Starting failed":
		inner.Starting = func() error { job.Starting(); return nil }
	case "hides the cause of a cancel":
		exit, err := run()
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		return exit, err
	case "takes a cancel for an exit":
		exit, err := run()
		if ctx.Err() != nil {
			exit.Signal, err = "SIGTERM", nil
		}
		return exit, err
	case "starts what was cancelled before":
		if ctx.Err() != nil {
			ctx = context.Background()
		}
	case "splices arguments":
		spec := *job.Spec.(*contracts.DockerSpec)
		spec.Command.Argv = strings.Fields(strings.Join(spec.Command.Argv, " "))
		inner.Spec = &spec
	case "runs one at a time and mixes them up":
		to := stdout
		stdout = &kept
		exit, err := run()
		oneAtATime.Lock()
		defer oneAtATime.Unlock()
		to.Write([]byte(oneAtATime.last))
		oneAtATime.last = kept.String()
		return exit, err
	}
	return run()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
