//go:build linux

package dagger

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	sdk "dagger.io/dagger"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines/dagger/daggertest"
	"github.com/praxis-sdk/executor/internal/engines/enginetest"
)

// shipped is the program that executors are, which stands beside tools in production.
const shipped = "github.com/praxis-sdk/executor/cmd/executor"

// BenchmarkBesideTheSDK runs a tool that does nothing, by this engine and by the SDK alone, in turn: one client for all runs, and
// nothing of it in the cache. Each iteration is 40 of each. On the test double it shows what we add; with EXECUTOR_TEST_DAGGER=1 also
// on an engine, as a share.
func BenchmarkBesideTheSDK(b *testing.B) {
	tool, program := enginetest.Build(b), enginetest.Program(b, shipped)
	b.Run("double", func(b *testing.B) {
		d := daggertest.Start(b, daggertest.Options{Beside: program, Images: map[string]daggertest.Image{"image": daggertest.MakeImage(b, false, tool)}})
		d.Use(b)
		beside(b, program, "image", "testtool")
	})
	b.Run("engine", func(b *testing.B) {
		if os.Getenv("EXECUTOR_TEST_DAGGER") != "1" {
			b.Skip("SKIPPED: needs an engine of Dagger; see EXECUTOR_TEST_DAGGER in docs/dagger-engine.md")
		}
		beside(b, program, realImage(), "true")
	})
}

func beside(b *testing.B, program, image, tool string) {
	e := open1(b, Config{Program: program})
	if _, err := e.Examine(b.Context()); err != nil {
		b.Fatal(err)
	}
	client, err := sdk.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	base := client.Container().From(image)
	var n int
	bare := func() {
		n++
		if _, err := base.WithLabel("n", strconv.Itoa(n)+newTrace().String()).WithExec([]string{tool}).Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	ours := func() {
		spec := specWith(contracts.CommonSpec{Command: contracts.Command{Argv: []string{tool}}})
		spec.Image = image
		if exit, err := e.Run(b.Context(), job(spec), io.Discard, io.Discard); err != nil || exit.Code != 0 {
			b.Fatal(exit, err)
		}
	}
	bare()
	ours()
	var times [2][]time.Duration
	for b.Loop() {
		for range 40 {
			for i, one := range []func(){bare, ours} {
				begun := time.Now()
				one()
				times[i] = append(times[i], time.Since(begun))
			}
		}
	}
	var half [2]time.Duration
	for i := range times {
		slices.Sort(times[i])
		half[i] = times[i][len(times[i])/2]
	}
	added := half[1] - half[0]
	// On a machine that others use as well, the faster quarter says more about us.
	quarter := times[1][len(times[1])/4] - times[0][len(times[0])/4]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(half[0])/float64(time.Millisecond), "ms-SDK")
	b.ReportMetric(float64(half[1])/float64(time.Millisecond), "ms-ours")
	b.ReportMetric(float64(added)/float64(time.Millisecond), "ms-added")
	b.ReportMetric(100*float64(added)/float64(half[0]), "%-added")
	b.ReportMetric(float64(quarter)/float64(time.Millisecond), "ms-added-p25")
}

// BenchmarkOutputDelay tells the time from a print to its arrival, on an engine where there is one: the tool prints when it sees
// a file in a directory that the test can write, which is so on the test double only.
func BenchmarkOutputDelay(b *testing.B) {
	program := enginetest.Program(b, shipped)
	d := daggertest.Start(b, daggertest.Options{Beside: program, Images: map[string]daggertest.Image{"image": daggertest.MakeImage(b, false, enginetest.Build(b))}})
	d.Use(b)
	e := open1(b, Config{Program: program})
	var all []time.Duration
	for b.Loop() {
		all = append(all, delays(b, d, e, 20)...)
	}
	slices.Sort(all)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(all[len(all)/2])/float64(time.Millisecond), "ms-p50")
	b.ReportMetric(float64(all[len(all)-1])/float64(time.Millisecond), "ms-max")
}

// delays runs a tool that prints whenever the test says so, and measures how long each print is on its way.
func delays(tb testing.TB, d *daggertest.Engine, e *Engine, rounds int) (took []time.Duration) {
	tb.Helper()
	name := "signal-" + newTrace().String()[:12]
	script := []string{"out:up"}
	for i := range rounds {
		script = append(script, "await:/signal/"+strconv.Itoa(i), "out:x")
	}
	came, ended := make(chan time.Time, rounds+1), make(chan error, 1)
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	go func() {
		_, err := e.Run(ctx, job(specWith(contracts.CommonSpec{CacheMounts: contracts.CacheMounts{{Name: name, Path: "/signal"}}}), script...), writer(func(p []byte) (int, error) {
			came <- time.Now()
			return len(p), nil
		}), io.Discard)
		ended <- err
	}()
	var begun time.Time
	for i := range rounds + 1 {
		select {
		case at := <-came:
			if i > 0 {
				took = append(took, at.Sub(begun))
			}
		case err := <-ended:
			tb.Fatalf("the run ended: %v", err)
		}
		if i < rounds {
			begun = time.Now()
			if err := os.WriteFile(filepath.Join(d.Cache("executor-"+name), strconv.Itoa(i)), nil, 0o600); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := <-ended; err != nil {
		tb.Fatal(err)
	}
	return took
}
