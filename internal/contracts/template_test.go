package contracts

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	args := map[string]any{"text": "a b; $(rm)", "empty": "", "n": json.Number("1.50"), "yes": true, "null": nil, "list": []any{"<", json.Number("1")},
		"map": map[string]any{"b": nil, "a": "ü"}, "a.b-c": "dots", "braces": "{{args.text}}"}
	context := map[string]any{"text": "of the context", "session": "s-17"}
	for _, test := range []struct{ argv, want []string }{
		{nil, []string{}},
		{[]string{"plain", ""}, []string{"plain", ""}},
		{[]string{"{{args.text}}"}, []string{"a b; $(rm)"}},
		{[]string{"{{context.text}}", "{{ context.session }}"}, []string{"of the context", "s-17"}},
		{[]string{"--in={{args.text}}!", "{{args.n}}{{args.n}}"}, []string{"--in=a b; $(rm)!", "1.501.50"}},
		{[]string{"{{  args.yes\t}}", "{{args.list}}", "{{args.map}}", "{{args.a.b-c}}"}, []string{"true", `["<",1]`, `{"a":"ü","b":null}`, "dots"}},

		// An element that is only the placeholder of an absent value goes; an empty value is there; elsewhere absent is nothing.
		{[]string{"a", "{{args.absent}}", "{{ args.null }}", "{{context.n}}", "b"}, []string{"a", "b"}},
		{[]string{"{{args.empty}}"}, []string{""}},
		{[]string{"--x={{args.absent}}", " {{args.absent}}", "{{args.absent}}{{args.null}}"}, []string{"--x=", " ", ""}},

		// It is no language: what is put in is not looked at again, and all else stays.
		{[]string{"{{args.braces}}"}, []string{"{{args.text}}"}},
		{[]string{"{{text}}", "{{env.HOME}}", "{{args}}", "{{args.}}", "{{args.1a}}", "{{args.a b}}", "{args.text}", "{{ARGS.text}}", "{{args.text|upper}}", "{{args.text}", "{{"},
			[]string{"{{text}}", "{{env.HOME}}", "{{args}}", "{{args.}}", "{{args.1a}}", "{{args.a b}}", "{args.text}", "{{ARGS.text}}", "{{args.text|upper}}", "{{args.text}", "{{"}},
		{[]string{"{{{args.n}}}"}, []string{"{1.50}"}},
	} {
		got, err := Expand(test.argv, args, context)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q:\n got %q, %v\nwant %q", test.argv, got, err, test.want)
		}
	}
}

func TestExpandRefuses(t *testing.T) {
	fits := strings.Repeat("x", maxElement-len("-x=")-1)
	args := map[string]any{"nul": "a\x00b", "fits": fits, "above": fits + "x"}
	if got, err := Expand([]string{"-x={{args.fits}}"}, args, nil); err != nil || len(got[0]) != maxElement-1 {
		t.Errorf("128 KiB less one byte, which the closing NUL takes: %v", err)
	}
	for element, message := range map[string]string{
		"{{args.nul}}":      `"{{args.nul}}" holds a NUL character, which no command can`,
		"-x={{args.above}}": `"-x={{args.above}}" is longer than 128 KiB, more than a command takes; let the tool read ARGS_FILE`,
	} {
		got, err := Expand([]string{"a", element}, args, nil)
		var e *Error
		if got != nil || !errors.As(err, &e) || e.Code != InvalidArgs || e.Message != message {
			t.Errorf("%s:\n got %v\nwant %s", element, err, message)
		}
	}
}
