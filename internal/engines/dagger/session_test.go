//go:build linux

package dagger

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// quick makes the engine less patient until the end of the test. It is called before the engine is made.
func quick(t *testing.T) {
	t.Helper()
	before := []time.Duration{probeEvery, probeTimeout, retryFirst, retryMost, readyWait, endTimeout}
	probeEvery, probeTimeout, retryFirst, retryMost, readyWait, endTimeout = 50*time.Millisecond, time.Second, 20*time.Millisecond, 100*time.Millisecond, 2*time.Second, 2*time.Second
	t.Cleanup(func() {
		probeEvery, probeTimeout, retryFirst, retryMost, readyWait, endTimeout = before[0], before[1], before[2], before[3], before[4], before[5]
	})
}

func testImages(t *testing.T) map[string]daggertest.Image {
	t.Helper()
	return map[string]daggertest.Image{"image": daggertest.MakeImage(t, false, enginetest.Build(t))}
}

func isUnavailable(t *testing.T, err error, words ...string) {
	t.Helper()
	var wrong *contracts.Error
	if !errors.As(err, &wrong) || wrong.Code != contracts.EngineUnavailable {
		t.Fatalf("%v; an error with the code %s is right", err, contracts.EngineUnavailable)
	}
	for _, word := range words {
		if !strings.Contains(wrong.Message, word) {
			t.Errorf("the message %q lacks %q", wrong.Message, word)
		}
	}
}

// await1 waits for the end of the attempt to connect that is under way.
func await1(t *testing.T, e *Engine) error {
	t.Helper()
	_, err := e.Examine(t.Context())
	return err
}

func becomesReady(t *testing.T, e *Engine) {
	t.Helper()
	enginetest.Eventually(t, "the engine is ready", func() bool { return e.Ready(t.Context()) == nil })
}

// blocked starts a run that does not end by itself, once the engine is ready, and waits until its tool is up.
func blocked(t *testing.T, e *Engine) (ended chan error, stop context.CancelFunc) {
	t.Helper()
	becomesReady(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := e.Run(ctx, job(specWith(contracts.CommonSpec{}), "out:up", "block"), writer(func(p []byte) (int, error) { close(up); return len(p), nil }), io.Discard)
		ended <- err
	}()
	select {
	case <-up:
	case err := <-ended:
		t.Fatalf("the run ended before its tool was up: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the tool is not up")
	}
	return ended, cancel
}

func soon(t *testing.T, ended chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the run has not ended")
		return nil
	}
}

func TestCLI(t *testing.T) {
	cli := daggertest.NewCLI(t, daggertest.CLIGood, testImages(t))
	e := open1(t, Config{CLI: cli.Path, RunnerHost: "docker-container://somewhere"})
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
	alive := cli.Alive()
	if len(alive) != 1 {
		t.Fatalf("%d programs live", len(alive))
	}
	for _, want := range []string{"DAGGER_SILENT=1", "_EXPERIMENTAL_DAGGER_RUNNER_HOST=docker-container://somewhere"} {
		if !slices.Contains(cli.Environment(alive[0]), want) {
			t.Errorf("its environment lacks %s", want)
		}
	}
	begun := time.Now()
	e.Close()
	if took := time.Since(begun); took > endTimeout {
		t.Errorf("the end took %s", took)
	}
	if left := cli.Alive(); len(left) > 0 {
		t.Errorf("these programs are left: %v", left)
	}
	isUnavailable(t, e.Ready(t.Context()))
}

func TestNoCLI(t *testing.T) {
	t.Setenv(envCLI, "")
	t.Setenv("PATH", t.TempDir())
	script := filepath.Join(t.TempDir(), "dagger")
	do(t, os.WriteFile(script, []byte("no program"), 0o644))
	quick(t)
	for _, c := range []struct {
		path  string
		words []string
	}{{"", []string{"dagger", "PATH", "install"}}, {"/there/is/none", []string{"/there/is/none", "execution.dagger.cli", "no such file"}}, {script, []string{"permission denied"}}} {
		begun := time.Now()
		e, err := New(Config{CLI: c.path, Networks: []string{"bridge"}}, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		isUnavailable(t, e.Ready(t.Context()), c.words...)
		refusedWith(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")), contracts.EngineUnavailable, c.words...)
		e.Close()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%q: it took %s", c.path, took)
		}
	}
}

func TestCLIFails(t *testing.T) {
	quick(t)
	cli := daggertest.NewCLI(t, daggertest.CLIFail, nil)
	e := open1(t, Config{CLI: cli.Path})
	isUnavailable(t, await1(t, e), "did not start a session", "docker is not there")
	enginetest.Eventually(t, "it is tried again", func() bool { return cli.Started() > 1 })
}

// TestConnectHangs: neither the start nor the end waits, and what hangs is killed.
func TestConnectHangs(t *testing.T) {
	quick(t)
	readyWait = 100 * time.Millisecond
	cli := daggertest.NewCLI(t, daggertest.CLIHang, nil)
	begun := time.Now()
	e, err := New(Config{CLI: cli.Path, ConnectTimeout: time.Hour}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	isUnavailable(t, e.Ready(t.Context()), "still connecting")
	enginetest.Eventually(t, "the program is there", func() bool { return len(cli.Alive()) == 1 })
	e.Close()
	if left := cli.Alive(); len(left) > 0 || time.Since(begun) > 10*time.Second {
		t.Errorf("after %s these programs are left: %v", time.Since(begun), left)
	}

	e, err = New(Config{CLI: cli.Path, ConnectTimeout: 100 * time.Millisecond}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	isUnavailable(t, await1(t, e), "connect_timeout")
	cli.Become(t, daggertest.CLIGood, testImages(t))
	e.Close()
	if left := cli.Alive(); len(left) > 0 {
		t.Errorf("these programs are left: %v", left)
	}
}

// TestLogStreamHangs: an engine that takes the request for its log stream and never answers holds neither the start nor the end.
func TestLogStreamHangs(t *testing.T) {
	quick(t)
	readyWait = 100 * time.Millisecond
	_, e := double(t, daggertest.Options{HangLogs: true}, Config{ConnectTimeout: 300 * time.Millisecond})
	isUnavailable(t, await1(t, e), "connect_timeout")
	begun := time.Now()
	e.Close()
	e = open1(t, Config{ConnectTimeout: time.Hour})
	isUnavailable(t, e.Ready(t.Context()), "still connecting")
	e.Close()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the ends took %s", took)
	}
}

// TestLogStreamLater: a log stream that cannot be opened at once is opened when it can.
func TestLogStreamLater(t *testing.T) {
	quick(t)
	var works atomic.Bool
	_, e := double(t, daggertest.Options{FailLogs: func() bool { return !works.Load() }}, Config{})
	const words = "no log stream"
	if r := succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran"))); r.stdout != "ran" || !noted(r.Notes, words) {
		t.Errorf("output %q, notes %q", r.stdout, r.Notes)
	}
	works.Store(true)
	enginetest.Eventually(t, "there is a log stream", func() bool {
		return !noted(succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran"))).Notes, words)
	})
}

// TestEngineDownAtStart: it is told where nobody listens, and found when somebody does.
func TestEngineDownAtStart(t *testing.T) {
	quick(t)
	socket := filepath.Join(t.TempDir(), "engine.sock")
	cli := daggertest.NewCLI(t, daggertest.CLIGood, testImages(t))
	e := open1(t, Config{CLI: cli.Path, RunnerHost: "unix://" + socket})
	isUnavailable(t, await1(t, e), "unix://"+socket, "execution.dagger.engine")
	if n := cli.Started(); n > 0 {
		t.Errorf("%d programs were started that could not reach the engine", n)
	}
	listener, err := net.Listen("unix", socket)
	do(t, err)
	defer listener.Close()
	becomesReady(t, e)
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
}

// TestCLIKilled: the run ends as lost, at once; the next has a new session.
func TestCLIKilled(t *testing.T) {
	quick(t)
	cli := daggertest.NewCLI(t, daggertest.CLIGood, testImages(t))
	e := open1(t, Config{CLI: cli.Path})
	ended, stop := blocked(t, e)
	defer stop()
	daggertest.Kill(t, cli.Alive()[0])
	err := soon(t, ended)
	var wrong *contracts.Error
	if err == nil || errors.As(err, &wrong) || !strings.Contains(err.Error(), "lost") {
		t.Errorf("Run returned %v; an error that says the tool was lost is right, and not one that says it was never started", err)
	}
	becomesReady(t, e)
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
	if alive := cli.Alive(); len(alive) != 1 || cli.Started() != 2 {
		t.Errorf("%d programs of %d live", len(alive), cli.Started())
	}
}

// TestEngineGoneMidRun: and back again, elsewhere.
func TestEngineGoneMidRun(t *testing.T) {
	quick(t)
	images := testImages(t)
	d, e := double(t, daggertest.Options{Images: images}, Config{})
	ended, stop := blocked(t, e)
	defer stop()
	d.Drop()
	if err := soon(t, ended); err == nil || !strings.Contains(err.Error(), "lost") && !strings.Contains(err.Error(), "gone") {
		t.Errorf("Run returned %v", err)
	}
	enginetest.Eventually(t, "the engine is not ready", func() bool { return e.Ready(t.Context()) != nil })
	refusedWith(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")), contracts.EngineUnavailable)
	daggertest.Start(t, daggertest.Options{Images: images}).Use(t)
	becomesReady(t, e)
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
}

// TestEngineHangs: an engine that answers nothing any more is given up, and taken again when it does.
func TestEngineHangs(t *testing.T) {
	quick(t)
	d, e := double(t, daggertest.Options{}, Config{ConnectTimeout: 2 * time.Second})
	ended, stop := blocked(t, e)
	defer stop()
	d.Hang()
	isUnavailable(t, e.Ready(t.Context()))
	if err := soon(t, ended); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("Run returned %v", err)
	}
	d.Resume()
	becomesReady(t, e)
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
}

// TestImpatientCallers: who asks whether the engine is ready, and does not wait for the answer, ends no session.
func TestImpatientCallers(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{})
	ended, stop := blocked(t, e)
	d.Hang()
	for range 2 * probesFailed {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		isUnavailable(t, e.Ready(ctx))
		cancel()
	}
	d.Resume()
	stop()
	if err := soon(t, ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v: it was lost with its session", err)
	}
}

// TestPullTimeout: a registry that never answers does not hold a run for ever, and the run can go elsewhere.
func TestPullTimeout(t *testing.T) {
	d, e := double(t, daggertest.Options{}, Config{PullTimeout: 2 * time.Second})
	becomesReady(t, e)
	d.Hang()
	begun := time.Now()
	r := run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran"))
	if refusedWith(t, r, contracts.ImageUnavailable, "pull_timeout"); r.starts != 0 || time.Since(begun) > 10*time.Second {
		t.Errorf("%d starts, after %s", r.starts, time.Since(begun))
	}
	d.Resume()
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
}

// TestFilesOfTheDead: what an executor left that was killed is removed, what one has that lives is not.
func TestFilesOfTheDead(t *testing.T) {
	parent := t.TempDir()
	alive, err := claim(parent)
	do(t, err)
	dead := filepath.Join(parent, filesPrefix+"dead")
	do(t, errors.Join(os.MkdirAll(filepath.Join(dead, "dagger-changes-1/below"), 0o700), os.WriteFile(dead+".lock", nil, 0o600), os.WriteFile(filepath.Join(parent, "other"), nil, 0o600)))
	quick(t)
	e := open1(t, Config{DataDir: parent, CLI: "/there/is/none"})
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a dead executor is there: %v", err)
	}
	if _, err := os.Stat(alive.dir); err != nil {
		t.Errorf("the directory of one that lives is gone: %s", err)
	}
	if e.config.DataDir == alive.dir || filepath.Dir(e.config.DataDir) != parent {
		t.Errorf("its own is %s", e.config.DataDir)
	}
	e.Close()
	alive.close()
	if left := leftIn(parent); !slices.Equal(left, []string{"other"}) {
		t.Errorf("left behind: %q", left)
	}
}

// TestSessionTimeout: new runs get a new session, those in the old one come to their end there.
func TestSessionTimeout(t *testing.T) {
	quick(t)
	cli := daggertest.NewCLI(t, daggertest.CLIGood, testImages(t))
	e := open1(t, Config{CLI: cli.Path, SessionTimeout: 2 * time.Second})
	ended, stop := blocked(t, e)
	first := cli.Alive()
	enginetest.Eventually(t, "there is a second session", func() bool { return cli.Started() > 1 && e.Ready(t.Context()) == nil })
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
	select {
	case err := <-ended:
		t.Fatalf("the run in the old session ended: %v", err)
	default:
	}
	stop()
	if err := soon(t, ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	enginetest.Eventually(t, "the old session has ended", func() bool { return !slices.Contains(cli.Alive(), first[0]) })
}

// TestOldSessionHangs: a run in a session that was replaced does not wait for ever for an engine that answers no more.
func TestOldSessionHangs(t *testing.T) {
	quick(t)
	cli := daggertest.NewCLI(t, daggertest.CLIGood, testImages(t))
	e := open1(t, Config{CLI: cli.Path, SessionTimeout: 2 * time.Second})
	ended, stop := blocked(t, e)
	defer stop()
	old := cli.Alive()[0]
	enginetest.Eventually(t, "there is a second session", func() bool { return cli.Started() > 1 && e.Ready(t.Context()) == nil })
	do(t, syscall.Kill(old, syscall.SIGSTOP))
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "lost") {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the run waits for an engine that hangs")
	}
	enginetest.Eventually(t, "the old session has ended", func() bool { return !slices.Contains(cli.Alive(), old) })
}

// TestUpgraded: beside tools stands the program that runs, also where an upgrade has put another in its place or removed it.
func TestUpgraded(t *testing.T) {
	dir := t.TempDir()
	path, running := filepath.Join(dir, "executor"), filepath.Join(dir, "running")
	do(t, errors.Join(os.WriteFile(running, []byte("old"), 0o755), os.Link(running, path)))
	if got, err := asStarted(path, running, dir); err != nil || got != path {
		t.Errorf("before the upgrade it is %s, %v", got, err)
	}
	for _, what := range []string{"replaced", "removed"} {
		do(t, os.Remove(path))
		if what == "replaced" {
			do(t, os.WriteFile(path, []byte("new"), 0o755))
		}
		got, err := asStarted(path, running, dir)
		if text, _ := os.ReadFile(got); err != nil || string(text) != "old" {
			t.Errorf("where it was %s, %s holds %q, %v", what, got, text, err)
		}
	}
	if left := leftIn(dir); !slices.Equal(left, []string{"program", "running"}) {
		t.Errorf("there are %q", left)
	}
}

// TestSessionTimeoutSlowly: the old session serves until there is a new one, however long that takes.
func TestSessionTimeoutSlowly(t *testing.T) {
	quick(t)
	readyWait = 100 * time.Millisecond
	images := testImages(t)
	cli := daggertest.NewCLI(t, daggertest.CLIGood, images)
	e := open1(t, Config{CLI: cli.Path, SessionTimeout: 2 * time.Second, ConnectTimeout: 10 * time.Second})
	becomesReady(t, e)
	first := cli.Alive()
	cli.Become(t, daggertest.CLIHang, images)
	enginetest.Eventually(t, "a new session is tried", func() bool { return cli.Started() > 1 })
	for range 3 {
		succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
	}
	cli.Become(t, daggertest.CLIGood, images)
	for _, pid := range cli.Alive() {
		if !slices.Contains(first, pid) {
			daggertest.Kill(t, pid) // the one that hangs
		}
	}
	enginetest.Eventually(t, "the old session has ended", func() bool { return !slices.Contains(cli.Alive(), first[0]) })
	succeeded(t, run(t, e, job(specWith(contracts.CommonSpec{}), "out:ran")))
}

// TestWrongSession: a session of the environment that does not answer is told.
func TestWrongSession(t *testing.T) {
	quick(t)
	d := daggertest.Start(t, daggertest.Options{Images: testImages(t)})
	d.Use(t)
	t.Setenv(envToken, "not-the-token")
	e := open1(t, Config{})
	isUnavailable(t, await1(t, e), "unauthorized")
	t.Setenv(envToken, "")
	enginetest.Eventually(t, "it says what is missing", func() bool {
		err := await1(t, e)
		return err != nil && strings.Contains(err.Error(), envToken)
	})
}
