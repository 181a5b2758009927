package contracts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// variables makes a map of the entries, and fails where a name comes twice.
func variables(t *testing.T, e Environment) map[string]string {
	t.Helper()
	list, err := e.Variables()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(list) {
		t.Errorf("not sorted: %.1000q", list)
	}
	got := map[string]string{}
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		if _, twice := got[name]; twice {
			t.Errorf("%s comes twice", name)
		}
		got[name] = value
	}
	return got
}

func TestEnvironmentPrecedence(t *testing.T) {
	e := Environment{
		Base:        map[string]string{"PATH": "base", "HOME": "base", "LANG": "base", "ARG_A": "base"},
		Contract:    Variables{"HOME": "contract", "LANG": "contract", "ARG_B": "contract", "CONTEXT_A": "contract", "ARGS_FILE": "contract"},
		Passthrough: map[string]string{"LANG": "passthrough", "ARG_C": "passthrough"},
		Args:        map[string]any{"a": "args", "b": "args", "c": "args"},
		Context:     map[string]any{"a": "context"},
		ArgsFile:    "/run/args.json",
	}
	base := maps.Clone(e.Base)
	want := map[string]string{"PATH": "base", "HOME": "contract", "LANG": "passthrough", "ARG_A": "args", "ARG_B": "args", "ARG_C": "args",
		"CONTEXT_A": "context", "ARGS_FILE": "/run/args.json"}
	if got := variables(t, e); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
	if !maps.Equal(e.Base, base) {
		t.Errorf("the base was changed: %v", e.Base)
	}
	if got := variables(t, Environment{}); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestEnvironmentNamesAndValues(t *testing.T) {
	e := Environment{
		Args: map[string]any{
			"lower": "x", "Mixed_Case": "x", "input-file": "x", "a.b": "x", "_": "x", "x9": "x",
			"text": " a=b\n\"ü\" ", "empty": "", "number": json.Number("1.50"), "big": json.Number("123456789012345678901234567890"),
			"yes": true, "no": false, "null": nil, "list": []any{json.Number("1"), "<a&b>", nil}, "map": map[string]any{"z": "ü", "a": []any{}},
			"nul_inside": []any{"\x00"},
		},
		Context: map[string]any{"session.id": "s", "null": nil},
	}
	want := map[string]string{
		"ARG_LOWER": "x", "ARG_MIXED_CASE": "x", "ARG_INPUT_FILE": "x", "ARG_A_B": "x", "ARG__": "x", "ARG_X9": "x",
		"ARG_TEXT": " a=b\n\"ü\" ", "ARG_EMPTY": "", "ARG_NUMBER": "1.50", "ARG_BIG": "123456789012345678901234567890",
		"ARG_YES": "true", "ARG_NO": "false", "ARG_LIST": `[1,"<a&b>",null]`, "ARG_MAP": `{"a":[],"z":"ü"}`,
		"ARG_NUL_INSIDE": `["\u0000"]`, "CONTEXT_SESSION_ID": "s",
	}
	if got := variables(t, e); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
}

func TestEnvironmentRefuses(t *testing.T) {
	for _, test := range []struct {
		e       Environment
		message string
	}{
		{Environment{Args: map[string]any{"a-b": "1", "a_B": "2"}}, `the arguments "a-b" and "a_B" would both be ARG_A_B in the tool's environment; rename one`},
		{Environment{Args: map[string]any{"a": nil, "A": "2"}}, `the arguments "A" and "a" would both be ARG_A in the tool's environment; rename one`},
		{Environment{Context: map[string]any{"a.b": "1", "a-b": "2"}}, `the context values "a-b" and "a.b" would both be CONTEXT_A_B in the tool's environment; rename one`},
		{Environment{Args: map[string]any{"a": "x\x00y"}}, `the argument "a" holds a NUL character, which no variable can`},
		{Environment{Context: map[string]any{"a": "\x00"}}, `the context value "a" holds a NUL character, which no variable can`},
		{Environment{Args: map[string]any{"a=b": "1"}}, `the argument "a=b" is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most`},
		{Environment{Args: map[string]any{"é": "1"}}, `the argument "é" is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most`},
		{Environment{Context: map[string]any{"": "1"}}, `the context value "" is not a name: a letter or _ first, then letters, digits, '_', '.' and '-', 64 at most`},
	} {
		list, err := test.e.Variables()
		if e := AsError(orNil(err)); list != nil || e.Code != InvalidArgs || e.Message != test.message {
			t.Errorf("%+v:\n got %v\nwant %s", test.e, err, test.message)
		}
	}
	same := Environment{Args: map[string]any{"a": "1"}, Context: map[string]any{"a": "2"}}
	if got := variables(t, same); got["ARG_A"] != "1" || got["CONTEXT_A"] != "2" {
		t.Errorf("an argument and a context value of one name: %v", got)
	}
}

// orNil lets AsError be asked about no error.
func orNil(err error) error {
	if err == nil {
		return fmt.Errorf("no error")
	}
	return err
}

// An entry that Linux would refuse is left out and named; what is left is passed on by execve.
func TestEnvironmentOmits(t *testing.T) {
	fits := strings.Repeat("x", maxElement-len("ARG_FITS=")-1) // the kernel counts the closing NUL
	e := Environment{
		Contract: Variables{"ARG_LARGE": "of the contract", "KEEP": "x"},
		Args:     map[string]any{"fits": fits, "above": fits, "large": strings.Repeat("x", 200<<10), "small": "x", "list": []any{strings.Repeat("x", 200<<10)}},
		Context:  map[string]any{"large": strings.Repeat("x", 200<<10)},
		ArgsEnv:  ArgsRaw, Declared: []string{"large", "small"},
		ArgsFile: "/args.json",
	}
	want := map[string]string{"KEEP": "x", "ARG_FITS": fits, "ARG_SMALL": "x", "small": "x", "ARGS_FILE": "/args.json",
		"ARGS_OMITTED": "ARG_ABOVE,ARG_LARGE,ARG_LIST,CONTEXT_LARGE,large"}
	got := variables(t, e)
	if !reflect.DeepEqual(got, want) {
		for name := range got {
			t.Errorf("%s: %d bytes", name, len(got[name]))
		}
		t.Errorf("ARGS_OMITTED=%s", got["ARGS_OMITTED"])
	}
	execute(t, e)
}

// execute starts a program with the environment: execve is the judge of what is too long.
func execute(t *testing.T, e Environment) {
	t.Helper()
	list, err := e.Variables()
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("true")
	if err != nil {
		t.Skip("SKIP: there is no program true to start: ", err)
	}
	if err := (&exec.Cmd{Path: path, Env: list}).Run(); err != nil {
		t.Errorf("with %d entries: %s", len(list), err)
	}
}

// All args and context together get 1 MiB as the kernel counts. What comes first in the order of names is kept.
func TestEnvironmentTotal(t *testing.T) {
	e := Environment{Args: map[string]any{}}
	for i := range 9 {
		e.Args[fmt.Sprint("a", i)] = strings.Repeat("x", maxElement-100)
	}
	e.Args["z"] = "small"
	got := variables(t, e)
	if got["ARGS_OMITTED"] != "ARG_A8" || got["ARG_Z"] != "small" || len(got["ARG_A7"]) != maxElement-100 {
		t.Errorf("%d variables, left out: %s", len(got), got["ARGS_OMITTED"])
	}
	execute(t, e)
}

// Very many small arguments: the kernel counts a pointer for each, and ARGS_OMITTED must not become too long itself.
func TestEnvironmentOfVeryManyArguments(t *testing.T) {
	e := Environment{Args: map[string]any{}}
	for i := range 150_000 {
		e.Args[fmt.Sprintf("a%06d", i)] = ""
	}
	got := variables(t, e)
	size := 0
	for name, value := range got {
		if name != "ARGS_OMITTED" {
			size += len(name) + len("=") + len(value) + entryOverhead
		}
	}
	if size > maxEnvironment || size < maxEnvironment-100 {
		t.Errorf("%d bytes of %d are used", size, maxEnvironment)
	}
	omitted := strings.Split(got["ARGS_OMITTED"], ",")
	if len(got["ARGS_OMITTED"]) > maxOmitted+len(",...") || omitted[len(omitted)-1] != "..." {
		t.Errorf("ARGS_OMITTED has %d bytes and ends in %s", len(got["ARGS_OMITTED"]), omitted[len(omitted)-1])
	}
	for _, name := range omitted[:len(omitted)-1] {
		if _, kept := got[name]; kept || len(name) != len("ARG_A000000") {
			t.Errorf("%s is named and kept, or cut", name)
		}
	}
	execute(t, e)
}

// args_env: raw gives declared parameters without a prefix, but nothing that changes how programs are found or run, and
// nothing that was set before.
func TestEnvironmentRaw(t *testing.T) {
	names := []string{"text", "NUMBER", "a-b", "PATH", "HOME", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH", "NODE_OPTIONS", "GIT_SSH_COMMAND", "PS4", "ARGS_FILE", "ARG_OTHER",
		"CONTEXT_X", "OPENSSL_CONF", "DYLD_INSERT_LIBRARIES", "JAVA_TOOL_OPTIONS", "npm_config_script_shell", "BASE", "CONTRACT", "PASSED", "null"}
	e := Environment{
		Base:        map[string]string{"BASE": "base"},
		Contract:    Variables{"CONTRACT": "contract"},
		Passthrough: map[string]string{"PASSED": "passed"},
		Args:        map[string]any{"undeclared": "evil"},
		Declared:    append(names, "absent"),
		ArgsEnv:     ArgsRaw,
	}
	for _, name := range names {
		e.Args[name] = "evil"
	}
	e.Args["text"], e.Args["NUMBER"], e.Args["null"] = "hello", json.Number("5"), nil

	got := variables(t, e)
	maps.DeleteFunc(got, func(name, _ string) bool { return strings.HasPrefix(name, "ARG_") && name != "ARG_OTHER" })
	want := map[string]string{"BASE": "base", "CONTRACT": "contract", "PASSED": "passed", "text": "hello", "NUMBER": "5"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
	e.ArgsEnv = ArgsPrefixed
	if got := variables(t, e); got["text"] != "" || got["ARG_TEXT"] != "hello" {
		t.Errorf("without raw: %v", got)
	}
}

func TestVariableName(t *testing.T) {
	for argument, want := range map[string]string{"a": "A", "input_file": "INPUT_FILE", "input-file": "INPUT_FILE", "a.b-c_D9": "A_B_C_D9", "é": "é"} {
		if got := VariableName(argument); got != want {
			t.Errorf("%s: %s, want %s", argument, got, want)
		}
	}
}
