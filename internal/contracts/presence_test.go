package contracts

import (
	"errors"
	"testing"
)

func TestDecodeFollow(t *testing.T) {
	for _, test := range []struct {
		text    string
		want    Follow
		message string
	}{
		{`{"id":"a"}`, Follow{ID: "a"}, ""},
		{`{"id":"q1767225600-17","from":0}`, Follow{ID: "q1767225600-17"}, ""}, // ids that executors made can be followed
		{`{"id":"a","from":18446744073709551615,"attempt":2}`, Follow{ID: "a", From: 18446744073709551615, Attempt: 2}, ""},

		{`{"id":"a","snapshot":true,"skip_output":true}`, Follow{ID: "a", Snapshot: true, SkipOutput: true}, ""},

		{``, Follow{}, `the request is empty; it must be a JSON object (line 1, column 1)`},
		{`a`, Follow{}, `the request is not JSON: "a" is no value; write a number, true, false, null, or text in double quotes (line 1, column 1)`},
		{`{}`, Follow{}, `id: "" is not an id of a run`},
		{`"a"`, Follow{}, `the request is text ("a"); it must be a mapping (key: value) (line 1, column 1)`},
		{`{"id":"a b"}`, Follow{}, `id: "a b" is not an id of a run`},
		{`{"id":"a.>"}`, Follow{}, `id: "a.>" is not an id of a run`},
		{`{"id":5}`, Follow{}, `id: is the number 5; it must be text: write "5" in quotes`},
		{`{"id":"a","id":"b"}`, Follow{}, `id: is given twice, first in line 1; keep one`},
		{`{"id":"a","ID":"b"}`, Follow{}, `ID: unknown key; did you mean "id"?`},
		{`{"id":"a","from":-1}`, Follow{}, `from: is the number -1; it must be a whole number, not below 0`},
		{`{"id":"a","from":1.5}`, Follow{}, `from: is the number 1.5; it must be a whole number, not below 0`},
		{`{"id":"a","from":18446744073709551616}`, Follow{}, `from: is the number 18446744073709551616; it must be a whole number, not below 0`},
		{`{"id":"a","attempt":-1}`, Follow{}, `attempt: must not be below 0`},
		{`{"id":"a","attempt":"1"}`, Follow{}, `attempt: is text ("1"); it must be a whole number`},
		{`{"id":"a","snapshot":"true"}`, Follow{}, `snapshot: is text ("true"); it must be true or false`},
		{`{"id":"a","skip-output":true}`, Follow{}, `skip-output: unknown key; did you mean "skip_output"?`},
		{`{"id":"a"}{}`, Follow{}, `the request has more text after the JSON value (line 1, column 11)`},
	} {
		got, err := DecodeFollow([]byte(test.text))
		if test.message == "" {
			if err != nil || got != test.want {
				t.Errorf("%s: %+v, %v", test.text, got, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != InvalidRequest || e.Message != test.message {
			t.Errorf("%s:\n got %v\nwant %s", test.text, err, test.message)
		}
	}
}

func TestDecodeDiscover(t *testing.T) {
	for _, test := range []struct {
		text    string
		want    Discover
		message string
	}{
		{``, Discover{}, ""},
		{`{}`, Discover{}, ""},
		{`{"tool":""}`, Discover{}, ""},
		{`{"tool":"a"}`, Discover{Tool: "a"}, ""},
		{`{"as":"openai"}`, Discover{As: DialectOpenAI}, ""},
		{`{"as":"anthropic","tool":"a"}`, Discover{Tool: "a", As: DialectAnthropic}, ""},
		{`{"as":"mcp"}`, Discover{As: DialectMCP}, ""},

		{` `, Discover{}, `the question is empty; it must be a JSON object (line 1, column 1)`},
		{`tools`, Discover{}, `the question is not JSON: "tools" is no value; write a number, true, false, null, or text in double quotes (line 1, column 1)`},
		{`[]`, Discover{}, `the request is a list; it must be a mapping (key: value) (line 1, column 1)`},
		{`{"tol":"a"}`, Discover{}, `tol: unknown key; did you mean "tool"?`},
		{`{"tool":5}`, Discover{}, `tool: is the number 5; it must be text: write "5" in quotes`},
		{`{"tool":"a","tool":"b"}`, Discover{}, `tool: is given twice, first in line 1; keep one`},
		{`{"as":"gemini"}`, Discover{}, `as: there is no dialect "gemini"; there are openai, anthropic, mcp`},
		{`{"as":"OpenAI"}`, Discover{}, `as: there is no dialect "OpenAI"; there are openai, anthropic, mcp`},
		{`{"as":""}`, Discover{}, `as: there is no dialect ""; there are openai, anthropic, mcp`},
		{`{"as":null}`, Discover{}, `as: has no value; give it one or leave the key out`},
	} {
		got, err := DecodeDiscover([]byte(test.text))
		if test.message == "" {
			if err != nil || got != test.want {
				t.Errorf("%s: %+v, %v", test.text, got, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != InvalidRequest || e.Message != test.message {
			t.Errorf("%s:\n got %v\nwant %s", test.text, err, test.message)
		}
	}
}
