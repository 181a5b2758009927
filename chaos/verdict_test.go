//go:build linux

package chaos_test

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"
)

// verdict is what the evidence says about the promises.
type verdict struct {
	requests int
	results  int
	lost     int // stored requests without a result
	doubled  int // with more than one
	unseen   int // started more often than claimed
	twice    int // at most once, and started twice
	again    int // claims after the first: not wrong by itself
	shuffled int // runs whose chunks are stored out of their order: allowed on clusters
	problems []string
	takeover []time.Duration // from the kill of an executor until its run is started elsewhere
	wait     time.Duration   // the longest from the acknowledgement of a request to its first start
	slow     []string        // those that took longer than where there are free slots and a server
	waits    bool            // something is missing that may still come
}

func (v *verdict) wrong(r *request, format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf("%s (%s): %s", r.id, r.tool, fmt.Sprintf(format, args...)))
}

// judge compares what is there with what was promised about each request.
func judge(requests []*request, e *evidence, deaths []death) *verdict {
	v := &verdict{requests: len(requests)}
	for _, r := range requests {
		v.judge(r, e, deaths)
	}
	known := map[string]bool{}
	for _, r := range requests {
		known[r.id] = true
	}
	for id := range e.results {
		if !known[id] {
			v.problems = append(v.problems, "a result of "+id+", for which nobody asked")
		}
	}
	return v
}

func (v *verdict) judge(r *request, e *evidence, deaths []death) {
	claims := v.claims(r, e.status[r.id])
	v.again += max(0, len(claims)-1)
	if starts := e.starts[r.id]; starts > len(claims) {
		v.unseen++
		v.wrong(r, "started %d times, claimed %d times", starts, len(claims))
	}
	if r.atMostOnce() && e.starts[r.id] > 1 {
		v.twice++
		v.wrong(r, "may run once, and was started %d times", e.starts[r.id])
	}
	if len(claims) > 0 {
		v.wait = max(v.wait, claims[0].Time.Sub(r.stored))
	}
	v.measure(r, claims, e.status[r.id], deaths)
	results := e.results[r.id]
	v.results += len(results)
	switch {
	case len(results) == 0:
		v.lost++
		v.waits = true
		v.wrong(r, "no result; its status: %s", history(e.status[r.id]))
		return
	case len(results) > 1:
		v.doubled++
		v.wrong(r, "%d results", len(results))
	}
	v.judgeResult(r, results[0], claims, e)
	v.judgeOutput(r, results[0], e.chunks[r.id])
}

// claims returns the started events of a run, which must be numbered 1, 2, 3 …
func (v *verdict) claims(r *request, status []event) []event {
	var claims []event
	for _, ev := range status {
		if ev.Type == "started" {
			claims = append(claims, ev)
		}
	}
	for i, c := range claims {
		if c.Attempt != i+1 {
			v.wrong(r, "claim %d has the attempt %d: %s", i+1, c.Attempt, history(status))
			break
		}
	}
	return claims
}

// measure notes how long after the kill of its executor a run was started by another one.
func (v *verdict) measure(r *request, claims, status []event, deaths []death) {
	for i := range claims[:max(0, len(claims)-1)] {
		this, next := claims[i], claims[i+1]
		for _, d := range deaths {
			if d.executor == this.Executor && d.at.After(this.Time) && d.at.Before(next.Time) {
				took := next.Time.Sub(d.at)
				v.takeover = append(v.takeover, took)
				if took > takeoverMost {
					v.slow = append(v.slow, fmt.Sprintf("%s: killed %s, started again %s later: %s", r.id, d.at.Format(clock), took, history(status)))
				}
				break
			}
		}
	}
}

func (v *verdict) judgeResult(r *request, got result, claims []event, e *evidence) {
	given := got.Status == "lost" && len(claims) >= maxAttempts // it was really tried that often
	switch {
	case !slices.Contains(r.ends, got.Status) && !given:
		v.wrong(r, "ended as %s %+v after %d claims, expected %v: %s", got.Status, got.Error, len(claims), r.ends, history(e.status[r.id]))
	case got.Status == "succeeded" && (got.ExitCode == nil || *got.ExitCode != 0), got.Status == "failed" && r.tool == "fail" && (got.ExitCode == nil || *got.ExitCode != 3):
		v.wrong(r, "%s with the exit code %v", got.Status, got.ExitCode)
	case got.Status == "succeeded" && e.starts[r.id] == 0:
		v.wrong(r, "succeeded, but was never started")
	}
	if got.Attempt > len(claims) || got.Attempt > 0 && claims[got.Attempt-1].Executor != got.Executor && got.ExitCode != nil {
		v.wrong(r, "a result of %s for attempt %d, which it has not claimed: %s", got.Executor, got.Attempt, history(e.status[r.id]))
	}
	// Who takes an executor for dead, or cannot go on with what he took over, keeps the letter first. If the other one comes
	// back and stores its result before he does, there are both.
	mayBeBoth := len(claims) > 1 || len(claims) > 0 && r.atMostOnce()
	letter, given := e.dead[r.id] > 0, got.Status == "lost" || got.Status == "unknown"
	if given && !letter || letter && !given && !mayBeBoth {
		v.wrong(r, "%s, with %d dead letters", got.Status, e.dead[r.id])
	}
	finished := 0
	for _, ev := range e.status[r.id] {
		if ev.Type == "finished" && ev.Status == got.Status {
			finished++
		}
	}
	if finished == 0 {
		v.waits = true
		v.wrong(r, "no event says that it is finished: %s", history(e.status[r.id]))
	}
}

// judgeOutput checks the chunks of the attempt that has the result: numbered without gap and double, each where it belongs
// in its stream, and together just what the tool printed.
func (v *verdict) judgeOutput(r *request, got result, all []chunk) {
	var chunks []chunk
	for _, c := range all {
		if c.attempt == got.Attempt {
			chunks = append(chunks, c)
		}
	}
	if got.Status == "lost" || got.Status == "unknown" {
		v.judgeRest(r, chunks)
		return
	}
	bySeq := func(a, b chunk) int { return cmp.Compare(a.seq, b.seq) }
	if !slices.IsSortedFunc(chunks, bySeq) {
		v.shuffled++
		slices.SortStableFunc(chunks, bySeq)
	}
	printed := map[string][]byte{}
	for i, c := range chunks {
		switch {
		case c.seq != i+1:
			v.wrong(r, "chunk %d of attempt %d in place %d of %d", c.seq, c.attempt, i+1, len(chunks))
			return
		case c.executor != got.Executor:
			v.wrong(r, "chunk %d of attempt %d is by %s, the result by %s", c.seq, c.attempt, c.executor, got.Executor)
			return
		case c.offset != int64(len(printed[c.stream])):
			v.wrong(r, "chunk %d begins at byte %d of %s, after %d bytes", c.seq, c.offset, c.stream, len(printed[c.stream]))
			return
		}
		printed[c.stream] = append(printed[c.stream], c.data...)
	}
	stdout, stderr := printed["stdout"], printed["stderr"]
	if int64(len(stdout)) != got.StdoutBytes || int64(len(stderr)) != got.StderrBytes || got.DroppedBytes != 0 {
		v.wrong(r, "%d and %d bytes are stored, the result says %d and %d, and %d dropped", len(stdout), len(stderr), got.StdoutBytes, got.StderrBytes, got.DroppedBytes)
	}
	wantOut, wantErr := r.printed()
	if got.Status != "succeeded" && got.Status != "failed" {
		// It was ended before it came to that. What it had printed is a beginning.
		if !bytes.HasPrefix(wantOut, stdout) || !bytes.HasPrefix(wantErr, stderr) {
			v.wrong(r, "%d and %d bytes are not what it prints", len(stdout), len(stderr))
		}
		return
	}
	if !bytes.Equal(stdout, wantOut) || !bytes.Equal(stderr, wantErr) {
		v.wrong(r, "%d and %d bytes are not the %d and %d that it printed", len(stdout), len(stderr), len(wantOut), len(wantErr))
	}
	if !got.Truncated && r.tool != "flood" && (got.Stdout != string(wantOut) || got.Stderr != string(wantErr)) {
		v.wrong(r, "the output in its result is not what it printed")
	}
}

// clock is how times are shown.
const clock = "05.000"

// judgeRest checks what was printed under an executor that died, whose result is somebody else's: what was under way then is
// missing, and all else is what the tool prints at that place.
func (v *verdict) judgeRest(r *request, chunks []chunk) {
	stdout, stderr := r.printed()
	for _, c := range chunks {
		want := map[string][]byte{"stdout": stdout, "stderr": stderr}[c.stream]
		if c.offset > int64(len(want)) || !bytes.HasPrefix(want[c.offset:], c.data) {
			v.wrong(r, "chunk %d of attempt %d is not what it prints there", c.seq, c.attempt)
		}
	}
}

// history is the status of a run in one line.
func history(status []event) string {
	text := ""
	for _, ev := range status {
		text += fmt.Sprintf(" %s:%d@%s(%s)", ev.Type, ev.Attempt, ev.Executor, ev.Time.Format(clock))
	}
	return cmp.Or(text, " nothing")[1:]
}
