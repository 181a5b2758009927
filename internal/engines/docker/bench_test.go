package docker

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/strslice"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// BenchmarkRun compares a run on the engine with bare calls of the API and with the docker command, in turn in the same rounds:
// only the ratios say something on a machine that others use as well. The tool does nothing.
func BenchmarkRun(b *testing.B) {
	toolIn(b)
	demand, ahead := newEngine(b), newEngine(b, func(c *Config) { c.Warm = Default().Warm })
	job := func() *engines.Job { return tool("out:done") }
	measure := func(each *[]time.Duration, one func()) {
		begun := time.Now()
		one()
		*each = append(*each, time.Since(begun))
	}
	var onDemand, untilGone, warm, bare, bareInit, command []time.Duration
	runOn := func(e *Engine) { run(b, e, job()) }
	runOn(demand)
	warmUp(b, ahead, job)
	for b.Loop() {
		measure(&untilGone, func() {
			measure(&onDemand, func() { runOn(demand) })
			demand.graves.wait()
		})
		measure(&bare, func() { bareRun(b, world.api, bareOptions(b, demand, false), io.Discard, "out:done") })
		measure(&bareInit, func() { bareRun(b, world.api, bareOptions(b, demand, true), io.Discard, "out:done") })
		measure(&command, func() {
			if text, err := exec.Command("docker", "run", "--rm", testImage, "/bin/testtool", "out:done").CombinedOutput(); err != nil {
				b.Fatalf("docker run: %s\n%s", err, text)
			}
		})
		awaitWarm(b, ahead)
		measure(&warm, func() { runOn(ahead) })
		awaitWarm(b, ahead) // what is made in its place must not slow down what is measured next
	}
	report := func(of []time.Duration, unit string) float64 {
		m := median(of)
		b.ReportMetric(m, unit)
		return m
	}
	d := report(onDemand, "ms/on-demand")
	gone := report(untilGone, "ms/on-demand-until-gone")
	x := report(bare, "ms/bare")
	y := report(bareInit, "ms/bare-with-init")
	c := report(command, "ms/docker-run")
	report(warm, "ms/made-ahead")
	b.ReportMetric(d/x, "times-bare")
	b.ReportMetric(gone/x, "times-bare-until-gone")
	b.ReportMetric(gone/y, "times-bare-with-init-until-gone")
	b.ReportMetric(d/c, "times-docker-run")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkOutput compares how fast output is read from a container with a bare attach, in the same rounds.
func BenchmarkOutput(b *testing.B) {
	toolIn(b)
	e := newEngine(b)
	const size = 200 << 20
	var ours, bare time.Duration
	for b.Loop() {
		var n, m counter
		begun := time.Now()
		j := tool("flood:200M")
		if exit, err := e.Run(b.Context(), j, &n, io.Discard); err != nil || exit.Code != 0 || n != size {
			b.Fatal(exit, err, n)
		}
		ours += time.Since(begun)
		begun = time.Now()
		bareRun(b, world.api, bareOptions(b, e, false), &m, "flood:200M")
		bare += time.Since(begun)
		if m != size {
			b.Fatalf("the bare attach got %d bytes", m)
		}
	}
	b.ReportMetric(float64(size>>20)*float64(b.N)/ours.Seconds(), "MiB/s")
	b.ReportMetric(float64(size>>20)*float64(b.N)/bare.Seconds(), "MiB/s-bare")
	b.ReportMetric(float64(bare)/float64(ours), "of-bare")
	b.ReportMetric(0, "ns/op")
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func median(all []time.Duration) float64 {
	all = slices.Clone(all)
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds()) / 1000
}

// warmUp runs a job as often as it takes to have a container made ahead for the next one.
func warmUp(tb testing.TB, e *Engine, job func() *engines.Job) {
	tb.Helper()
	for range 2 {
		run(tb, e, job())
	}
	awaitWarm(tb, e)
}

// awaitWarm waits until a container was made ahead, and the engine has removed all others.
func awaitWarm(tb testing.TB, e *Engine) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); e.warm.waits() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("no container was made ahead")
		}
	}
	e.graves.wait()
}

// options are a container of the API.
type options struct {
	config container.Config
	host   container.HostConfig
}

// bareOptions are what the engine asks for, with the tool as the first process, or with the daemon's own init.
func bareOptions(tb testing.TB, e *Engine, init bool) options {
	tb.Helper()
	info, err := e.daemon.look(tb.Context(), true)
	if err != nil {
		tb.Fatal(err)
	}
	j := tool()
	img, _, err := e.images.get(tb.Context(), testImage, "", nil)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := e.plan(j, j.Spec.(*contracts.DockerSpec), img, info)
	if err != nil {
		tb.Fatal(err)
	}
	o := options{p.config, p.host}
	o.config.Entrypoint, o.config.OpenStdin, o.config.StdinOnce, o.config.AttachStdin = nil, false, false, false
	o.host.AutoRemove, o.host.Init = false, &init
	return o
}

// bareRun is create, attach, wait, start, the end and remove, as anybody would write it.
func bareRun(tb testing.TB, api *client.Client, o options, stdout io.Writer, script ...string) {
	tb.Helper()
	ctx := context.Background()
	o.config.Cmd = strslice.StrSlice(append([]string{"/bin/testtool"}, script...))
	made, err := api.ContainerCreate(ctx, &o.config, &o.host, nil, nil, "")
	if err != nil {
		tb.Fatal(err)
	}
	streams, err := api.ContainerAttach(ctx, made.ID, container.AttachOptions{Stream: true, Stdout: true, Stderr: true})
	if err != nil {
		tb.Fatal(err)
	}
	defer streams.Close()
	ended, failed := api.ContainerWait(ctx, made.ID, container.WaitConditionNextExit)
	if err := api.ContainerStart(ctx, made.ID, container.StartOptions{}); err != nil {
		tb.Fatal(err)
	}
	if _, err := stdcopy.StdCopy(stdout, io.Discard, bufio.NewReader(streams.Reader)); err != nil {
		tb.Fatal(err)
	}
	select {
	case r := <-ended:
		if r.StatusCode != 0 {
			tb.Fatalf("the bare container exited with %d", r.StatusCode)
		}
	case err := <-failed:
		tb.Fatal(err)
	}
	if err := api.ContainerRemove(ctx, made.ID, container.RemoveOptions{}); err != nil {
		tb.Fatal(err)
	}
}
