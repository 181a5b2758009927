package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/bus"
)

// rate publishes n requests and returns how many of their results came in a second, from the first publish to the last.
func rate(b *testing.B, nc *nats.Conn, request []byte, n int) float64 {
	b.Helper()
	results := make(chan *nats.Msg, n)
	sub, err := nc.ChanSubscribe("tools.reply.*.result", results)
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Unsubscribe()
	nc.Flush()
	begin := time.Now()
	publishAll(b, nc, request, n)
	for range n {
		select {
		case <-results:
		case <-time.After(20 * time.Second):
			b.Fatal("a result is missing")
		}
	}
	return float64(n) / time.Since(begin).Seconds()
}

func publishAll(b *testing.B, nc *nats.Conn, request []byte, n int) {
	b.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	for range n {
		if _, err := js.PublishAsync("tools.exec.local", request, jetstream.WithStallWait(20*time.Second)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

// BenchmarkLimit: runs a second of a tool with a limit over the fleet that is not reached, against the same without, one after
// the other in each round.
func BenchmarkLimit(b *testing.B) {
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	var with, without, ratio []float64
	for b.Loop() {
		x := rate(b, nc, []byte(`{"contract":`+trueTool+`}`), 3000)
		y := rate(b, nc, []byte(`{"contract":{"name":"true","engine":"local","engine_spec":{"command":["/bin/true"]},"concurrency":16}}`), 3000)
		without, with, ratio = append(without, x), append(with, y), append(ratio, y/x)
	}
	b.ReportMetric(median(without), "without-runs/s")
	b.ReportMetric(median(with), "with-runs/s")
	b.ReportMetric(median(ratio), "of-without")
}

// BenchmarkFallback: a request for an engine that nobody serves, whose contract can run on another one, against the same for
// that one: what passing it on costs. And the answer where it cannot run anywhere.
func BenchmarkFallback(b *testing.B) {
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	ask := func(request, status string) time.Duration {
		begin := time.Now()
		reply, err := nc.Request("tools.run", []byte(request), 20*time.Second)
		if err != nil || !bytes.Contains(reply.Data, []byte(`"status":"`+status+`"`)) {
			b.Fatal(err, string(reply.Data))
		}
		return time.Since(begin)
	}
	moved := `{"contract":{"name":"true","engine":"docker","engine_spec":{"image":"x","command":["/bin/true"]},"fallback":[{"engine":"local","engine_spec":{"command":["/bin/true"]}}]}}`
	nowhere := `{"contract":{"name":"true","engine":"docker","engine_spec":{"image":"x","command":["/bin/true"]}}}`
	ask(moved, "succeeded") // makes the consumers of the queue
	var hop, hop99, answer, answer99 []float64
	for b.Loop() {
		var direct, passed, refused []time.Duration
		for range 200 {
			direct = append(direct, ask(`{"contract":`+trueTool+`}`, "succeeded"))
			passed = append(passed, ask(moved, "succeeded"))
			refused = append(refused, ask(nowhere, "unavailable"))
		}
		base := percentile(direct, 0.5)
		hop, hop99 = append(hop, (percentile(passed, 0.5)-base).Seconds()*1e3), append(hop99, (percentile(passed, 0.99)-base).Seconds()*1e3)
		answer, answer99 = append(answer, percentile(refused, 0.5).Seconds()*1e3), append(answer99, percentile(refused, 0.99).Seconds()*1e3)
	}
	b.ReportMetric(median(hop), "hop-p50-ms")
	b.ReportMetric(median(hop99), "hop-p99-ms")
	b.ReportMetric(median(answer), "unserved-p50-ms")
	b.ReportMetric(median(answer99), "unserved-p99-ms")
}

// BenchmarkCancel: from the publish of a cancel to the stored result, which comes after the whole tree has gone.
func BenchmarkCancel(b *testing.B) {
	d := startDev(b, benchConfig)
	nc := connectTo(b, d.url)
	var p50, p99 []float64
	for i := 0; b.Loop(); i++ {
		var all []time.Duration
		for n := range 100 {
			id := fmt.Sprintf("cancel-%d-%d-%d", os.Getpid(), i, n)
			output, _ := nc.SubscribeSync("tools.reply." + id + ".output")
			result, _ := nc.SubscribeSync("tools.reply." + id + ".result")
			nc.Flush()
			request, _ := json.Marshal(map[string]any{"id": id, "contract": map[string]any{"name": "sleeps", "engine": "local", "engine_spec": map[string]any{
				"command": []string{"sh", "-c", "setsid sleep 1000 & sleep 1000 & echo ready; wait"}}}})
			if _, err := nc.Request("tools.exec.local", request, 5*time.Second); err != nil {
				b.Fatal(err)
			}
			if _, err := output.NextMsg(10 * time.Second); err != nil {
				b.Fatal(err)
			}
			begin := time.Now()
			nc.Publish("tools.cancel."+id, nil)
			if _, err := result.NextMsg(10 * time.Second); err != nil {
				b.Fatal(err)
			}
			all = append(all, time.Since(begin))
			output.Unsubscribe()
			result.Unsubscribe()
		}
		p50, p99 = append(p50, percentile(all, 0.5).Seconds()*1e3), append(p99, percentile(all, 0.99).Seconds()*1e3)
	}
	b.ReportMetric(median(p50), "p50-ms")
	b.ReportMetric(median(p99), "p99-ms")
}

// BenchmarkBacklog: the first 5,000 results of `serve` with 100,000 requests queued, against 5,000 queued, and its memory.
func BenchmarkBacklog(b *testing.B) {
	request := []byte(`{"contract":` + trueTool + `}`)
	first := func(queued int) (rate, grown float64) {
		s, err := bus.StartServer(bus.ServerConfig{Port: -1, Dir: b.TempDir(), Log: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Stop()
		nc := connectTo(b, s.URL())
		defer nc.Close()
		startServe(b, s.URL()).stop() // makes the streams
		publishAll(b, nc, request, queued)
		const n = 5000
		results := make(chan *nats.Msg, 100_000)
		if _, err := nc.ChanSubscribe("tools.reply.*.result", results); err != nil {
			b.Fatal(err)
		}
		nc.Flush()
		executor := startServe(b, s.URL())
		begin, before := time.Now(), rss(b, executor.cmd.Process.Pid)
		most := before
		for i := range n {
			select {
			case <-results:
			case <-time.After(20 * time.Second):
				b.Fatal("a result is missing")
			}
			if i%100 == 0 {
				most = max(most, rss(b, executor.cmd.Process.Pid))
			}
		}
		rate = n / time.Since(begin).Seconds()
		executor.kill()
		return rate, float64(most) / (1 << 20)
	}
	var few, many, ratio, memory, memoryFew []float64
	for b.Loop() {
		x, m := first(5000)
		y, most := first(100_000)
		few, many, ratio, memory, memoryFew = append(few, x), append(many, y), append(ratio, y/x), append(memory, most), append(memoryFew, m)
	}
	b.ReportMetric(median(few), "queued-5k-runs/s")
	b.ReportMetric(median(many), "queued-100k-runs/s")
	b.ReportMetric(median(ratio), "of-5k")
	b.ReportMetric(median(memoryFew), "queued-5k-RSS-MiB")
	b.ReportMetric(median(memory), "queued-100k-RSS-MiB")
}
