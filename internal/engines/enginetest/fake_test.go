package enginetest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		enginetest.Clean()
		os.Exit(code)
	}))
}

func TestFake(t *testing.T) {
	enginetest.Run(t, suiteOf(func() engines.Engine { return enginetest.NewFake(contracts.EngineDocker) }))
}

// job makes a run of a script on the fake engine.
func job(script ...string) *engines.Job {
	spec := &contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: append([]string{"fake"}, script...)}}}
	return &engines.Job{ID: "id", Attempt: 1, Contract: &contracts.Contract{Name: "fake", Engine: contracts.EngineLocal, Spec: spec}, Spec: spec,
		Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
}

func TestFakeFailsBeforeTheStart(t *testing.T) {
	f := enginetest.NewFake(contracts.EngineLocal)
	j := job("progress:pull:3 of 7", "fail-before:image_unavailable:there is no image: none", "out:ran")
	var told []string
	j.Progress = func(stage, message string, percent float64) { told = append(told, stage, message) }
	j.Starting = func() error { t.Error("Starting was called"); return nil }
	_, err := f.Run(t.Context(), j, io.Discard, io.Discard)
	var wrong *contracts.Error
	if !errors.As(err, &wrong) || *wrong != (contracts.Error{Code: contracts.ImageUnavailable, Message: "there is no image: none"}) {
		t.Errorf("Run returned %v", err)
	}
	if want := []string{"pull", "3 of 7"}; !slices.Equal(told, want) {
		t.Errorf("progress was %q", told)
	}
	if n := len(f.Starts()); n != 0 {
		t.Errorf("%d starts", n)
	}
}

func TestFakeLosesTheTool(t *testing.T) {
	f := enginetest.NewFake(contracts.EngineLocal)
	var stdout bytes.Buffer
	_, err := f.Run(t.Context(), job("out:ran", "fail-after:the daemon is gone"), &stdout, io.Discard)
	if err == nil || err.Error() != "the daemon is gone" || stdout.String() != "ran" || len(f.Starts()) != 1 {
		t.Errorf("Run returned %v after %q and %d starts", err, stdout.String(), len(f.Starts()))
	}
}

func TestFakeHooks(t *testing.T) {
	f := enginetest.NewFake(contracts.EngineLocal)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	cause := errors.New("enough")
	ended := make(chan error, 2)
	run := func(script ...string) {
		go func() {
			_, err := f.Run(ctx, job(script...), io.Discard, io.Discard)
			ended <- err
		}()
	}
	run("out:a", "await:go", "exit:0")
	run("ignore-cancel", "await:go on")
	f.AwaitStarts(t, 2)
	if now, most := f.Running(); now != 2 || most != 2 {
		t.Errorf("%d run, %d at most", now, most)
	}
	f.Release("go")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	cancel(cause)
	if now, _ := f.Running(); now != 1 {
		t.Errorf("%d run", now)
	}
	f.Release("go on")
	if err := <-ended; err != nil {
		t.Errorf("a tool that ignores the cancel ended with %v", err)
	}
	f.AwaitIdle(t)
	if _, err := f.Run(ctx, job("block"), io.Discard, io.Discard); !errors.Is(err, cause) {
		t.Errorf("Run returned %v", err)
	}

	f.SetReady(contracts.Errorf(contracts.EngineUnavailable, "the daemon is away"))
	if f.Ready(t.Context()) == nil {
		t.Error("it is ready")
	}
	exit, err := f.Run(t.Context(), job("oom"), io.Discard, io.Discard)
	if err != nil || !exit.OOMKilled || exit.Signal != "SIGKILL" {
		t.Errorf("%+v, %v", exit, err)
	}
	exit, err = f.Run(t.Context(), job("no-such-verb"), io.Discard, io.Discard)
	if err != nil || exit.Code != 64 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// The checker of output must find what is wrong, or the suite would find nothing.
func TestFloodFindsMistakes(t *testing.T) {
	print := func(size string) []byte {
		var b bytes.Buffer
		if _, err := enginetest.NewFake(contracts.EngineLocal).Run(t.Context(), job("flood:"+size), &b, io.Discard); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	text := print("300K")
	var good enginetest.Flood
	for rest := text; len(rest) > 0; {
		n := min(len(rest), 777)
		if _, err := good.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if good.Bytes != 300<<10 {
		t.Errorf("%d bytes", good.Bytes)
	}
	for _, at := range []int{0, 1, 15, 65535, 65536, 70001, len(text) - 1} {
		wrong := slices.Clone(text)
		wrong[at] ^= 1
		var f enginetest.Flood
		if _, err := f.Write(wrong); err == nil {
			t.Errorf("a mistake at byte %d was not found", at)
		}
	}
	var f enginetest.Flood
	if _, err := f.Write(slices.Delete(slices.Clone(text), 100_000, 100_016)); err == nil {
		t.Error("a line that is missing was not found")
	}
}
