package contracts

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var longAgo = time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)

func letterWith(n int, reason string) DeadLetter {
	l := DeadLetter{ID: "a", Engine: "local", Priority: PriorityNormal, Seq: 7, Digest: "sha256:x", Stored: longAgo, Executor: "e", Time: longAgo, Error: Errorf(ExecutorLost, "lost")}
	for i := range n {
		l.Remember(Event{Type: TypeRetry, ID: "a", Attempt: i + 1, Executor: "e", Time: longAgo, ExecSeq: 7, Code: ExecutorLost, Reason: reason})
	}
	return l
}

// The last events stay, the JSON stays small, and what was left out is counted.
func TestHistoryHasBounds(t *testing.T) {
	for _, test := range []struct {
		events         int
		reason         string
		kept, atLeast  int
		reasonIs       string
		errorMessage   string
		messageIsWhole bool
	}{
		{3, "no", 3, 3, "no", "lost", true},
		{32, "no", 32, 32, "no", "lost", true},
		{100, "no", 32, 32, "no", "lost", true},
		{2, strings.Repeat("x", 200), 2, 2, strings.Repeat("x", 200), "lost", true},
		{2, strings.Repeat("x", 201), 2, 2, strings.Repeat("x", 197) + "…", "lost", true},
		{2, strings.Repeat("é", 150), 2, 2, strings.Repeat("é", 98) + "…", "lost", true},    // 197 would be inside of a letter
		{32, strings.Repeat("\x01", 200), 32, 1, strings.Repeat("\x01", 200), "lost", true}, // six bytes each in JSON
		{32, "no", 32, 1, "no", strings.Repeat("long ", 3000), true},
		{32, "no", 0, 0, "", strings.Repeat("\x01", 64<<10), false},
	} {
		l := letterWith(test.events, test.reason)
		if len(l.History) > 32 || len(l.History)+l.HistoryOmitted != test.events {
			t.Errorf("%d events: %d are remembered, %d omitted", test.events, len(l.History), l.HistoryOmitted)
		}
		l.Error = Errorf(ExecutorLost, "%s", test.errorMessage)
		text, err := l.Encode()
		if err != nil || len(text) > 16<<10 || !utf8.Valid(text) || strings.ContainsAny(string(text), "\r\n") {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		is, err := DecodeDeadLetter(string(text))
		if err != nil {
			t.Fatal(err)
		}
		n := len(is.History)
		if n < test.atLeast || n > test.kept || n+is.HistoryOmitted != test.events {
			t.Errorf("%d events of %.10q: %d in the letter, %d omitted", test.events, test.reason, n, is.HistoryOmitted)
		}
		if n > 0 && (is.History[n-1].Attempt != test.events || is.History[n-1].Reason != test.reasonIs) {
			t.Errorf("the last is %+v, want the reason %q", is.History[n-1], test.reasonIs)
		}
		if whole := is.Error.Message == test.errorMessage; whole != test.messageIsWhole || len(is.Error.Message) < min(200, len(test.errorMessage))-3 {
			t.Errorf("the message has %d of %d bytes", len(is.Error.Message), len(test.errorMessage))
		}
		if len(letterWith(test.events, test.reason).History) != len(l.History) {
			t.Error("Encode changed the letter")
		}
	}
}

// A letter remembers the run of its own request, whatever engine had it, and not another one with the same id.
func TestHistoryIsThatOfTheRequest(t *testing.T) {
	l := letterWith(0, "")
	for _, e := range []Event{
		{Type: TypeStarted, Attempt: 1, Digest: "sha256:x", ExecSeq: 3}, // on another engine
		{Type: TypeFallback, Attempt: 1, Digest: "sha256:x", ExecSeq: 3, From: "docker", To: "local", Hop: 1, Code: EngineUnavailable, Reason: "no daemon"},
		{Type: TypeProgress, Attempt: 1, Digest: "sha256:x", ExecSeq: 7, Stage: "pull"},
		{Type: TypeStarted, Attempt: 2, Digest: "sha256:y", ExecSeq: 9, Engine: "local"}, // another request
		{Type: TypeStarted, Attempt: 2, ExecSeq: 9},
		{Type: TypeStarted, Attempt: 2, ExecSeq: 7, Engine: "local", Executor: "e"},
	} {
		l.Remember(e)
	}
	want := []PastEvent{
		{Type: TypeStarted, Attempt: 1},
		{Type: TypeFallback, Attempt: 1, From: "docker", To: "local", Hop: 1, Code: EngineUnavailable, Reason: "no daemon"},
		{Type: TypeStarted, Attempt: 2, Engine: "local", Executor: "e"},
	}
	if !reflect.DeepEqual(l.History, want) || l.HistoryOmitted != 0 {
		t.Errorf("%+v\nwant %+v", l.History, want)
	}
	unreadable := DeadLetter{Seq: 7} // has no digest: an event without one is not its own for that
	unreadable.Remember(Event{Type: TypeStarted, ExecSeq: 8})
	if len(unreadable.History) != 0 {
		t.Errorf("%+v", unreadable.History)
	}
}

func TestDecodeDeadLetterTellsWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "it has no header Tools-Dead",
		"{":                        "cannot be read",
		`[]`:                       "cannot be read",
		`{"seq":-1}`:               "cannot be read",
		`{"time":"yesterday"}`:     "cannot be read",
		`{}`:                       "does not say what went wrong",
		`{"error":null,"seq":1}`:   "does not say what went wrong",
		`{"error":{},"future":[]}`: "",
	} {
		l, err := DecodeDeadLetter(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
		if err == nil && l.Error == nil {
			t.Errorf("%s: %+v", text, l)
		}
	}
}

// What can be read as a letter is small when it is written again, can be read again, and is the same then but for what was
// left out.
func FuzzDecodeDeadLetter(f *testing.F) {
	for _, l := range []DeadLetter{letterWith(0, ""), letterWith(3, "no \"daemon\"\n"), letterWith(40, strings.Repeat("\x02", 300)), {Error: &Error{}}} {
		text, err := l.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, text := range []string{"", "{", "null", `{"error":{"code":"x","message":"\ud800"},"history":[null,{}]}`, `{"error":{},"history_omitted":-1,"attempts":-5}`,
		fmt.Sprintf(`{"error":{"message":%q},"history_error":%q}`, strings.Repeat("é", 10<<10), strings.Repeat("x", 10<<10))} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := DecodeDeadLetter(text)
		if err != nil {
			if !reflect.DeepEqual(l, DeadLetter{}) && l.Error != nil {
				t.Errorf("%+v with %v", l, err)
			}
			return
		}
		written, err := l.Encode()
		if err != nil {
			if len(l.ID)+len(l.Tool)+len(l.Digest)+len(l.Engine)+len(l.Priority)+len(l.Executor)+len(l.Error.Code) < 1<<10 {
				t.Fatal(err)
			}
			return
		}
		again, err := DecodeDeadLetter(string(written))
		if err != nil || len(written) > 16<<10 {
			t.Fatalf("%d bytes, %v", len(written), err)
		}
		if len(again.History)+again.HistoryOmitted != len(l.History)+l.HistoryOmitted || again.Seq != l.Seq || !again.Time.Equal(l.Time) {
			t.Errorf("%+v\n%+v", l, again)
		}
		if small, _ := json.Marshal(l); len(small) < 16<<10 && !sameLetter(l, again) {
			t.Errorf("%+v\n%+v", l, again)
		}
	})
}

// sameLetter compares what JSON says of two letters: a time may have another location.
func sameLetter(a, b DeadLetter) bool {
	one, err1 := json.Marshal(a)
	other, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(one) == string(other)
}
