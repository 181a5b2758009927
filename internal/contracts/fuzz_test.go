package contracts

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// documents are the contracts of testdata, valid and broken, to begin with.
func documents(f *testing.F, extension string) {
	f.Helper()
	for _, folder := range []string{"valid", "broken"} {
		files, err := filepath.Glob(filepath.Join("testdata", "contracts", folder, "*"+extension))
		if err != nil || len(files) == 0 {
			f.Fatal(folder, extension, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
}

// Whatever is accepted as contracts comes back the same by way of JSON; whatever is not is refused with a place.
func FuzzParseContractsYAML(f *testing.F) {
	documents(f, ".yaml")
	f.Fuzz(func(t *testing.T, text []byte) { checkContracts(t, "f.yaml", text) })
}

func FuzzParseContractsJSON(f *testing.F) {
	documents(f, ".json")
	f.Fuzz(func(t *testing.T, text []byte) { checkContracts(t, "f.json", text) })
}

func checkContracts(t *testing.T, file string, text []byte) {
	list, err := ParseContracts(file, text)
	if err != nil {
		checkProblems(t, text, err)
		return
	}
	for _, c := range list {
		text, err := marshalJSON(c)
		if err != nil {
			t.Fatalf("%+v: %s", c, err)
		}
		again, err := ParseContracts("", text)
		if err != nil {
			t.Fatalf("its own JSON is refused: %s\n%s", err, text)
		}
		if len(again) != 1 || !sameContract(c, again[0]) {
			t.Fatalf("comes back otherwise:\n%+v\n%+v\n%s", c, again[0], text)
		}
		for _, engine := range Engines {
			if spec := c.SpecFor(engine); spec != nil && (spec.Engine() != engine || spec.Common() == nil) {
				t.Errorf("%+v for %s", spec, engine)
			}
		}
		if c.SpecFor(c.Engine) == nil {
			t.Errorf("no spec for its own engine %s", c.Engine)
		}
	}
}

// checkProblems fails where an error is not what people and editors can use.
func checkProblems(t *testing.T, text []byte, err error) {
	problems, ok := err.(Problems)
	if !ok || len(problems) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	lines := 1 + bytes.Count(text, []byte("\n")) + bytes.Count(text, []byte("\r")) + bytes.Count(text, []byte("\u0085")) +
		bytes.Count(text, []byte("\u2028")) + bytes.Count(text, []byte("\u2029")) // YAML knows all of these as line breaks
	for i, p := range problems {
		if p.Message == "" || len(p.Message) > 2000 || !utf8.ValidString(p.Message) || strings.ContainsAny(p.String(), "\n\x00\x1b") {
			t.Errorf("a poor message: %q", p.String())
		}
		if p.Line > lines || p.Column > 1+len(text) || p.Line == 0 && p.Column != 0 {
			t.Errorf("%d:%d is not a place in %d lines", p.Line, p.Column, lines)
		}
		if i > 0 && p.Line != 0 && p.Line < problems[i-1].Line {
			t.Errorf("not in the order of the text:\n%s", err)
		}
	}
}

// What is accepted as a request is accepted again when encoding/json wrote it, as agents in Go do and the executor when it
// passes a request on, and asks for the same. What is refused names only an id and reply_to that are good.
func FuzzDecodeRequest(f *testing.F) {
	for _, text := range []string{
		`{"id": "01JD", "tool": "t", "version": "1.0.0", "args": {"n": 5, "x": [null, 1.0, "é"]}, "context": {"s": "1"}, "stdin": "x", "timeout": 30.5, "deadline": "2026-01-01T00:00:00Z",
			"queue_timeout": "1m", "priority": "high", "fallback": ["docker-sdk"], "reply_to": "_INBOX.x", "labels": {"a": "b"}}`,
		`{"contract": {"name": "t", "engine": "docker", "engineSpec": {"image": "i", "command": ["a"], "mounts": {"a": "/a:rw"}, "memory_limit": "1Gi", "cpu_limit": "250m"},
			"params": {"properties": {"x": {"type": "int", "default": 1}}, "required": ["x"]}, "fallback": [{"engine": "local", "engine_spec": {"command": "a", "shell": true}}]}, "stdin_base64": "AP8="}`,
		`{"tool":"t","id":"x","id":"y"}`, `{"tool":"t","ID":"x"}`, `{"tool":"t","id":"q1"}`, `{"tool":"t","reply_to":"a.>"}`, `{"tool":"t","args":{"a":"\ud83d"}}`,
		`{"tool":"t","timeout":1e300,"deadline":"0000-01-01T00:00:00+23:59"}`, `{"tool":"t","labels":{"\u0000":""}}`, `{"id":"x","reply_to":"y"}`, `{"tool":"t"} x`, `[]`, ``,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := DecodeRequest(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code != InvalidRequest || e.Message == "" || len(e.Message) > 4000 {
				t.Errorf("%T %v", err, err)
			}
			if r.ID != "" && CheckID(r.ID) != nil || r.ReplyTo != "" && CheckSubject(r.ReplyTo) != nil {
				t.Errorf("id %q, reply_to %q", r.ID, r.ReplyTo)
			}
			return
		}
		written, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeRequest(written)
		if err != nil {
			t.Fatalf("%s\n%s", err, written)
		}
		if a, b := r.Digest(), again.Digest(); a != b {
			t.Errorf("digest %s becomes %s\n%s", a, b, written)
		}
		if r.Timeout != again.Timeout || r.QueueTimeout != again.QueueTimeout || !r.Deadline.Equal(again.Deadline) || r.ID != again.ID || r.ReplyTo != again.ReplyTo ||
			r.Priority != again.Priority || !same(reflect.ValueOf(r.Labels), reflect.ValueOf(again.Labels)) || !same(reflect.ValueOf(r.Fallback), reflect.ValueOf(again.Fallback)) {
			t.Errorf("\n%+v\n%+v", r, again)
		}
	})
}

// encoding/json is the judge: what ParseJSON accepts it accepts too, as the same value; what it accepts and ParseJSON does
// not breaks one of the documented rules.
func FuzzParseJSON(f *testing.F) {
	for _, text := range []string{`{"a":[1,-2.5e3,"x\n\u00e9\ud83d\ude00",true,false,null,{}],"":""}`, ` [ ] `, `"\ud800"`, `{"a":1,"a":2}`, `[1,]`, `01`, `1e`, "\"\t\"", "\"\xff\"", `{} {}`, strings.Repeat("[", 40), "\ufeff1"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		reader := json.NewDecoder(bytes.NewReader(text))
		reader.UseNumber()
		var want any
		wantErr := reader.Decode(&want)
		if wantErr == nil {
			if _, more := reader.Token(); !errors.Is(more, io.EOF) {
				wantErr = errors.New("more text")
			}
		}
		n, err := ParseJSON("f", text)
		if err != nil {
			checkProblems(t, text, err)
			if wantErr == nil && !documented(text, err) {
				t.Errorf("%q: %s", text, err)
			}
			return
		}
		if wantErr != nil {
			t.Fatalf("%q is accepted; encoding/json says %s", text, wantErr)
		}
		checkPlaces(t, text, n)
		var d decoder
		got := d.any(n, "")
		if len(d.problems) > 0 {
			if !strings.Contains(d.problems.Error(), "is given twice") {
				t.Errorf("%q: %s", text, d.problems)
			}
			return
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %#v\nwant %#v", text, got, want)
		}
	})
}

// documented reports whether ParseJSON says in its comment that it refuses more than encoding/json here.
func documented(text []byte, err error) bool {
	return !utf8.Valid(text) || strings.Contains(err.Error(), "half of a surrogate pair") || strings.Contains(err.Error(), "nested deeper than 32 levels")
}

// checkPlaces looks for every value at its place in the text.
func checkPlaces(t *testing.T, text []byte, n *yaml.Node) {
	lines := strings.Split(string(text), "\n")
	line := []rune(lines[n.Line-1])[n.Column-1:]
	want := map[string]string{"!!map": "{", "!!seq": "[", "!!str": `"`}[n.Tag]
	if want == "" {
		want = n.Value
	}
	if !strings.HasPrefix(string(line), want) {
		t.Errorf("%q is not at %d:%d of %q", n.Value, n.Line, n.Column, text)
	}
	for _, one := range n.Content {
		checkPlaces(t, text, one)
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"0", "1048576", "512Mi", "1.5Gi", "512m", "64 kb", "512M", "1GB", "-1", "1e3", "9223372036854775807", "9223372036854775808", "0.0000000000000000001Ti"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			if len(err.Error()) > 300 {
				t.Errorf("%q", err.Error())
			}
			return
		}
		written, err := json.Marshal(size)
		var again Size
		if err != nil || size < 0 || json.Unmarshal(written, &again) != nil || again != size {
			t.Errorf("%q: %d, %s, %d", text, size, written, again)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, text := range []string{`0`, `30`, `0.1`, `-2.5`, `1e3`, `1e-9`, `1.0000000005`, `9223372036.854775807`, `-9223372036.854775808`, `"1m30s"`, `"250ms"`, `"-1.5h"`, `"2540400h10m10.000000001s"`, `"30"`, `null`, `[]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d, again Duration
		if err := json.Unmarshal(text, &d); err != nil {
			return
		}
		written, err := json.Marshal(d)
		if err != nil || json.Unmarshal(written, &again) != nil || again != d {
			t.Errorf("%s: %d, %s, %d", text, d, written, again)
		}
	})
}

func FuzzCPU(f *testing.F) {
	for _, text := range []string{`1`, `1.5`, `0.001`, `4096`, `"1500m"`, `"0.25"`, `"1.5m"`, `0.0005`, `1e1`, `"4096000m"`, `null`, `{}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c, again CPU
		if err := json.Unmarshal(text, &c); err != nil || string(bytes.TrimSpace(text)) == "null" {
			return
		}
		written, err := json.Marshal(c)
		if err != nil || c < 1 || c > 4096_000 || json.Unmarshal(written, &again) != nil || again != c {
			t.Errorf("%s: %d, %s, %d", text, c, written, again)
		}
	})
}

func FuzzDecodeFollow(f *testing.F) {
	for _, text := range []string{`{"id":"a"}`, `{"id":"q17-1","from":18446744073709551615,"attempt":9}`, `{"id":"a","from":-1}`, `{"id":"a.b"}`, `{"ID":"a"}`, `[]`, ``,
		`{"id":"a","snapshot":true,"skip_output":true}`, `{"id":"a","snapshot":0}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		follow, err := DecodeFollow(text)
		if err != nil {
			if AsError(err).Code != InvalidRequest || len(err.Error()) > 2000 {
				t.Errorf("%v", err)
			}
			return
		}
		written, err := json.Marshal(follow)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeFollow(written); err != nil || again != follow || !IsID(follow.ID) || follow.Attempt < 0 {
			t.Errorf("%+v, %+v, %v", follow, again, err)
		}
	})
}

func FuzzDecodeDiscover(f *testing.F) {
	for _, text := range []string{``, `{}`, `{"tool":"a"}`, `{"tool":"","as":"mcp"}`, `{"as":"openai"}`, `{"as":"anthropic"}`, `{"as":"Mcp"}`, `{"as":""}`, `{"as":null}`, `{"AS":"mcp"}`, `{"tool":1}`, `[]`, ` `} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ask, err := DecodeDiscover(text)
		if err != nil {
			if AsError(err).Code != InvalidRequest || len(err.Error()) > 2000 {
				t.Errorf("%v", err)
			}
			return
		}
		written, err := json.Marshal(ask)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeDiscover(written); err != nil || again != ask || ask.As != "" && !slices.Contains(Dialects, ask.As) {
			t.Errorf("%+v, %+v, %v", ask, again, err)
		}
	})
}

// Any args and context are either refused or become variables that execve takes.
func FuzzEnvironment(f *testing.F) {
	for _, text := range []string{`{"args":{"a-b":"x","n":[1,"<"]},"context":{"s":null}}`, `{"args":{"a.b":"","a-b":""}}`, `{"args":{"a":"\u0000"}}`, `{"args":{"PATH":"x","LD_PRELOAD":"y"}}`, `{"args":{"A":1},"context":{"A":2}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := &Request{}
		n, err := ParseJSON("", text)
		if err != nil || len(Decode("", n, r)) > 0 {
			return
		}
		e := Environment{Base: map[string]string{"PATH": "/bin", "HOME": "/"}, Contract: Variables{"ARG_A": "c", "text": "c"}, Args: r.Args, Context: r.Context, ArgsEnv: ArgsRaw, ArgsFile: "/args"}
		for name := range r.Args {
			e.Declared = append(e.Declared, name)
		}
		list, err := e.Variables()
		if err != nil {
			if AsError(err).Code != InvalidArgs || list != nil {
				t.Errorf("%v", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, entry := range list {
			name, _, ok := strings.Cut(entry, "=")
			if !ok || !variableName.MatchString(name) || seen[name] || strings.Contains(entry, "\x00") || len(entry) >= maxElement {
				t.Errorf("%.200q", entry)
			}
			seen[name] = true
		}
		for _, kept := range []string{"PATH=/bin", "HOME=/", "text=c", "ARGS_FILE=/args"} {
			if !strings.Contains("\x00"+strings.Join(list, "\x00")+"\x00", "\x00"+kept+"\x00") {
				t.Errorf("%s is gone from %.1000q", kept, list)
			}
		}
	})
}

// A command is expanded to what execve takes: no NUL, nothing too long, and never more elements than before.
func FuzzExpand(f *testing.F) {
	for _, element := range []string{"plain", "{{args.a}}", "x{{context.a}}y", "{{ args.a }}{{args.b}}", "{{{args.a}}}", "{{args.a", "{{args.a.b-c}}"} {
		f.Add(element, `{"a":"x\u0000","b":[1]}`)
		f.Add(element, `{"a":"{{args.b}}","b":"{{args.a}}"}`)
		f.Add(element, `{}`)
	}
	f.Fuzz(func(t *testing.T, element, values string) {
		n, err := ParseJSON("", []byte(values))
		if err != nil {
			return
		}
		var args map[string]any
		if len(Decode("", n, &args)) > 0 {
			return
		}
		argv, err := Expand([]string{"first", element}, args, args)
		if err != nil {
			if AsError(err).Code != InvalidArgs || len(err.Error()) > 500 {
				t.Errorf("%v", err)
			}
			return
		}
		if len(argv) == 0 || len(argv) > 2 || argv[0] != "first" {
			t.Fatalf("%q", argv)
		}
		if !placeholder.MatchString(element) && (len(argv) != 2 || argv[1] != element) {
			t.Errorf("%q becomes %q", element, argv)
		}
		if len(argv) == 2 && placeholder.MatchString(element) && (strings.Contains(argv[1], "\x00") || len(argv[1]) >= maxElement) {
			t.Errorf("%.200q", argv[1])
		}
	})
}
