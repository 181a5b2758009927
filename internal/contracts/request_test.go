package contracts

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// What a request may be. The fields are those of the design, one by one.
func TestDecodeRequest(t *testing.T) {
	full := `{"id": "01JD-abc_9", "tool": "python_data_processor", "version": "1.0.0", "args": {"operation": "numbers", "n": 5, "x": null},
		"context": {"session": "s-17", "deep": [{"a": 1e3}]}, "stdin": "in\u0000put", "timeout": 30, "deadline": "2026-01-01T00:00:00.5+01:00",
		"queue_timeout": "1m30s", "priority": "high", "fallback": ["docker-sdk", "dagger"], "reply_to": "_INBOX.x.1", "labels": {"agent": "planner"}}`
	deadline, err := time.Parse(time.RFC3339, "2026-01-01T00:00:00.5+01:00")
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRequest([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &Request{
		ID: "01JD-abc_9", Tool: "python_data_processor", Version: "1.0.0",
		Args:    map[string]any{"operation": "numbers", "n": json.Number("5"), "x": nil},
		Context: map[string]any{"session": "s-17", "deep": []any{map[string]any{"a": json.Number("1e3")}}},
		Stdin:   "in\x00put", Timeout: Seconds(30), Deadline: deadline, QueueTimeout: Seconds(90), Priority: "high",
		Fallback: []string{"docker", "dagger"}, ReplyTo: "_INBOX.x.1", Labels: map[string]string{"agent": "planner"},
	}
	if !got.Deadline.Equal(want.Deadline) {
		t.Errorf("deadline %s", got.Deadline)
	}
	got.Deadline = want.Deadline // the same time may have two locations
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestDecodeRequestWithContract(t *testing.T) {
	r, err := DecodeRequest([]byte(`{"contract": {"name": "t", "engine": "local", "engine_spec": {"command": ["echo"]}}, "stdin_base64": "AP8="}`))
	if err != nil {
		t.Fatal(err)
	}
	if c := r.Contract; c.Name != "t" || c.Engine != EngineLocal || !reflect.DeepEqual(c.Spec.Common().Command.Argv, []string{"echo"}) {
		t.Errorf("%+v", c)
	}
	if string(r.StdinBase64) != "\x00\xff" {
		t.Errorf("stdin %q", r.StdinBase64)
	}
}

func TestDecodeRequestAccepts(t *testing.T) {
	deep := strings.Repeat("[", 30) + strings.Repeat("]", 30) // below the request and args: 32 levels
	for _, text := range []string{
		`{"tool":"a"}`,
		" \t\r\n{\"tool\":\"a\"}\n ",
		`{"tool":"a","id":"q"}`,
		`{"tool":"a","id":"qx1"}`,
		`{"tool":"a","id":"Q1"}`,
		`{"tool":"a","id":"-_9"}`,
		`{"tool":"a","id":"` + strings.Repeat("x", 64) + `"}`,
		`{"tool":"` + strings.Repeat("x", 64) + `"}`,
		`{"tool":"a","timeout":0.000000001}`,
		`{"tool":"a","timeout":"1ns"}`,
		`{"tool":"a","priority":"normal","queue_timeout":1}`,
		`{"tool":"a","args":{},"context":{},"labels":{},"fallback":[]}`,
		`{"tool":"a","args":{"a":` + deep + `}}`,
		`{"tool":"a","args":{"a":"` + strings.Repeat("[", 100) + `"}}`,
		`{"tool":"a","stdin":"","args":{"":""}}`,
		`{"tool":"a","reply_to":"` + strings.Repeat("x", 256) + `"}`,
		`{"tool":"a","reply_to":"a*b.>c.é"}`,
		`{"tool":"a","labels":{"k":"` + strings.Repeat("x", 255) + `"}}`,
		`{"tool":"a","labels":` + labels(16) + `}`,
		`{"tool":"a","stdin":"😀\ud83d\ude00\u0000"}`,
		`{"\u0074ool":"a"}`,
	} {
		if r, err := DecodeRequest([]byte(text)); err != nil {
			t.Errorf("%.100s: %s", text, err)
		} else if len(r.Tool) == 0 {
			t.Errorf("%.100s: %+v", text, r)
		}
	}
}

// labels is an object of n labels.
func labels(n int) string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("l", i)] = ""
	}
	return compact(m)
}

// What is refused, and what is said about it. ID and ReplyTo are those that the asker can be told by.
func TestDecodeRequestRefuses(t *testing.T) {
	for _, test := range []struct{ name, text, id, replyTo, message string }{
		{"not JSON", `tool: a`, "", "", `the request is not JSON: "tool" is no value; write a number, true, false, null, or text in double quotes (line 1, column 1)`},
		{"empty", ``, "", "", `the request is empty; it must be a JSON object (line 1, column 1)`},
		{"white space", "\n ", "", "", `the request is empty; it must be a JSON object (line 1, column 1)`},
		{"cut off", `{"tool":"a","id":"x"`, "", "", `the request is not JSON: the text ends in the middle of a value (line 1, column 21)`},
		{"trailing text", `{"tool":"a","id":"x"} {}`, "", "", `the request has more text after the JSON value (line 1, column 23)`},
		{"list", `["a"]`, "", "", `the request is a list; it must be a JSON object`},
		{"text", `"a"`, "", "", `the request is text ("a"); it must be a JSON object`},
		{"null", `null`, "", "", `the request is empty; it must be a JSON object`},
		{"byte order mark", "\ufeff{}", "", "", `the request begins with a byte order mark (U+FEFF); leave it out (line 1, column 1)`},
		{"not UTF-8", "{\"tool\":\"a\",\"id\":\"x\",\"args\":{\"a\":\"\xff\"}}", "x", "", `the request is not UTF-8 text (line 1, column 35)`},
		{"half a pair", `{"tool":"a","id":"x","args":{"a":"\ud83d"}}`, "x", "",
			`the request holds half of a surrogate pair (\ud800 to \udfff) in a string; write the character itself, or both halves (line 1, column 34)`},
		{"too deep", `{"id":"x","reply_to":"_INBOX.a","tool":"a","args":{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}}`, "x", "_INBOX.a",
			`the request is nested deeper than 32 levels; make it flatter (line 1, column 86)`},
		{"very deep", strings.Repeat("[", 20_000), "", "", `the request is nested deeper than 32 levels; make it flatter (line 1, column 33)`},
		{"nothing", `{}`, "", "", `tool: is missing; name the tool to run`},
		{"tool and contract", `{"id":"x","tool":"a","contract":{"name":"t","engine":"local","engine_spec":{"command":["a"]}}}`, "x", "",
			`contract: is given beside tool; keep one: tool names a contract that the executors know, contract is one of your own`},
		{"unknown field", `{"tool":"a","id":"x","wait":true}`, "x", "",
			`wait: unknown key; known are id, tool, version, contract, args, context, stdin, stdin_base64, timeout, deadline, queue_timeout, priority, fallback, reply_to, labels`},
		{"near miss", `{"tool":"a","id":"x","time_out":5}`, "x", "", `time_out: unknown key; did you mean "timeout"?`},
		{"other case", `{"tool":"a","ID":"x","Reply_To":"_INBOX.a"}`, "", "", `ID: unknown key; did you mean "id"?; Reply_To: unknown key; did you mean "reply_to"?`},
		{"field twice", `{"tool":"a","id":"x","tool":"b"}`, "x", "", `tool: is given twice, first in line 1; keep one`},
		{"id twice", `{"tool":"a","id":"x","id":"y","reply_to":"_INBOX.a"}`, "", "_INBOX.a", `id: is given twice, first in line 1; keep one`},
		{"id twice, written otherwise", `{"tool":"a","id":"x","i\u0064":"x"}`, "", "", `id: is given twice, first in line 1; keep one`},
		{"argument twice", `{"tool":"a","args":{"a":1,"a":2}}`, "", "", `args.a: is given twice, first in line 1; keep one`},
		{"key twice below", `{"tool":"a","args":{"a":[{"b":1,"b":1}]}}`, "", "", `args.a[0].b: is given twice, first in line 1; keep one`},
		{"tool is no text", `{"tool":5}`, "", "", `tool: is the number 5; it must be text: write "5" in quotes`},
		{"tool is no name", `{"tool":"a.b","id":"x"}`, "x", "", `tool: "a.b" is not a tool name: letters, digits, '_' and '-', 64 at most`},
		{"tool is empty", `{"tool":""}`, "", "", `tool: "" is not a tool name: letters, digits, '_' and '-', 64 at most`},
		{"version of a contract", `{"version":"1","contract":{"name":"t","engine":"local","engine_spec":{"command":["a"]}}}`, "", "", `version: belongs to tool; a contract has its own`},
		{"version", `{"tool":"a","version":"a b"}`, "", "", `version: "a b" is not a version: letters, digits, '.', '_' and '-', 64 at most`},
		{"null field", `{"tool":"a","id":null,"args":null}`, "", "", `id: has no value; give it one or leave the key out; args: has no value; give it one or leave the key out`},
		{"bad contract", `{"id":"x","contract":{"name":"t","engine":"local","engine_spec":{"command":"ls","timeout":0}}}`, "x", "",
			`contract.engine_spec.command: is one string; write a list, as ["ls", "-l"], or add shell: true; contract.engine_spec.timeout: must be above 0`},
		{"unknown key in a contract", `{"contract":{"name":"t","engine":"local","engine_spec":{"command":["a"],"shel":true}}}`, "", "",
			`contract.engine_spec.shel: unknown key; did you mean "shell"?`},
		{"args is a list", `{"tool":"a","args":["a"]}`, "", "", `args: is a list; it must be a mapping (key: value)`},
		{"both stdins", `{"tool":"a","stdin":"","stdin_base64":""}`, "", "", `stdin_base64: is given beside stdin; keep one`},
		{"base64", `{"tool":"a","stdin_base64":"a"}`, "", "", `stdin_base64: is not base64 (RFC 4648, with padding)`},
		{"base64 is a number", `{"tool":"a","stdin_base64":1234}`, "", "", `stdin_base64: is not base64 (RFC 4648, with padding)`},
		{"timeout 0", `{"tool":"a","timeout":0}`, "", "", `timeout: must be above 0 seconds; leave it out for the contract's`},
		{"timeout negative", `{"tool":"a","timeout":-1}`, "", "", `timeout: must be above 0 seconds; leave it out for the contract's`},
		{"timeout text", `{"tool":"a","timeout":"30"}`, "", "", `timeout: text ("30") is not a duration; write seconds (30, 0.5) or "1m30s"`},
		{"timeout too long", `{"tool":"a","timeout":1e999999999}`, "", "", `timeout: the number 1e999999999 is not a duration; write seconds (30, 0.5) or "1m30s"`},
		{"queue timeout", `{"tool":"a","queue_timeout":"-1s"}`, "", "", `queue_timeout: must be above 0 seconds; leave it out for no bound`},
		{"deadline", `{"tool":"a","deadline":"tomorrow"}`, "", "", `deadline: text ("tomorrow") is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)`},
		{"deadline is a number", `{"tool":"a","deadline":1767225600}`, "", "", `deadline: the number 1767225600 is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)`},
		{"deadline that cannot be written again", `{"tool":"a","deadline":"2026-01-01T00:00:00+24:00"}`, "", "",
			`deadline: text ("2026-01-01T00:00:00+24:00") is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)`},
		{"deadline that is no RFC 3339", `{"tool":"a","deadline":"2026-01-31T1:04:05,5Z"}`, "", "",
			`deadline: text ("2026-01-31T1:04:05,5Z") is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)`},
		{"deadline that is none", `{"tool":"a","deadline":"0001-01-01T00:00:00Z"}`, "", "",
			`deadline: text ("0001-01-01T00:00:00Z") is not a time; write it as 2026-01-31T15:04:05Z (RFC 3339)`},
		{"priority", `{"tool":"a","priority":"urgent"}`, "", "", `priority: unknown value "urgent"; known are high, normal, low`},
		{"priority empty", `{"tool":"a","priority":""}`, "", "", `priority: unknown value ""; known are high, normal, low`},
		{"fallback", `{"tool":"a","fallback":["docker","dokcer","docker_sdk",5]}`, "", "",
			`fallback[1]: unknown engine "dokcer"; did you mean "docker"?; fallback[2]: "docker" is there already; an engine is tried once; ` +
				`fallback[3]: is the number 5; it must be text: write "5" in quotes`},
		{"fallback text", `{"tool":"a","fallback":"docker"}`, "", "", `fallback: is text ("docker"); it must be a list: write ["docker"]`},
		{"labels too many", `{"tool":"a","labels":` + labels(17) + `}`, "", "", `labels: has 17 labels; 16 at most`},
		{"label too long", `{"tool":"a","labels":{"key":"` + strings.Repeat("x", 254) + `"}}`, "", "", `labels: "key" has more than 256 bytes, name and value together`},
		{"label is no text", `{"tool":"a","labels":{"n":5}}`, "", "", `labels.n: is the number 5; it must be text: write "5" in quotes`},
		{"id and reply_to both bad", `{"tool":"a","id":"a b","reply_to":"a b"}`, "", "",
			`id: "a b" is not an id: 1 to 64 of the characters A-Z a-z 0-9 _ and -; reply_to: "a b" holds white space or control characters`},
		{"many problems", `{"a":1,"b":1,"c":1,"d":1,"id":"x"}`, "x", "", `the request tool: is missing`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := DecodeRequest([]byte(test.text))
			var e *Error
			if !errors.As(err, &e) || e.Code != InvalidRequest {
				t.Fatalf("%v", err)
			}
			if test.name == "many problems" {
				// In the order of the text, and no more than a person reads.
				if !strings.HasSuffix(e.Message, "; and 2 more") || strings.Count(e.Message, "unknown key") != 2 {
					t.Errorf("message %s", e.Message)
				}
			} else if e.Message != test.message {
				t.Errorf("message\n got %s\nwant %s", e.Message, test.message)
			}
			if r.ID != test.id || r.ReplyTo != test.replyTo {
				t.Errorf("id %q, reply_to %q; want %q, %q", r.ID, r.ReplyTo, test.id, test.replyTo)
			}
		})
	}
}

// A message goes back to the asker: however large the request, it stays small.
func TestDecodeRequestMessagesAreBounded(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for _, text := range []string{
		`{"` + huge + `":1}`,
		`{"tool":"` + huge + `"}`,
		`{"tool":` + strings.Repeat("1", 1<<20) + `}`,
		`{"tool":"a","args":{"` + huge + `":{"` + huge + `":1,"` + huge + `":1}}}`,
		`{"tool":"a","labels":{"` + huge + `":""}}`,
		`{"tool":"a","id":"` + huge + `","reply_to":"` + huge + `"}`,
		huge,
	} {
		if _, err := DecodeRequest([]byte(text)); err == nil || len(err.Error()) > 2000 {
			t.Errorf("%.30s…: %.3000v", text, err)
		}
	}
}

// Numbers are kept as they were written: an agent's identifiers have more digits than a float.
func TestDecodeRequestKeepsNumbers(t *testing.T) {
	r, err := DecodeRequest([]byte(`{"tool":"a","args":{"big":123456789012345678901234567890,"exp":1e999999999,"zero":-0.0,"one":1.0}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"big": json.Number("123456789012345678901234567890"), "exp": json.Number("1e999999999"), "zero": json.Number("-0.0"), "one": json.Number("1.0")}
	if !reflect.DeepEqual(r.Args, want) {
		t.Errorf("%v", r.Args)
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "01JD0123456789ABCDEFGHJKMN": true, "6ba7b810-9dad-11d1-80b4-00c04fd430c8": true, "A_b-9": true, "q": true, "query": true, "Q9": true,
		strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
		"": false, "q1": false, "q1767225600-17": false, "a.b": false, "a b": false, "a*": false, ">": false, "é": false, "a\n": false, "a\x00": false, "$JS": false,
	} {
		if err := CheckID(id); (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
	if id := QueueID(time.Unix(1767225600, 999), 17); id != "q1767225600-17" {
		t.Errorf("id of a request without one: %s", id)
	}
}

func TestCheckSubject(t *testing.T) {
	for subject, want := range map[string]string{
		"a":                      "",
		"_INBOX.abc.1":           "",
		"a*.b>":                  "", // a wildcard is a whole token
		strings.Repeat("a", 256): "",
		"":                       "has 0 bytes; a subject has 1 to 256",
		strings.Repeat("a", 257): "has 257 bytes; a subject has 1 to 256",
		"a b":                    `"a b" holds white space or control characters`,
		"a\tb":                   `"a\tb" holds white space or control characters`,
		"a\r\nPUB x":             `"a\r\nPUB x" holds white space or control characters`,
		"a\x00":                  `"a\x00" holds white space or control characters`,
		"a\x7f":                  `"a\x7f" holds white space or control characters`,
		"a\u0085":                `"a\u0085" holds white space or control characters`,
		"a\u2028":                `"a\u2028" holds white space or control characters`,
		"a\xff":                  `"a\xff" holds white space or control characters`,
		".a":                     `".a" has an empty token`,
		"a.":                     `"a." has an empty token`,
		"a..b":                   `"a..b" has an empty token`,
		".":                      `"." has an empty token`,
		"a.*.b":                  `"a.*.b" has a wildcard; it must name one subject`,
		"*":                      `"*" has a wildcard; it must name one subject`,
		"a.>":                    `"a.>" has a wildcard; it must name one subject`,
	} {
		got := ""
		if err := CheckSubject(subject); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", subject, got, want)
		}
	}
}

// What the tool reads: the request's input wins over the contract's, and empty input is none.
func TestInput(t *testing.T) {
	spec := &CommonSpec{Stdin: "of the contract"}
	for _, test := range []struct {
		request Request
		want    string
	}{
		{Request{}, "of the contract"},
		{Request{Stdin: "text"}, "text"},
		{Request{StdinBase64: []byte{0, 0xff}}, "\x00\xff"},
		{Request{StdinBase64: []byte{}}, "of the contract"},
	} {
		if got := string(test.request.Input(spec)); got != test.want {
			t.Errorf("%+v: %q, want %q", test.request, got, test.want)
		}
	}
}
