package enginetest

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// What the executor itself has in its environment, and no tool may see.
const (
	secretName  = "EXECUTOR_TEST_SECRET"
	secretValue = "only-for-the-executor"
)

// environment runs the tool and returns the environment that it saw.
func (s *session) environment(t *testing.T, a ask) map[string]string {
	t.Helper()
	a.script = []string{"env"}
	r := s.run(t, a)
	r.exited(t, 0)
	var list []string
	if err := json.Unmarshal([]byte(r.stdout.text()), &list); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := env[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		env[name] = value
	}
	return env
}

func testEnvironment(t *testing.T, s *session) {
	check := func(t *testing.T, env map[string]string, want map[string]string) {
		t.Helper()
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got, there := env[name]; !there || got != want[name] {
				t.Errorf("%s is %q (there: %t), %q is right", name, shorten(got), there, shorten(want[name]))
			}
		}
	}
	absent := func(t *testing.T, env map[string]string, names ...string) {
		t.Helper()
		for _, name := range names {
			if value, there := env[name]; there {
				t.Errorf("%s is there: %q", name, shorten(value))
			}
		}
	}
	t.Run("base", func(t *testing.T) {
		env := s.environment(t, ask{})
		for _, name := range []string{"PATH", "HOME", "TMPDIR", "LANG", "ARGS_FILE"} {
			if env[name] == "" {
				t.Errorf("there is no %s", name)
			}
		}
		absent(t, env, secretName, "ARGS_OMITTED")
		for name, value := range env {
			if strings.Contains(value, secretValue) {
				t.Errorf("%s has something of the executor's environment: %q", name, value)
			}
		}
	})
	t.Run("values", func(t *testing.T) {
		env := s.environment(t, ask{
			args: map[string]any{
				"text": "a b\"$HOME'\n`x`\\ ä", "number": json.Number("1.50"), "flag": true, "list": []any{json.Number("1"), "<&>"}, "object": map[string]any{"a": nil},
				"nothing": nil, "dotted.na-me": "v", "empty": "",
			},
			context: map[string]any{"session": "s-17", "turn": json.Number("4")},
		})
		check(t, env, map[string]string{
			"ARG_TEXT": "a b\"$HOME'\n`x`\\ ä", "ARG_NUMBER": "1.50", "ARG_FLAG": "true", "ARG_LIST": `[1,"<&>"]`, "ARG_OBJECT": `{"a":null}`,
			"ARG_DOTTED_NA_ME": "v", "ARG_EMPTY": "", "CONTEXT_SESSION": "s-17", "CONTEXT_TURN": "4",
		})
		absent(t, env, "ARG_NOTHING", "text", "number", "ARGS_OMITTED")
	})
	t.Run("later parts win", func(t *testing.T) {
		env := s.environment(t, ask{
			common:      contracts.CommonSpec{Env: contracts.Variables{"LANG": "de_DE.UTF-8", "A": "contract", "B": "contract", "ARG_X": "contract", "CONTEXT_X": "contract", "ARGS_FILE": "/nowhere"}},
			passthrough: map[string]string{"B": "passthrough", "C": "passthrough", "ARG_X": "passthrough"},
			args:        map[string]any{"x": "argument"}, context: map[string]any{"x": "context"},
		})
		check(t, env, map[string]string{"LANG": "de_DE.UTF-8", "A": "contract", "B": "passthrough", "C": "passthrough", "ARG_X": "argument", "CONTEXT_X": "context"})
		if env["ARGS_FILE"] == "/nowhere" {
			t.Error("the contract may set ARGS_FILE")
		}
	})
	t.Run("args_env: raw", func(t *testing.T) {
		raw := ask{
			contract: contracts.Contract{ArgsEnv: contracts.ArgsRaw, Parameters: contracts.Parameters{Declared: true, List: []contracts.Parameter{
				{Name: "operation"}, {Name: "data"}, {Name: "PATH"}, {Name: "LD_PRELOAD"}, {Name: "taken"}, {Name: "absent"}}}},
			common: contracts.CommonSpec{Env: contracts.Variables{"taken": "contract"}},
			args:   map[string]any{"operation": "sum", "data": []any{json.Number("1")}, "PATH": "/evil", "LD_PRELOAD": "/evil.so", "taken": "argument", "undeclared": "u"},
		}
		env := s.environment(t, raw)
		check(t, env, map[string]string{"operation": "sum", "ARG_OPERATION": "sum", "data": "[1]", "taken": "contract", "ARG_PATH": "/evil"})
		absent(t, env, "LD_PRELOAD", "absent", "undeclared")
		if env["PATH"] == "/evil" {
			t.Error("an argument set PATH")
		}
		raw.contract.ArgsEnv = ""
		absent(t, s.environment(t, raw), "operation", "data")
	})
	t.Run("too large for a variable", func(t *testing.T) {
		large := strings.Repeat("ä0123456", 200<<10/9)
		env := s.environment(t, ask{args: map[string]any{"large": large, "small": "s"}})
		check(t, env, map[string]string{"ARGS_OMITTED": "ARG_LARGE", "ARG_SMALL": "s"})
		absent(t, env, "ARG_LARGE")
	})
	t.Run("names that meet", func(t *testing.T) {
		r := s.run(t, ask{script: []string{"out:ran"}, args: map[string]any{"a-b": 1, "a.b": 2}})
		r.refused(t, contracts.InvalidArgs)
	})
}

// refused checks that nothing was started, and why.
func (r *running) refused(t *testing.T, code contracts.Code) {
	t.Helper()
	var wrong *contracts.Error
	if !errors.As(r.err, &wrong) || wrong.Code != code {
		t.Errorf("Run returned %v; an error with the code %s is right", r.err, code)
	} else if len(wrong.Message) < 10 {
		t.Errorf("the message %q helps nobody", wrong.Message)
	}
	if r.starts != 0 {
		t.Error("Starting was called for what cannot be started")
	}
	r.printed(t, "", "")
}

func testArgsFile(t *testing.T, s *session) {
	content := func(t *testing.T, a ask) (args, context map[string]any) {
		t.Helper()
		a.script = []string{"read:$ARGS_FILE"}
		r := s.run(t, a)
		r.exited(t, 0)
		var file struct{ Args, Context map[string]any }
		if err := json.Unmarshal([]byte(r.stdout.text()), &file); err != nil {
			t.Fatalf("ARGS_FILE holds %q: %s", shorten(r.stdout.text()), err)
		}
		return file.Args, file.Context
	}
	same := func(t *testing.T, got, want map[string]any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("ARGS_FILE has %.200v, %.200v is right", got, want)
		}
	}
	t.Run("content", func(t *testing.T) {
		want := map[string]any{"text": "a\"b\n<&> ä", "number": 1.5, "list": []any{true, nil}, "nothing": nil}
		args, context := content(t, ask{args: want, context: map[string]any{"session": "s-17"}})
		same(t, args, want)
		same(t, context, map[string]any{"session": "s-17"})
	})
	t.Run("large, then small", func(t *testing.T) {
		large := map[string]any{"large": strings.Repeat("0123456789", 20<<10)}
		args, _ := content(t, ask{args: large})
		same(t, args, large)
		args, context := content(t, ask{})
		same(t, args, map[string]any{})
		same(t, context, map[string]any{})
	})
	t.Run("read-only", func(t *testing.T) {
		r := s.script(t, "stat:$ARGS_FILE")
		if mode, _, _ := strings.Cut(r.stdout.text(), " "); strings.Contains(mode, "w") || !strings.HasPrefix(mode, "-r") {
			t.Errorf("its mode is %s", mode)
		}
	})
}

func testArguments(t *testing.T, s *session) {
	argv := func(t *testing.T, a ask) []string {
		t.Helper()
		a.script = append([]string{"argv"}, a.script...)
		r := s.run(t, a)
		r.exited(t, 0)
		var list []string
		if err := json.Unmarshal([]byte(r.stdout.text()), &list); err != nil {
			t.Fatal(err)
		}
		return list[slices.Index(list, "argv")+1:]
	}
	t.Run("as they are", func(t *testing.T) {
		want := []string{"", " ", "a b", "$HOME", "`id`", "*", "\"'\\", "line\nline", "ä𝄞", "--", "-x"}
		if got := argv(t, ask{script: want}); !slices.Equal(got, want) {
			t.Errorf("the tool got %q, %q is right", got, want)
		}
	})
	t.Run("placeholders", func(t *testing.T) {
		got := argv(t, ask{
			script:  []string{"{{args.text}}", "n={{ args.number }};{{args.text}}", "{{args.absent}}", "x{{args.absent}}", "{{context.session}}", "{{other.text}}", "{{args.list}}", "{{args.nested}}"},
			args:    map[string]any{"text": "a b; $HOME", "number": json.Number("2"), "list": []any{"<"}, "nested": "{{args.text}}"},
			context: map[string]any{"session": "s-17"},
		})
		want := []string{"a b; $HOME", "n=2;a b; $HOME", "x", "s-17", "{{other.text}}", `["<"]`, "{{args.text}}"}
		if !slices.Equal(got, want) {
			t.Errorf("the tool got %q, %q is right", got, want)
		}
	})
	t.Run("too large for a command", func(t *testing.T) {
		r := s.run(t, ask{script: []string{"out:ran", "{{args.large}}"}, args: map[string]any{"large": strings.Repeat("x", 200<<10)}})
		r.refused(t, contracts.InvalidArgs)
	})
}

func testDirectories(t *testing.T, s *session) {
	places := []string{".", "$HOME", "$TMPDIR"}
	empty := func(t *testing.T) {
		t.Helper()
		for _, place := range places {
			s.script(t, "ls:"+place).printed(t, "", "")
		}
	}
	var fill []string
	for _, place := range places {
		fill = append(fill, "write:"+place+"/of-this-run:text", "read:"+place+"/of-this-run")
	}
	t.Run("empty, writable, gone afterwards", func(t *testing.T) {
		empty(t)
		s.script(t, fill...).printed(t, "texttexttext", "")
		s.nothingLeft(t)
		empty(t)
	})
	t.Run("gone after a cancel", func(t *testing.T) {
		r := s.startBlocked(t, fill...)
		r.cancel(t)
		s.nothingLeft(t)
	})
	t.Run("not those of a run at the same time", func(t *testing.T) {
		r := s.startBlocked(t, fill...)
		empty(t)
		other := s.script(t, "cwd", "out: ", "var:HOME", "out: ", "var:TMPDIR")
		r.cancel(t)
		if other.stdout.text() == "" {
			t.Error("no directories")
		}
	})
	t.Run("not the file of arguments", func(t *testing.T) {
		s.script(t, "stat:$ARGS_FILE")
		for _, place := range places {
			if r := s.script(t, "ls:"+place); r.stdout.text() != "" {
				t.Errorf("%s holds %q", place, r.stdout.text())
			}
		}
	})
}

func (s *session) nothingLeft(t *testing.T) {
	t.Helper()
	if s.suite.Left == nil {
		return
	}
	if left := s.suite.Left(s.engine); len(left) > 0 {
		t.Errorf("%d things are left behind: %q", len(left), left[:min(10, len(left))])
	}
}
