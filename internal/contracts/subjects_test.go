package contracts

import (
	"reflect"
	"strings"
	"testing"
)

func TestSubjects(t *testing.T) {
	s, err := NewSubjects("")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		s.Prefix():                     "tools",
		s.Exec("local", ""):            "tools.exec.local",
		s.Exec("local", "normal"):      "tools.exec.local",
		s.Exec("docker", "high"):       "tools.exec.docker.high",
		s.Exec("docker", "low"):        "tools.exec.docker.low",
		s.Bell("local"):                "tools.bell.local",
		s.Reply("a"):                   "tools.reply.a",
		s.Status("a"):                  "tools.reply.a.status",
		s.Output("a"):                  "tools.reply.a.output",
		s.Result("a"):                  "tools.reply.a.result",
		s.Cancel("a"):                  "tools.cancel.a",
		s.Dead("dagger"):               "tools.dead.dagger",
		s.Run():                        "tools.run",
		s.Stream():                     "tools.stream",
		s.Follow():                     "tools.follow",
		s.Discover():                   "tools.discover",
		s.Name("EXEC"):                 "TOOLS_EXEC",
		s.Consumer("local", ""):        "local",
		s.Consumer("local", "high"):    "local-high",
		s.Consumer("docker", "low"):    "docker-low",
		s.Consumer("dagger", "normal"): "dagger",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := s.ExecAll(); !reflect.DeepEqual(got, []string{"tools.exec.*", "tools.exec.*.high", "tools.exec.*.low"}) {
		t.Errorf("%v", got)
	}
}

func TestSubjectPrefixes(t *testing.T) {
	for prefix, ok := range map[string]bool{
		"tools": true, "T": true, "my-tools_2": true, strings.Repeat("a", 32): true,
		strings.Repeat("a", 33): false, "2tools": false, "-a": false, "a.b": false, "a b": false, "a*": false, ">": false, "$JS": false, "é": false, "a\n": false,
	} {
		s, err := NewSubjects(prefix)
		if (err == nil) != ok {
			t.Errorf("%q: %v", prefix, err)
		}
		if err == nil && s.Name("EXEC") != strings.ToUpper(prefix)+"_EXEC" {
			t.Errorf("%q: %s", prefix, s.Name("EXEC"))
		}
	}
}

func TestParseExec(t *testing.T) {
	s, err := NewSubjects("my-tools")
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]struct {
		engine, priority string
		ok               bool
	}{
		"my-tools.exec.local":        {"local", "normal", true},
		"my-tools.exec.docker.high":  {"docker", "high", true},
		"my-tools.exec.any.low":      {"any", "low", true},
		"my-tools.exec.local.normal": {ok: false}, // no queue has that subject
		"my-tools.exec.local.urgent": {ok: false},
		"my-tools.exec.local.high.x": {ok: false},
		"my-tools.exec.local.":       {ok: false},
		"my-tools.exec.":             {ok: false},
		"my-tools.exec..high":        {ok: false},
		"my-tools.exec":              {ok: false},
		"tools.exec.local":           {ok: false},
		"my-tools.bell.local":        {ok: false},
		"":                           {ok: false},
	} {
		engine, priority, ok := s.ParseExec(subject)
		if ok != want.ok || ok && (engine != want.engine || priority != want.priority) {
			t.Errorf("%q: %q %q %v", subject, engine, priority, ok)
		}
		if ok && s.Exec(engine, priority) != subject {
			t.Errorf("%q becomes %q", subject, s.Exec(engine, priority))
		}
	}
}
