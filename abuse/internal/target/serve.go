//go:build linux

package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/internal/engines"
)

// Serve carries out the order that it reads from stdin. When stdin ends it closes the engine.
func Serve(stdin io.Reader, stdout io.Writer) error {
	lines := json.NewDecoder(stdin)
	var order Order
	if err := lines.Decode(&order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	i := slices.IndexFunc(Tiers, func(t Tier) bool { return t.Name == order.Tier })
	if i < 0 {
		return fmt.Errorf("there is no tier %q", order.Tier)
	}
	s := &server{tier: Tiers[i], order: order, events: json.NewEncoder(stdout)}
	engine, err := Tiers[i].New(order.DataDir)
	if err == nil {
		s.engine = engine
		var report Report
		if report, err = s.carryOut(); err == nil {
			s.tell(Event{Report: &report})
		}
	}
	if err != nil {
		s.tell(Event{Failed: err.Error()})
	}
	_, _ = io.Copy(io.Discard, stdin) // whoever gave the order looks at what is there now
	if closer, is := engine.(io.Closer); is {
		return closer.Close()
	}
	return nil
}

type server struct {
	tier   Tier
	order  Order
	engine engines.Engine

	mu     sync.Mutex
	events *json.Encoder
}

func (s *server) tell(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.events.Encode(e); err != nil {
		fmt.Fprintln(os.Stderr, "target:", err)
	}
}

// carryOut makes the attempt while another run is under way.
func (s *server) carryOut() (report Report, err error) {
	if s.order.Victim != "" {
		end, err := s.startVictim()
		if err != nil {
			return report, err
		}
		defer func() { report.VictimDied = end() }()
	}
	output := &record{tell: s.tell}
	for run := 1; run <= max(1, s.order.Runs); run++ {
		if report, err = s.attempt(run, output); err != nil || report.Refused != "" {
			break
		}
	}
	report.Output = output.String()
	return report, err
}

// cacheName is the named cache of attempts.
const cacheName = "abuse"

// attempt makes one run of the attempt.
func (s *server) attempt(run int, output *record) (report Report, err error) {
	job := s.jobOf(s.order.Command)
	spec := job.Spec.Common()
	spec.MemoryLimit, spec.PidsLimit = contracts.Size(s.order.Memory), s.order.Pids
	spec.Network = s.order.Network
	if s.order.Cache {
		spec.CacheMounts = contracts.CacheMounts{{Name: cacheName, Path: "~/cache"}}
		if s.order.Inside != "" && run > 1 {
			spec.CacheMounts = append(spec.CacheMounts, contracts.CacheMount{Name: cacheName + "-inside", Path: "~/cache/" + s.order.Inside})
		}
	}
	job.Args = map[string]any{"run": run}
	for name, value := range s.order.Args {
		job.Args[name] = value
		if s.order.ArgsRaw {
			job.Contract.ArgsEnv = contracts.ArgsRaw
			job.Contract.Parameters.List = append(job.Contract.Parameters.List, contracts.Parameter{Name: name, Type: "string"})
		}
	}
	if job.Stdin, err = os.ReadFile(s.order.Stdin); err != nil {
		return report, err
	}
	started := false
	job.Starting = func() error { started = true; return nil }
	if err := s.engine.Check(job.Contract); err != nil {
		return Report{Refused: err.Error()}, nil
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.order.Timeout, errors.New("it took too long"))
	defer cancel()
	// Each stream has its own part: a flood in one must not keep out what the other has.
	exit, failed := s.engine.Run(ctx, job, output.stream(), output.stream())
	report.Exit = exit
	switch {
	case failed != nil && !started:
		report.Refused = failed.Error()
	case failed != nil:
		report.Error = failed.Error()
	}
	return report, nil
}

// startVictim begins a run that has a secret. The function that it returns ends it, and reports whether it had ended before.
func (s *server) startVictim() (end func() (died bool), err error) {
	job := s.jobOf([]string{"/bin/sh", "-c", `echo "$ARG_SECRET" >secret; echo up; exec sleep 1000`})
	job.Args = map[string]any{"secret": s.order.Victim, "suite": s.order.Args["mark"]}
	up := make(chan struct{})
	output := &record{tell: func(e Event) {
		if strings.Contains(e.Printed, "up") {
			close(up)
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	var failed error
	go func() {
		defer close(gone)
		_, failed = s.engine.Run(ctx, job, output.stream(), output.stream())
	}()
	select {
	case <-up:
	case <-gone:
		cancel()
		return nil, fmt.Errorf("the other run has ended: %w", failed)
	}
	return func() (died bool) {
		select {
		case <-gone:
			died = true
		default:
		}
		cancel()
		<-gone
		return died
	}, nil
}

func (s *server) jobOf(command []string) *engines.Job {
	common := contracts.CommonSpec{Command: contracts.Command{Argv: slices.Clone(command)}}
	var spec contracts.Spec = &contracts.LocalSpec{CommonSpec: common}
	if s.tier.Spec != nil {
		spec = s.tier.Spec(common)
	}
	c := &contracts.Contract{Name: "attempt", Engine: spec.Engine(), Spec: spec}
	return &engines.Job{ID: "attempt", Attempt: 1, Contract: c, Spec: spec, Starting: func() error { return nil }, Progress: func(string, string, float64) {}}
}

// record keeps the first of what each stream of a run has, in the order in which it came, and tells it.
type record struct {
	mu   sync.Mutex
	text strings.Builder
	tell func(Event)
}

// stream is one of the streams. What is kept of it does not depend on the others.
func (r *record) stream() io.Writer { return &stream{record: r, left: 32 << 10} }

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

type stream struct {
	record *record
	left   int
}

// Write takes output.
func (s *stream) Write(p []byte) (int, error) {
	r := s.record
	r.mu.Lock()
	defer r.mu.Unlock()
	if text := string(p[:min(len(p), s.left)]); text != "" {
		s.left -= len(text)
		r.text.WriteString(text)
		r.tell(Event{Printed: text})
	}
	return len(p), nil
}
