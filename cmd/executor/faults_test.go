package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// These tests break things: whole processes, a real NATS server, real tools.

// An executor is killed while it runs a tool. Another one starts it again; there is one result, and nothing is left of
// the first attempt.
func TestExecutorIsKilledDuringARun(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	victim := startServe(t, s.URL(), "--name", "victim")
	c := newClient(t, nc)
	marker := filepath.Join(t.TempDir(), "starts")
	request := shell(`echo start >> ` + marker + `; echo attempt of $$; if [ $(wc -l < ` + marker + `) = 1 ]; then exec sleep 7777.1; fi; echo second`)
	run := begin(t, c, request)
	eventually(t, "the tool runs", func() bool { return processesWith(t, "7777.1") == 1 })
	victim.kill()
	eventually(t, "the tool of the dead executor is gone", func() bool { return processesWith(t, "7777.1") == 0 })
	eventually(t, "its directory is gone", func() bool { return len(runDirectories(t, victim)) == 0 })
	startServe(t, s.URL(), "--name", "heir")
	result := wait(t, run)
	if result.Status != contracts.Succeeded || result.Attempt != 2 || result.Executor != "heir" || !strings.Contains(result.Stdout, "second") {
		t.Errorf("%+v", result)
	}
	if n := len(stored(t, nc, "TOOLS_RESULT", "tools.reply."+request.ID+".result")); n != 1 {
		t.Errorf("%d results", n)
	}
	expectStatus(t, nc, request.ID, "started started finished")
	starts, _ := os.ReadFile(marker)
	if n := strings.Count(string(starts), "start"); n != 2 {
		t.Errorf("the tool was started %d times", n)
	}
}

// expectStatus waits until the stored events of a run are those: the last one comes after the result.
func expectStatus(t *testing.T, nc *nats.Conn, id, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got = types(stored(t, nc, "TOOLS_REPLY", "tools.reply."+id+".status")); got == want {
			return
		}
	}
	t.Errorf("status of %s: %q, want %q", id, got, want)
}

// runDirectories are the directories of runs that a process has made and not removed, those made ahead apart.
func runDirectories(t *testing.T, p *instance) []string {
	t.Helper()
	data := ""
	for i, arg := range p.cmd.Args {
		if arg == "--data" {
			data = p.cmd.Args[i+1]
		}
	}
	files, err := filepath.Glob(filepath.Join(data, "runs", "*", "*", "args.json"))
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Size() > 0 {
			used = append(used, f)
		}
	}
	return used
}

// Executors that die under a request again and again do not take it for ever.
func TestRequestThatKillsItsExecutorsIsLost(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	c := newClient(t, nc)
	var mu sync.Mutex
	stop := make(chan struct{})
	var keeper sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); keeper.Wait() })
	defer end() // before the executors are ended
	var current *instance
	spawn := func() *instance { return startServe(t, s.URL()) }
	current = spawn()
	keeper.Go(func() { // starts another executor whenever one was killed, as an orchestrator does
		for {
			mu.Lock()
			p := current
			mu.Unlock()
			select {
			case <-p.ended:
				next := spawn()
				mu.Lock()
				current = next
				mu.Unlock()
			case <-stop:
				return
			}
		}
	})
	// The tool kills the executor: the parent of its parent, which is its shim.
	run := begin(t, c, shell(`kill -9 $(awk '{print $4}' /proc/$PPID/stat); sleep 60`))
	result := wait(t, run)
	end()
	if result.Status != contracts.Lost || result.Error.Code != contracts.ExecutorLost || result.Attempt != 3 {
		t.Errorf("%+v %+v", result, result.Error)
	}
	letters, err := c.DeadLetters(t.Context(), client.DeadFilter{})
	if err != nil || len(letters) != 1 || letters[0].ID != run.ID {
		t.Fatalf("%+v, %v", letters, err)
	}
	// Its history is that of three executors, though none of them lived to tell.
	by := map[string]bool{}
	for i, e := range letters[0].History {
		if by[e.Executor] = true; e.Type != contracts.TypeStarted || e.Attempt != i+1 || e.Engine != "local" {
			t.Errorf("%+v", e)
		}
	}
	if len(letters[0].History) != 3 || len(by) != 3 {
		t.Errorf("%+v", letters[0].History)
	}
	expectStatus(t, nc, run.ID, "started started started finished")
}

// NATS is restarted while a tool prints: the run goes on, and no byte is missing or doubled.
func TestNATSIsRestartedDuringARun(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	startServe(t, s.URL())
	c := newClient(t, nc)
	run := begin(t, c, shell(`i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.1; done`))
	var output strings.Builder
	var result *client.Result
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	restarts := 0
	for event, err := range run.Events(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		output.Write(event.Data)
		if event.Result != nil {
			result = event.Result
		}
		if strings.Count(output.String(), "\n") > 800*(restarts+1) && restarts < 2 {
			restarts++
			s.Stop()
			s.start()
		}
	}
	var want strings.Builder
	for i := range 3000 {
		fmt.Fprintln(&want, "line", i)
	}
	if restarts != 2 || result.Status != contracts.Succeeded || result.Attempt != 1 {
		t.Errorf("%d restarts, %+v", restarts, result)
	}
	if output.String() != want.String() {
		t.Errorf("followed %d bytes, want %d", output.Len(), want.Len())
	}
	if result.Stdout != want.String() {
		t.Errorf("the result has %d bytes, want %d", len(result.Stdout), want.Len())
	}
	var chunks strings.Builder
	for i, m := range stored(t, nc, "TOOLS_REPLY", "tools.reply."+run.ID+".output") {
		if m.Header.Get(contracts.HeaderSeq) != fmt.Sprint(i+1) {
			t.Fatalf("chunk %s in place %d", m.Header.Get(contracts.HeaderSeq), i+1)
		}
		chunks.Write(m.Data)
	}
	if chunks.String() != want.String() {
		t.Errorf("%d bytes are stored, want %d", chunks.Len(), want.Len())
	}
}

// An executor that is paused past its lease, as by a suspended machine, and goes on later: somebody else ran the tool
// again meanwhile, and there is one result all the same.
func TestExecutorIsPausedPastItsLease(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	sleeper := startServe(t, s.URL(), "--name", "sleeper")
	c := newClient(t, nc)
	marker := filepath.Join(t.TempDir(), "starts")
	run := begin(t, c, shell(`echo x >> `+marker+`; if [ $(wc -l < `+marker+`) = 1 ]; then sleep 4; echo first; else echo second; fi`))
	eventually(t, "the tool runs", func() bool { _, err := os.Stat(marker); return err == nil })
	sleeper.cmd.Process.Signal(syscall.SIGSTOP)
	startServe(t, s.URL(), "--name", "awake")
	result := wait(t, run)
	sleeper.cmd.Process.Signal(syscall.SIGCONT)
	if result.Executor != "awake" || result.Attempt != 2 || strings.TrimSpace(result.Stdout) != "second" {
		t.Errorf("%+v", result)
	}
	eventually(t, "the sleeper notices", func() bool { return strings.Contains(sleeper.log.String(), "had a result already") })
	if n := len(stored(t, nc, "TOOLS_RESULT", "tools.reply."+run.ID+".result")); n != 1 {
		t.Errorf("%d results", n)
	}
}

// The same request twice at once, on two executors: one claim, one run, and both askers are answered.
func TestTwoCopiesOfARequestAtOnce(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	startServe(t, s.URL())
	startServe(t, s.URL())
	for round := range 10 {
		marker := filepath.Join(t.TempDir(), "starts")
		request := shell("echo x >> " + marker + "; sleep 0.3; cat " + marker)
		text, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		var answers sync.WaitGroup
		for range 2 {
			answers.Go(func() {
				reply, err := nc.Request("tools.run", text, 20*time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				if !strings.Contains(string(reply.Data), `"status":"succeeded"`) || !strings.Contains(string(reply.Data), `"stdout":"x\n"`) {
					t.Errorf("round %d: %s", round, reply.Data)
				}
			})
		}
		answers.Wait()
		expectStatus(t, nc, request.ID, "started finished")
	}
}

// SIGTERM: what ends in the drain time is finished, what does not is left to others, and the program exits with 0.
func TestDrain(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	leaving := startServe(t, s.URL(), "--name", "leaving")
	c := newClient(t, nc)
	short := begin(t, c, shell(`echo short; sleep 1.5; echo done`))
	marker := filepath.Join(t.TempDir(), "starts")
	long := begin(t, c, shell(`echo x >> `+marker+`; if [ $(wc -l < `+marker+`) = 1 ]; then sleep 8888.2; fi; echo long done`))
	shortEnd, longEnd := make(chan *client.Result, 1), make(chan *client.Result, 1)
	go func() { shortEnd <- wait(t, short) }()
	go func() { longEnd <- wait(t, long) }()
	eventually(t, "both run", func() bool {
		return processesWith(t, "8888.2") > 0 && len(stored(t, nc, "TOOLS_REPLY", "tools.reply."+short.ID+".output")) > 0
	})
	startServe(t, s.URL(), "--name", "staying")
	leaving.cmd.Process.Signal(syscall.SIGTERM)
	if r := <-shortEnd; r.Status != contracts.Succeeded || r.Executor != "leaving" || r.Stdout != "short\ndone\n" {
		t.Errorf("the short run: %+v", r)
	}
	if code := leaving.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := <-longEnd; r.Status != contracts.Succeeded || r.Executor != "staying" || r.Attempt != 2 {
		t.Errorf("the long run: %+v", r)
	}
	if n := processesWith(t, "8888.2"); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	expectStatus(t, nc, long.ID, "started retry started finished")
}

// A second signal ends the program at once, and still nothing of its tools is left.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	s := startNATS(t)
	p := startServe(t, s.URL())
	begin(t, newClient(t, connectTo(t, s.URL())), shell(`trap '' TERM; sleep 9999.3; sleep 9999.3`))
	eventually(t, "the tool runs", func() bool { return processesWith(t, "9999.3") > 0 })
	p.cmd.Process.Signal(os.Interrupt)
	eventually(t, "it drains", func() bool { return strings.Contains(p.log.String(), "waiting for what runs") })
	p.cmd.Process.Signal(os.Interrupt)
	if code := p.exitCode(); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	eventually(t, "the tool is gone", func() bool { return processesWith(t, "9999.3") == 0 })
}

// Cancel of what runs, of what waits in the queue, and of what has ended.
func TestCancel(t *testing.T) {
	s := startNATS(t)
	nc := connectTo(t, s.URL())
	startServe(t, s.URL(), "--slots", "1")
	c := newClient(t, nc)
	running := begin(t, c, shell(`echo partial; (setsid sh -c 'trap "" TERM; sleep 6666.4' &); sleep 6666.4`))
	runningEnd := make(chan *client.Result, 1)
	go func() { runningEnd <- wait(t, running) }()
	eventually(t, "the first runs", func() bool { return processesWith(t, "6666.4") >= 2 })
	waiting := begin(t, c, shell("echo must not run"))
	waitingEnd := make(chan *client.Result, 1)
	go func() { waitingEnd <- wait(t, waiting) }()
	eventually(t, "the second waits", func() bool { return queueLength(t, nc) == 2 })
	for _, id := range []string{waiting.ID, running.ID} {
		if err := c.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-runningEnd; r.Status != contracts.Cancelled || r.Error.Code != contracts.CancelledCode || r.Stdout != "partial\n" {
		t.Errorf("what ran: %+v", r)
	}
	if n := processesWith(t, "6666.4"); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if r := <-waitingEnd; r.Status != contracts.Cancelled || r.Attempt != 0 || r.StdoutBytes != 0 {
		t.Errorf("what waited: %+v", r)
	}
	// What has ended stays as it is.
	done := begin(t, c, shell("echo fine"))
	wait(t, done)
	if err := c.Cancel(t.Context(), done.ID); err != nil {
		t.Fatal(err)
	}
	if r := wait(t, c.Follow(done.ID)); r.Status != contracts.Succeeded {
		t.Errorf("what had ended: %+v", r)
	}
}

func queueLength(t *testing.T, nc *nats.Conn) int {
	t.Helper()
	reply, err := nc.Request("$JS.API.STREAM.INFO.TOOLS_EXEC", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ State struct{ Messages int } }
	if err := json.Unmarshal(reply.Data, &info); err != nil {
		t.Fatal(err)
	}
	return info.State.Messages
}

// Nobody is there: the asker is told at once.
func TestNoExecutorAtAll(t *testing.T) {
	s := startNATS(t)
	_, err := newClient(t, connectTo(t, s.URL())).Start(t.Context(), shell("true"))
	if !errors.Is(err, client.ErrNoExecutor) {
		t.Errorf("error %v", err)
	}
}
