package contracts

import (
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	words := []string{"command", "cwd", "env", "env_passthrough", "timeout", "cpu_limit", "engine_spec"}
	for word, want := range map[string]string{
		"command": "command", "comand": "command", "commnad": "command", "commands": "command", "COMMAND": "command", "cmd": "cwd",
		"time_out": "timeout", "Timeout": "timeout", "tiemout": "timeout", "env-pass-through": "env_passthrough", "engineSpec": "engine_spec", "enginespecs": "engine_spec",
		"en": "env", "enw": "env", "evn": "env", "cpulimits": "cpu_limit",
		"": "", "x": "", "xyz": "", "memory": "", "timetable": "", "command_line_text": "", strings.Repeat("x", 300): "", strings.Repeat("command", 100): "",
	} {
		if got := Closest(word, words); got != want {
			t.Errorf("%.20q: %q, want %q", word, got, want)
		}
	}
	for _, test := range []struct{ word, candidate, want string }{
		{"a", "b", ""}, // one letter of one is all of it
		{"a", "A", "A"},
		{"ab", "ac", "ac"},
		{"a", "ab", "ab"},
		{strings.Repeat("a", 100), strings.Repeat("A", 100), strings.Repeat("A", 100)},
		{strings.Repeat("a", 300), "aaa", ""},
	} {
		if got := Closest(test.word, []string{test.candidate}); got != test.want {
			t.Errorf("%.20q for %.20q: %.20q", test.candidate, test.word, got)
		}
	}
	if got := Closest("x", nil); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestDidYouMean(t *testing.T) {
	many := strings.Split(strings.Repeat("name,", 24)+"name", ",")
	for _, test := range []struct {
		candidates []string
		want       string
	}{
		{[]string{"timeout", "name"}, `did you mean "timeout"?`},
		{[]string{"a", "b"}, "known are a, b"},
		{nil, "there are none"},
		{many, "known are " + strings.Repeat("name, ", 19) + "name and 5 more"},
	} {
		if got := didYouMean("time_out", test.candidates); got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

// A problem names what is known of its place, in the form that editors jump to.
func TestProblemText(t *testing.T) {
	for want, p := range map[string]Problem{
		"a.yaml:3:7: engine: is missing": {"a.yaml", 3, 7, "engine", "is missing"},
		"a.yaml:3:7: is no YAML":         {"a.yaml", 3, 7, "", "is no YAML"},
		"a.yaml:3: is no YAML":           {"a.yaml", 3, 0, "", "is no YAML"},
		"a.yaml: holds no contract":      {"a.yaml", 0, 0, "", "holds no contract"},
		"line 3:7: engine: is missing":   {"", 3, 7, "engine", "is missing"},
		"engine: is missing":             {"", 0, 0, "engine", "is missing"},
		"is missing":                     {"", 0, 0, "", "is missing"},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (Problems{{Message: "a"}, {Message: "b"}}).Error(); got != "a\nb" {
		t.Errorf("%q", got)
	}
}

func TestQuoteIsShort(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb":                  `"a\nb"`,
		strings.Repeat("é", 40): `"` + strings.Repeat("é", 40) + `"`,
		strings.Repeat("é", 41): `"` + strings.Repeat("é", 40) + `…"`,
	} {
		if got := quote(text); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
