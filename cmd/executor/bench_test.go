package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
	"github.com/praxis-sdk/executor/internal/engines/local"
)

// The benchmarks start the program as a process and compare it with the bare thing in the same round; each iteration is
// one round. `make bench` runs them; docs/performance.md has the figures.

// rss is the resident memory of a process in bytes.
func rss(tb testing.TB, pid int) int64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

func bareExec(tb testing.TB) {
	c := exec.Command("/bin/true")
	stdout, _ := c.StdoutPipe()
	stderr, _ := c.StderrPipe()
	if err := c.Start(); err != nil {
		tb.Fatal(err)
	}
	io.Copy(io.Discard, stdout)
	io.Copy(io.Discard, stderr)
	c.Wait()
}

func percentile(d []time.Duration, p float64) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, int(float64(len(d))*p))]
}

func median(f []float64) float64 {
	slices.Sort(f)
	return f[len(f)/2]
}

const trueTool = `{"name":"true","engine":"local","engine_spec":{"command":["/bin/true"]}}`

const benchConfig = `
executor: {slots: 16}
execution: {max_output_bytes: 4Gi, docker: {enabled: false}}
nats: {streams: {reply_bytes: 6Gi}}
`

// BenchmarkLatency: one request at a time, from the call of tools.run to its answer, against a bare fork and exec.
func BenchmarkLatency(b *testing.B) {
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	request := []byte(`{"contract":` + trueTool + `}`)
	var p50, p99, bare []float64
	for b.Loop() {
		const n = 500
		var ours, theirs []time.Duration
		for range n {
			begin := time.Now()
			bareExec(b)
			theirs = append(theirs, time.Since(begin))
			begin = time.Now()
			reply, err := nc.Request("tools.run", request, 5*time.Second)
			if err != nil || !bytes.Contains(reply.Data, []byte(`"succeeded"`)) {
				b.Fatal(err, reply)
			}
			ours = append(ours, time.Since(begin))
		}
		base := percentile(theirs, 0.5)
		p50 = append(p50, (percentile(ours, 0.5)-base).Seconds()*1e3)
		p99 = append(p99, (percentile(ours, 0.99)-base).Seconds()*1e3)
		bare = append(bare, base.Seconds()*1e3)
	}
	b.ReportMetric(median(bare), "bare-p50-ms")
	b.ReportMetric(median(p50), "over-p50-ms")
	b.ReportMetric(median(p99), "over-p99-ms")
}

// BenchmarkThroughput: 5,000 requests on 16 slots, from the first publish to the last stored result, against loops with
// 16 workers that only fork and exec, and that make the private directories as well.
func BenchmarkThroughput(b *testing.B) {
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	request := []byte(`{"contract":` + trueTool + `}`)
	const n = 5000
	dir := b.TempDir()
	var count atomic.Int64
	var all, bare, bareDirs, ratio, ratioDirs []float64
	for b.Loop() {
		x := loop(n, func() { bareExec(b) })
		y := loop(n, func() {
			run := filepath.Join(dir, strconv.FormatInt(count.Add(1), 10))
			os.Mkdir(run, 0o700)
			os.Mkdir(run+"/work", 0o700)
			os.Mkdir(run+"/tmp", 0o700)
			os.WriteFile(run+"/args.json", []byte(`{"args":{},"context":{}}`), 0o400)
			bareExec(b)
			os.RemoveAll(run)
		})
		z := rate(b, nc, request, n)
		all, bare, bareDirs = append(all, z), append(bare, x), append(bareDirs, y)
		ratio, ratioDirs = append(ratio, z/x), append(ratioDirs, z/y)
	}
	b.ReportMetric(median(all), "runs/s")
	b.ReportMetric(median(bare), "bare-runs/s")
	b.ReportMetric(median(bareDirs), "bare-dirs-runs/s")
	b.ReportMetric(median(ratio), "of-bare")
	b.ReportMetric(median(ratioDirs), "of-bare-dirs")
}

// loop has 16 workers do something n times in all, and returns how often a second.
func loop(n int, one func()) float64 {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	begin := time.Now()
	for range 16 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				one()
			}
		})
	}
	all.Wait()
	return float64(n) / time.Since(begin).Seconds()
}

// BenchmarkSandbox: 1,500 requests for a tool in the sandbox on 16 slots, against a loop of 16 workers over the local engine
// alone, which makes the same sandboxes.
func BenchmarkSandbox(b *testing.B) {
	d := startDev(b, `
executor: {slots: 16}
execution: {enable_sandboxing: true}
`)
	nc := connectTo(b, d.url)
	engine, err := local.New(local.Config{DataDir: b.TempDir(), Path: local.DefaultPath, Sandboxing: true, Sandbox: local.DefaultSandbox()}, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close()
	spec := &contracts.LocalSpec{CommonSpec: contracts.CommonSpec{Command: contracts.Command{Argv: []string{"/bin/true"}}}}
	job := &engines.Job{
		ID: "bare", Attempt: 1, Spec: spec, Contract: &contracts.Contract{Name: "true", Engine: contracts.EngineLocal, Spec: spec},
		Starting: func() error { return nil }, Progress: func(string, string, float64) {},
	}
	const n = 1500
	var all, bare, ratio []float64
	for b.Loop() {
		x := loop(n, func() {
			if exit, err := engine.Run(b.Context(), job, io.Discard, io.Discard); err != nil || exit.Code != 0 {
				b.Error(exit, err)
			}
		})
		y := rate(b, nc, []byte(`{"contract":`+trueTool+`}`), n)
		all, bare, ratio = append(all, y), append(bare, x), append(ratio, y/x)
	}
	b.ReportMetric(median(all), "runs/s")
	b.ReportMetric(median(bare), "engine-alone-runs/s")
	b.ReportMetric(median(ratio), "of-engine-alone")
}

// BenchmarkOutput: 2 GiB printed by one tool, to a subscriber of the stored output that checks every byte, against a bare
// asynchronous publish of 64 KiB messages into a stream of the same kind, without a subscriber and with the same one.
func BenchmarkOutput(b *testing.B) {
	const total = 2 << 30
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(64))
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	pattern := make([]byte, 1<<20)
	for i := range pattern {
		pattern[i] = byte('a' + i%26)
		if i%80 == 79 {
			pattern[i] = '\n'
		}
	}
	file := filepath.Join(b.TempDir(), "pattern")
	if err := os.WriteFile(file, pattern, 0o600); err != nil {
		b.Fatal(err)
	}
	// check returns when total bytes of the pattern have come.
	check := func(sub *nats.Subscription, what string) {
		got := 0
		for got < total {
			msg, err := sub.NextMsg(30 * time.Second)
			if err != nil {
				b.Fatalf("%s: after %d bytes: %v", what, got, err)
			}
			for rest := msg.Data; len(rest) > 0; {
				at := got % len(pattern)
				n := min(len(rest), len(pattern)-at)
				if !bytes.Equal(rest[:n], pattern[at:at+n]) {
					b.Fatalf("%s: wrong bytes after %d", what, got)
				}
				rest, got = rest[n:], got+n
			}
		}
	}
	publish := func() {
		for sent := 0; sent < total; sent += 64 << 10 {
			at := sent % len(pattern)
			if _, err := js.PublishAsync("bare", pattern[at:at+64<<10], jetstream.WithStallWait(10*time.Second)); err != nil {
				b.Error(err)
				return
			}
		}
		<-js.PublishAsyncComplete()
	}
	// bareRate publishes into a new stream and returns MiB/s.
	bareRate := func(subscriber bool) float64 {
		if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "BARE", Subjects: []string{"bare"}, MaxBytes: 3 << 30, Discard: jetstream.DiscardOld}); err != nil {
			b.Fatal(err)
		}
		defer js.DeleteStream(ctx, "BARE")
		if !subscriber {
			begin := time.Now()
			publish()
			return total / time.Since(begin).Seconds() / (1 << 20)
		}
		sub, _ := nc.SubscribeSync("bare")
		defer sub.Unsubscribe()
		sub.SetPendingLimits(-1, -1)
		nc.Flush()
		begin := time.Now()
		var publisher sync.WaitGroup
		publisher.Go(publish)
		check(sub, "bare")
		rate := total / time.Since(begin).Seconds() / (1 << 20)
		publisher.Wait()
		return rate
	}
	var ours, alone, bare, ofAlone, ratio, growth []float64
	for i := 0; b.Loop(); i++ {
		w, x := bareRate(false), bareRate(true)
		id := fmt.Sprintf("output-%d-%d", os.Getpid(), i)
		sub, _ := nc.SubscribeSync("tools.reply." + id + ".output")
		sub.SetPendingLimits(-1, -1)
		nc.Flush()
		before := rss(b, d.cmd.Process.Pid)
		var most atomic.Int64
		watch, stop := context.WithCancel(ctx)
		var watcher sync.WaitGroup
		watcher.Go(func() {
			for watch.Err() == nil {
				most.Store(max(most.Load(), rss(b, d.cmd.Process.Pid)))
				select {
				case <-time.After(20 * time.Millisecond):
				case <-watch.Done():
				}
			}
		})
		request, _ := json.Marshal(map[string]any{"id": id, "contract": map[string]any{"name": "flood", "engine": "local", "engine_spec": map[string]any{
			"command": []string{"/bin/sh", "-c", "i=0; while [ $i -lt 2048 ]; do cat " + file + "; i=$((i+1)); done"}, "timeout": 120}}})
		begin := time.Now()
		if _, err := nc.Request("tools.exec.local", request, 5*time.Second); err != nil {
			b.Fatal(err)
		}
		check(sub, "ours")
		y := total / time.Since(begin).Seconds() / (1 << 20)
		stop()
		watcher.Wait()
		sub.Unsubscribe()
		ours, alone, bare = append(ours, y), append(alone, w), append(bare, x)
		ofAlone, ratio = append(ofAlone, y/w), append(ratio, y/x)
		growth = append(growth, float64(most.Load()-before)/(1<<20))
	}
	b.ReportMetric(median(ours), "MiB/s")
	b.ReportMetric(median(alone), "bare-MiB/s")
	b.ReportMetric(median(bare), "bare-subscribed-MiB/s")
	b.ReportMetric(median(ofAlone), "of-bare")
	b.ReportMetric(median(ratio), "of-bare-subscribed")
	b.ReportMetric(median(growth), "growth-MiB")
}

// BenchmarkLine: from write() in the tool to the arrival at a subscriber, one line at a time. The line is the time of the
// write, in nanoseconds since the boot of the clock that both read.
func BenchmarkLine(b *testing.B) {
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	self, _ := os.Executable()
	var all, p99 []float64
	for i := 0; b.Loop(); i++ {
		id := fmt.Sprintf("line-%d-%d", os.Getpid(), i)
		sub, _ := nc.SubscribeSync("tools.reply." + id + ".output")
		nc.Flush()
		request, _ := json.Marshal(map[string]any{"id": id, "contract": map[string]any{"name": "line", "engine": "local", "engine_spec": map[string]any{
			"command": []string{self}, "env": map[string]string{asPrinter: "200"}, "timeout": 120}}})
		if _, err := nc.Request("tools.exec.local", request, 5*time.Second); err != nil {
			b.Fatal(err)
		}
		var delays []time.Duration
		for len(delays) < 200 {
			msg, err := sub.NextMsg(10 * time.Second)
			if err != nil {
				b.Fatal(err)
			}
			now := time.Now().UnixNano()
			for line := range strings.Lines(string(msg.Data)) {
				at, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
				if err != nil {
					b.Fatal(err)
				}
				delays = append(delays, time.Duration(now-at))
			}
		}
		sub.Unsubscribe()
		all = append(all, percentile(delays, 0.5).Seconds()*1e3)
		p99 = append(p99, percentile(delays, 0.99).Seconds()*1e3)
	}
	b.ReportMetric(median(all), "p50-ms")
	b.ReportMetric(median(p99), "p99-ms")
}

// asPrinter makes this test binary a tool that prints the time, that many times.
const asPrinter = "EXECUTOR_TEST_PRINTER"

func printTimes(times string) {
	n, _ := strconv.Atoi(times)
	for range n {
		time.Sleep(2 * time.Millisecond)
		os.Stdout.WriteString(strconv.FormatInt(time.Now().UnixNano(), 10) + "\n")
	}
}

// BenchmarkServe: from the start of `serve` to its readiness, the first time (its streams are made) and the next; then
// what it costs while nothing is to be done.
func BenchmarkServe(b *testing.B) {
	var first, next, cpu, memory []float64
	for b.Loop() {
		s := startNATS(b)
		config := writeFile(b, "executor.yaml", serveConfig)
		data := b.TempDir()
		launch := func() (*instance, float64) {
			begin := time.Now()
			p := start(b, nil, "serve", "--server", s.URL(), "--http", "off", "--data", data, "--config", config)
			for !strings.Contains(p.log.String(), "executor is ready") {
				select {
				case <-p.ended:
					b.Fatalf("serve ended: %s", p.log)
				case <-time.After(200 * time.Microsecond):
				}
			}
			return p, time.Since(begin).Seconds() * 1e3
		}
		p, took := launch()
		first = append(first, took)
		p.stop()
		p, took = launch()
		next = append(next, took)
		time.Sleep(2 * time.Second) // settle
		const watched = 8 * time.Second
		before := cpuTime(b, p.cmd.Process.Pid)
		time.Sleep(watched)
		cpu = append(cpu, 100*(cpuTime(b, p.cmd.Process.Pid)-before).Seconds()/watched.Seconds())
		memory = append(memory, float64(rss(b, p.cmd.Process.Pid))/(1<<20))
		p.stop()
	}
	b.ReportMetric(median(first), "first-start-ms")
	b.ReportMetric(median(next), "start-ms")
	b.ReportMetric(median(cpu), "idle-%-of-a-core")
	b.ReportMetric(median(memory), "idle-RSS-MiB")
}

// cpuTime is what a process has used so far.
func cpuTime(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}
