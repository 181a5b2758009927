package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// These tests take NATS away under tools that print much.

const floodConfig = `
nats: {ack_wait: 2, streams: {queue_bytes: 64Mi, reply_bytes: 512Mi, result_bytes: 64Mi, dead_bytes: 16Mi}}
executor: {slots: 4, drain_timeout: 1, spill_bytes: SPILL}
execution: {enable_sandboxing: false, max_output_bytes: 1Gi, local: {kill_grace: 0.5}}
policy: {inline_contracts: true, shell: true}
log: {level: debug, format: json}
`

// flood is an executor on a server of its own, and a file that tools print again and again.
type flood struct {
	*instance
	server  *natsServer
	client  *client.Client
	data    string // the executor's directory
	dir     string // the tool's
	file    string
	pattern []byte // what is in file; of a length that shows where a chunk is missing
}

func startFlood(t *testing.T, spillBytes string) *flood {
	t.Helper()
	f := &flood{server: startNATS(t), data: t.TempDir(), dir: t.TempDir(), pattern: make([]byte, 1<<20+61)}
	random := rand.NewChaCha8([32]byte{2})
	random.Read(f.pattern)
	f.file = writeFile(t, "pattern", string(f.pattern))
	f.client = newClient(t, connectTo(t, f.server.URL()))
	f.instance = startServe(t, f.server.URL(), "--data", f.data, "--config", writeFile(t, "executor.yaml", strings.Replace(floodConfig, "SPILL", spillBytes, 1)))
	eventually(t, "its front door is open", func() bool { return strings.Contains(f.log.String(), "executor is ready") })
	return f
}

// printed is how often the tool has printed the file.
func (f *flood) printed() int {
	text, _ := os.ReadFile(filepath.Join(f.dir, "printed"))
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// same reports whether b is what the tool prints from a place on.
func (f *flood) same(b []byte, at int) bool {
	for len(b) > 0 {
		want := f.pattern[at%len(f.pattern):]
		n := min(len(b), len(want))
		if !bytes.Equal(b[:n], want[:n]) {
			return false
		}
		b, at = b[n:], at+n
	}
	return true
}

// spilled is how much disk the executor has in files without a name.
func (f *flood) spilled() (size int64, files int) {
	links, _ := filepath.Glob("/proc/" + strconv.Itoa(f.cmd.Process.Pid) + "/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err != nil || !strings.HasPrefix(to, f.data) || !strings.HasSuffix(to, "(deleted)") {
			continue
		}
		if info, err := os.Stat(l); err == nil && info.Mode().IsRegular() {
			size += info.Sys().(*syscall.Stat_t).Blocks * 512
			files++
		}
	}
	return size, files
}

// 200 MB are printed while NATS goes twice. The tool is not held up by it, a follower and the stream get every byte, and
// nothing stays on disk.
func TestNATSIsAwayDuringAFlood(t *testing.T) {
	f := startFlood(t, "1Gi")
	const times, pause = 191, 100
	total := times * len(f.pattern)
	run := begin(t, f.client, shell(`i=0; while [ $i -lt `+strconv.Itoa(times)+` ]; do cat `+f.file+`; i=$((i+1)); echo $i > `+f.dir+`/next; mv `+f.dir+`/next `+f.dir+`/printed
		if [ $i = `+strconv.Itoa(pause)+` ]; then while [ ! -e `+f.dir+`/go ]; do sleep 0.01; done; fi; done`))
	var followed atomic.Int64
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	var follower sync.WaitGroup
	defer follower.Wait()
	defer cancel()
	results := make(chan *client.Result, 1)
	follower.Go(func() {
		defer close(results)
		seq := uint64(0)
		for event, err := range run.Events(ctx) {
			if err != nil {
				t.Errorf("after %d bytes: %v", followed.Load(), err)
				return
			}
			if event.Type == client.TypeOutput {
				if seq++; event.Seq != seq || !f.same(event.Data, int(followed.Load())) {
					t.Errorf("chunk %d after %d bytes is not what was printed there", event.Seq, followed.Load())
					return
				}
				followed.Add(int64(len(event.Data)))
			}
			if event.Result != nil {
				results <- event.Result
			}
		}
	})

	// In the middle of the flood.
	eventually(t, "the flood begins", func() bool { return followed.Load() > 5<<20 })
	f.server.Stop()
	eventually(t, "the tool goes on", func() bool { return f.printed() == pause })
	// Back, with what is on disk on its way, and away again.
	f.server.start()
	at := followed.Load()
	eventually(t, "the rest comes", func() bool { return followed.Load() > at })
	f.server.Stop()
	if err := os.WriteFile(filepath.Join(f.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tool has printed all", func() bool { return f.printed() == times })
	if size, files := f.spilled(); size < 80<<20 || files != 1 {
		t.Errorf("%d bytes in %d files are on disk", size, files)
	}
	f.server.start()
	result := <-results
	if result == nil || result.Status != contracts.Succeeded || result.Attempt != 1 || result.StdoutBytes != int64(total) || result.DroppedBytes != 0 {
		t.Errorf("%+v", result)
	}
	if followed.Load() != int64(total) {
		t.Errorf("%d bytes were followed, want %d", followed.Load(), total)
	}
	f.checkStored(t, run.ID, total)
	if size, files := f.spilled(); files != 0 {
		t.Errorf("%d bytes in %d files are still on disk", size, files)
	}
}

// What is kept and published again does not go through memory: 200 MB, without anybody who follows.
func TestMemoryWhileNATSIsAway(t *testing.T) {
	f := startFlood(t, "1Gi")
	nc := connectTo(t, f.server.URL())
	const times = 192
	request := shell(`echo $$ > ` + f.dir + `/started; while [ ! -e ` + f.dir + `/go ]; do sleep 0.01; done
		i=0; while [ $i -lt ` + strconv.Itoa(times) + ` ]; do cat ` + f.file + `; i=$((i+1)); done; echo $i > ` + f.dir + `/printed`)
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Request("tools.exec.local", text, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	f.away(t)
	var most atomic.Int64
	before := rss(t, f.cmd.Process.Pid)
	watch, stop := context.WithCancel(context.Background())
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop()
	watcher.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for watch.Err() == nil {
			most.Store(max(most.Load(), rss(t, f.cmd.Process.Pid)))
			<-tick.C
		}
	})
	eventually(t, "the tool has printed all", func() bool { return f.printed() == times })
	if size, _ := f.spilled(); size < times<<20-16<<20 {
		t.Errorf("%d bytes are on disk", size)
	}
	f.server.start()
	eventually(t, "all is published", func() bool { _, files := f.spilled(); return files == 0 })
	expectStatus(t, nc, request.ID, "started finished")
	f.checkStored(t, request.ID, times*len(f.pattern))
	grown := (most.Load() - before) >> 20
	t.Logf("memory grew by %d MiB", grown)
	if grown > 120 { // about 16; under the race detector, which the program of this test has as well, 80
		t.Errorf("memory grew by %d MiB", grown)
	}
}

// checkStored compares the stream with what the tool printed.
func (f *flood) checkStored(t *testing.T, id string, total int) {
	t.Helper()
	at := 0
	for i, m := range stored(t, connectTo(t, f.server.URL()), "TOOLS_REPLY", "tools.reply."+id+".output") {
		if m.Header.Get(contracts.HeaderSeq) != strconv.Itoa(i+1) || m.Header.Get(contracts.HeaderOffset) != strconv.Itoa(at) || !f.same(m.Data, at) {
			t.Fatalf("chunk %s in place %d is not what was printed there", m.Header.Get(contracts.HeaderSeq), i+1)
		}
		at += len(m.Data)
	}
	if at != total {
		t.Errorf("%d bytes are stored, want %d", at, total)
	}
}

// away takes NATS away from a tool that has started, and lets it print.
func (f *flood) away(t *testing.T) {
	t.Helper()
	eventually(t, "the tool runs", func() bool { _, err := os.Stat(filepath.Join(f.dir, "started")); return err == nil })
	f.server.Stop()
	if err := os.WriteFile(filepath.Join(f.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// blocked starts a tool that prints without end, takes NATS away, and returns when the tool waits.
func (f *flood) blocked(t *testing.T, mark string, timeout float64) *client.Run {
	t.Helper()
	request := shell(`echo $$ > ` + f.dir + `/started; while [ ! -e ` + f.dir + `/go ]; do sleep 0.01; done; while : ` + mark + `; do cat ` + f.file + `; done`)
	request.Timeout = contracts.Seconds(timeout)
	run := begin(t, f.client, request)
	f.away(t)
	eventually(t, "the tool waits", func() bool { return strings.Contains(f.log.String(), "waits on its write") })
	return run
}

// The timeout of a tool that waits goes on: the tool is stopped while NATS is away, and what it printed until then is
// stored once NATS is back, as is the result.
func TestTimeoutWhileNATSIsAway(t *testing.T) {
	f := startFlood(t, "16Mi")
	run := f.blocked(t, "5555.5", 8)
	if size, _ := f.spilled(); size > 8<<20+1<<20 {
		t.Errorf("%d bytes are on disk, of 16Mi for all runs", size)
	}
	eventually(t, "the tool is stopped", func() bool { return processesWith(t, "5555.5") == 0 })
	f.server.start()
	result := wait(t, run)
	if result.Status != contracts.TimedOut || result.Error.Code != contracts.Timeout || result.Attempt != 1 {
		t.Errorf("%+v", result)
	}
	if result.StdoutBytes < 12<<20 || result.DroppedBytes != 0 {
		t.Errorf("%d bytes were printed, %d dropped", result.StdoutBytes, result.DroppedBytes)
	}
	f.checkStored(t, run.ID, int(result.StdoutBytes))
	expectStatus(t, connectTo(t, f.server.URL()), run.ID, "started finished")
	if _, files := f.spilled(); files != 0 {
		t.Errorf("%d files are left", files)
	}
}

// SIGTERM ends an executor whose tool waits, and whose output can go nowhere. The run is left to others.
func TestDrainWhileNATSIsAway(t *testing.T) {
	f := startFlood(t, "16Mi")
	run := f.blocked(t, "5555.6", 60)
	f.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "the tool is stopped", func() bool { return processesWith(t, "5555.6") == 0 })
	eventually(t, "the executor ends", func() bool {
		select {
		case <-f.ended:
			return true
		default:
			return false
		}
	})
	if code := f.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	f.server.start()
	startServe(t, f.server.URL())
	if err := f.client.Cancel(t.Context(), run.ID); err != nil {
		t.Fatal(err)
	}
	if result := wait(t, run); result.Status != contracts.Cancelled {
		t.Errorf("%+v", result)
	}
}

// Nothing of the file stays when the executor is killed.
func TestKillWhileNATSIsAway(t *testing.T) {
	f := startFlood(t, "64Mi")
	f.blocked(t, "5555.7", 60)
	if size, files := f.spilled(); size < 16<<20 || files != 1 {
		t.Errorf("%d bytes in %d files are on disk", size, files)
	}
	f.kill()
	eventually(t, "the tool is gone", func() bool { return processesWith(t, "5555.7") == 0 })
	filepath.WalkDir(f.data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what the tool's helper removes just now
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 64<<10 {
			t.Errorf("%s is left, of %d bytes", path, info.Size())
		}
		return nil
	})
	f.server.start() // its end is part of the clean-up
}
