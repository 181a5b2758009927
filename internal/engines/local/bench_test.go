//go:build linux

package local

import (
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkRun compares runs of /bin/true on the engine with bare fork and exec of the same, with two pipes read to their
// end, in the same round: only the ratio says something on a machine that others use as well.
func BenchmarkRun(b *testing.B) {
	for _, tier := range Tiers {
		for _, workers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", tier, workers), func(b *testing.B) { benchmarkRun(b, in(b, tier), workers) })
		}
	}
}

func benchmarkRun(b *testing.B, tier func(*Config), workers int) {
	e := newEngine(b, tier)
	const each = 10 // runs of one worker in a round
	var mu sync.Mutex
	round := func(one func()) (all []time.Duration, took time.Duration) {
		begun := time.Now()
		var group sync.WaitGroup
		for range workers {
			group.Go(func() {
				for range each {
					start := time.Now()
					one()
					mu.Lock()
					all = append(all, time.Since(start))
					mu.Unlock()
				}
			})
		}
		group.Wait()
		return all, time.Since(begun)
	}
	onEngine := func() {
		if exit, err := e.Run(b.Context(), job("/bin/true"), io.Discard, io.Discard); err != nil || exit.Code != 0 {
			b.Error(exit, err)
		}
	}
	round(onEngine) // the helpers are there
	var ours, bare time.Duration
	var eachOfOurs, eachBare []time.Duration
	runs := 0
	for b.Loop() {
		all, took := round(onEngine)
		ours += took
		eachOfOurs = append(eachOfOurs, all...)
		all, took = round(func() { forkAndExec(b) })
		bare += took
		eachBare = append(eachBare, all...)
		runs += workers * each
	}
	median := func(all []time.Duration) float64 {
		slices.Sort(all)
		return float64(all[len(all)/2].Microseconds())
	}
	b.ReportMetric(median(eachOfOurs), "µs/run-p50")
	b.ReportMetric(median(eachBare), "µs/bare-p50")
	b.ReportMetric(float64(ours)/float64(bare), "times-bare")
	b.ReportMetric(float64(runs)/ours.Seconds(), "runs/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkReady compares runs that come one at a time, with a pause between them in which the next sandbox is made, with bare
// fork and exec after the same pause; and with runs for which none is ready.
func BenchmarkReady(b *testing.B) {
	e := newEngine(b, func(c *Config) { c.Sandboxing, c.Sandbox = true, DefaultSandbox() })
	odd := newEngine(b, func(c *Config) { c.Sandboxing, c.Sandbox = true, DefaultSandbox() })
	const pause = 5 * time.Millisecond
	var ready, onDemand, bare []time.Duration
	timed := func(all *[]time.Duration, one func()) {
		time.Sleep(pause)
		begun := time.Now()
		one()
		*all = append(*all, time.Since(begun))
	}
	on := func(e *Engine) {
		if exit, err := e.Run(b.Context(), job("/bin/true"), io.Discard, io.Discard); err != nil || exit.Code != 0 {
			b.Error(exit, err)
		}
	}
	for b.Loop() {
		for range 10 {
			timed(&ready, func() { on(e) })
			odd.shims.forget()
			timed(&onDemand, func() { on(odd) })
			timed(&bare, func() { forkAndExec(b) })
		}
	}
	for name, all := range map[string][]time.Duration{"ready": ready, "on-demand": onDemand, "bare": bare} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs/"+name+"-p50")
		b.ReportMetric(float64(all[len(all)*9/10].Microseconds()), "µs/"+name+"-p90")
	}
	b.ReportMetric(0, "ns/op")
}

// forget has all sandboxes that wait ended.
func (s *supervisor) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.idle {
		one.socket.Write(frameOf(frameAhead, startRequest{Box: []string{"none"}}.encode()))
		one.plan = nil
	}
}

func forkAndExec(b *testing.B) {
	c := exec.Command("/bin/true")
	c.Env = []string{}
	stdout, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	stderr, err := c.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	io.Copy(io.Discard, stdout)
	io.Copy(io.Discard, stderr)
	if err := c.Wait(); err != nil {
		b.Fatal(err)
	}
}
