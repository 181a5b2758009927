//go:build linux

package local

import (
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// BenchmarkRun compares runs of /bin/true on the engine with bare fork and exec of the same, with two pipes read to their
// end, in the same round: only the ratio says something on a machine that others use as well.
func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name    string
		workers int
	}{{"1", 1}, {"16", 16}} {
		b.Run(c.name, func(b *testing.B) {
			e := newEngine(b)
			const each = 10 // runs of one worker in a round
			round := func(one func()) time.Duration {
				begun := time.Now()
				var group sync.WaitGroup
				for range c.workers {
					group.Go(func() {
						for range each {
							one()
						}
					})
				}
				group.Wait()
				return time.Since(begun)
			}
			onEngine := func() {
				if exit, err := e.Run(b.Context(), job("/bin/true"), io.Discard, io.Discard); err != nil || exit.Code != 0 {
					b.Error(exit, err)
				}
			}
			round(onEngine) // the helpers are there
			var ours, bare time.Duration
			runs := 0
			for b.Loop() {
				ours += round(onEngine)
				bare += round(func() { forkAndExec(b) })
				runs += c.workers * each
			}
			b.ReportMetric(float64(ours.Microseconds())/float64(runs), "µs/run")
			b.ReportMetric(float64(bare.Microseconds())/float64(runs), "µs/bare")
			b.ReportMetric(float64(ours)/float64(bare), "times-bare")
			b.ReportMetric(float64(runs)/ours.Seconds(), "runs/s")
			b.ReportMetric(0, "ns/op")
		})
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
