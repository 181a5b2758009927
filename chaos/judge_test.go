//go:build linux

package chaos_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// The verdict sees what it is there for: each case spoils the evidence of a run that was as promised.
func TestVerdictSeesBrokenPromises(t *testing.T) {
	zero := 0
	for name, test := range map[string]struct {
		kind  string // of the request; "": print
		spoil func(id string, e *evidence)
		want  string // part of what is told; "": nothing is wrong
	}{
		"as promised":            {spoil: func(string, *evidence) {}},
		"out of order":           {spoil: func(id string, e *evidence) { c := e.chunks[id]; c[0], c[1] = c[1], c[0] }},
		"an attempt before":      {spoil: takeOver},
		"no result":              {spoil: func(id string, e *evidence) { delete(e.results, id) }, want: "no result"},
		"two results":            {spoil: func(id string, e *evidence) { e.results[id] = append(e.results[id], e.results[id]...) }, want: "2 results"},
		"another status":         {spoil: func(id string, e *evidence) { e.results[id][0].Status = "failed" }, want: "ended as failed"},
		"lost too early":         {spoil: func(id string, e *evidence) { e.results[id][0].Status = "lost" }, want: "ended as lost"},
		"never started":          {spoil: func(id string, e *evidence) { delete(e.starts, id) }, want: "was never started"},
		"started unseen":         {spoil: func(id string, e *evidence) { e.starts[id] = 2 }, want: "started 2 times, claimed 1 times"},
		"claimed twice":          {spoil: func(id string, e *evidence) { e.status[id] = append(e.status[id], e.status[id][0]) }, want: "claim 2 has the attempt 1"},
		"another's result":       {spoil: func(id string, e *evidence) { e.results[id][0].Executor = "e9" }, want: "which it has not claimed"},
		"not finished":           {spoil: func(id string, e *evidence) { e.status[id] = e.status[id][:1] }, want: "no event says that it is finished"},
		"a dead letter":          {spoil: func(id string, e *evidence) { e.dead[id] = 1 }, want: "1 dead letters"},
		"a gap":                  {spoil: func(id string, e *evidence) { e.chunks[id] = e.chunks[id][1:] }, want: "in place 1 of"},
		"no end":                 {spoil: func(id string, e *evidence) { e.chunks[id] = e.chunks[id][:2] }, want: "bytes are stored"},
		"a double":               {spoil: func(id string, e *evidence) { e.chunks[id] = append(e.chunks[id], e.chunks[id][0]) }, want: "in place 2 of"},
		"another's chunk":        {spoil: func(id string, e *evidence) { e.chunks[id][2].executor = "e9" }, want: "is by e9"},
		"at another place":       {spoil: func(id string, e *evidence) { e.chunks[id][2].offset++ }, want: "begins at byte"},
		"other bytes":            {spoil: func(id string, e *evidence) { e.chunks[id][0].data[0] ^= 1 }, want: "that it printed"},
		"other bytes in between": {spoil: func(id string, e *evidence) { e.results[id][0].Stdout = "x" }, want: "in its result"},
		"at most once":           {kind: "once", spoil: takeOver, want: "may run once, and was started 2 times"},
	} {
		t.Run(name, func(t *testing.T) {
			kind := test.kind
			if kind == "" {
				kind = "print"
			}
			r := newRequest(kind, "id-1", rand.New(rand.NewPCG(1, 1)))
			stdout, stderr := r.printed()
			now := time.Now()
			e := &evidence{
				results: map[string][]result{r.id: {{Status: "succeeded", ExitCode: &zero, Attempt: 1, Executor: "e1", Stdout: string(stdout), Stderr: string(stderr),
					StdoutBytes: int64(len(stdout)), StderrBytes: int64(len(stderr))}}},
				status: map[string][]event{r.id: {{Type: "started", Attempt: 1, Executor: "e1", Time: now}, {Type: "finished", Attempt: 1, Executor: "e1", Time: now, Status: "succeeded"}}},
				chunks: map[string][]chunk{}, dead: map[string]int{}, starts: map[string]int{r.id: 1},
			}
			for seq, half := 1, len(stdout)/2; seq <= 3; seq++ {
				c := []chunk{{stream: "stdout", data: stdout[:half]}, {stream: "stderr", data: stderr}, {stream: "stdout", offset: int64(half), data: stdout[half:]}}[seq-1]
				c.attempt, c.executor, c.seq = 1, "e1", seq
				e.chunks[r.id] = append(e.chunks[r.id], c)
			}
			e.chunks[r.id] = append(e.chunks[r.id], chunk{attempt: 1, executor: "e1", stream: "stdout", seq: 4, offset: int64(len(stdout))})
			test.spoil(r.id, e)
			v := judge([]*request{r}, e, nil)
			told := strings.Join(v.problems, "\n")
			if test.want == "" && told != "" || !strings.Contains(told, test.want) {
				t.Errorf("told %q, expected %q", told, test.want)
			}
		})
	}
}

// takeOver makes the run one that was begun by another executor before, which died.
func takeOver(id string, e *evidence) {
	first := e.status[id][0]
	first.Executor, first.Time = "e0", first.Time.Add(-time.Second)
	for i := range e.status[id] {
		e.status[id][i].Attempt = 2
	}
	e.status[id] = append([]event{first}, e.status[id]...)
	for i := range e.chunks[id] {
		e.chunks[id][i].attempt = 2
	}
	e.chunks[id] = append([]chunk{{attempt: 1, executor: "e0", stream: "stdout", seq: 1, data: []byte("out")}}, e.chunks[id]...)
	e.results[id][0].Attempt = 2
	e.starts[id] = 2
}
