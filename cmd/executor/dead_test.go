package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{"1h": time.Hour, "7d": 7 * 24 * time.Hour, "0.5d": 12 * time.Hour, "90m": 90 * time.Minute} {
		var s span
		if err := s.Set(text); err != nil || time.Duration(s) != want {
			t.Errorf("%s: %s, %v", text, time.Duration(s), err)
		}
		if ago := time.Since(s.ago()); ago < want || ago > want+time.Minute {
			t.Errorf("%s: %s ago", text, ago)
		}
	}
	for _, text := range []string{"", "0", "0d", "-1h", "-1d", "d", "1", "week", "1dd", "NaNd", "1e300d", "Infd"} {
		var s span
		if err := s.Set(text); err == nil || s != 0 {
			t.Errorf("%q: %s", text, time.Duration(s))
		}
	}
	if !span(0).ago().IsZero() {
		t.Error("none is a time")
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "",
		`plain "é" \ 日本`:       `plain "é" \ 日本`,
		"a\x1b[2Jb":            `a\x1b[2Jb`,
		"tab\there\r\n":        `tab\there\r\n`,
		"\u202eevil\u0085\x7f": `\u202eevil\u0085\x7f`,
		"bad \xff\xc3":         `bad \xff\xc3`,
		"\ufffd":               "\ufffd",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A question that nobody answers ends with the command.
func TestAskEndsWithTheCommand(t *testing.T) {
	never, closed := io.Pipe()
	defer closed.Close()
	p := &program{stdin: never, stderr: io.Discard}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var code exitCode
	if ok, err := p.ask(ctx, "Well?", true); ok || !errors.As(err, &code) || code.code != exitInterrupted {
		t.Errorf("%v, %v", ok, err)
	}
	for answer, want := range map[string]bool{"\n": true, "y\n": true, " Yes \n": true, "n\n": false, "what\n": false, "": false, "y": false} {
		p := &program{stdin: strings.NewReader(answer), stderr: io.Discard}
		if ok, err := p.ask(t.Context(), "Well?", true); ok != want || err != nil {
			t.Errorf("%q: %v, %v", answer, ok, err)
		}
	}
}

// Before the first attempt there is none to speak of.
func TestNoAttempt(t *testing.T) {
	if got, want := pastText(client.PastEvent{Type: client.TypeRetry, Executor: "a", Code: "engine_unavailable", Reason: "no daemon"}), "a: engine_unavailable: no daemon"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := describe(&client.Event{Event: contracts.Event{Type: client.TypeRetry, Reason: "no daemon"}}), "not started (no daemon); it will be tried again"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for attempt, want := range map[int]string{0: "engine local on a", 2: "engine local on a, attempt 2"} {
		var out bytes.Buffer
		if err := (&program{stdout: &out}).printResult(&client.Result{ID: "x", Status: contracts.Rejected, Engine: "local", Executor: "a", Attempt: attempt}); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, want) || strings.Contains(text, "attempt 0") {
			t.Errorf("%d: %s", attempt, text)
		}
	}
}

// A question that nobody answers names what may be missing; what is known otherwise stays as it is.
func TestExplain(t *testing.T) {
	const hint = "; may this user read its answers? give the inbox prefix of this user: --inbox-prefix"
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("discover: %w", context.DeadlineExceeded), "discover: context deadline exceeded" + hint},
		{nats.ErrTimeout, "nats: timeout" + hint},
		{errors.Join(context.DeadlineExceeded, nats.ErrPermissionViolation), "context deadline exceeded\nnats: permissions violation"},
		{context.Canceled, "context canceled"},
	} {
		err := explain(test.err)
		if err.Error() != test.want || !errors.Is(err, test.err) {
			t.Errorf("%q, want %q", err, test.want)
		}
	}
	if explain(nil) != nil {
		t.Error("an error of none")
	}
}

// Keys are left out of an object, and of nothing else; what stays is the same, and so is what is no object.
func FuzzWithout(f *testing.F) {
	for _, text := range []string{`{"id":"a","tool":"b"}`, `{}`, ` { "id" : 1 , "x":{"id":2}, "id":3 } `, `[]`, `["id"]`, `"id"`, `{"id"`, ``, "{\"\\u0069d\":1,\"é\\\"\":[1.0e5,null]}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := without(text, "id", "reply_to")
		var was, is map[string]json.RawMessage
		if !json.Valid(text) || json.Unmarshal(text, &was) != nil || was == nil {
			if !bytes.Equal(got, text) {
				t.Errorf("%q became %q", text, got)
			}
			return
		}
		delete(was, "id")
		delete(was, "reply_to")
		if err := json.Unmarshal(got, &is); err != nil || !reflect.DeepEqual(is, was) {
			t.Errorf("%q became %q: %v", text, got, err)
		}
	})
}
