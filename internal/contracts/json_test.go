package contracts

import (
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// show writes a tree as one line, every value with its place.
func show(n *yaml.Node) string {
	at := fmt.Sprintf("%d:%d", n.Line, n.Column)
	if n.Kind == yaml.ScalarNode {
		return fmt.Sprintf("%s%s%q", at, strings.TrimPrefix(n.Tag, "!"), n.Value)
	}
	parts := make([]string, len(n.Content))
	for i, one := range n.Content {
		parts[i] = show(one)
	}
	if n.Kind == yaml.MappingNode {
		return at + "{" + strings.Join(parts, " ") + "}"
	}
	return at + "[" + strings.Join(parts, " ") + "]"
}

func TestParseJSON(t *testing.T) {
	for text, want := range map[string]string{
		`null`:  `1:1!null"null"`,
		` true`: `1:2!bool"true"`,
		"{\n  \"é\": [1, -2.5e3, \"a\\nb\"],\r\n\t\"b\" : {}, \"c\":[ ]\n}": `1:1{2:3!str"é" 2:8[2:9!int"1" 2:12!float"-2.5e3" 2:20!str"a\nb"] 3:2!str"b" 3:8{} 3:12!str"c" 3:16[]}`,
		`"\u00e9\ud83d\ude00\/\b"`:    `1:1!str"é😀/\b"`,
		`"\ufffd` + "\ufffd" + `\\u"`: `1:1!str"��\\u"`,
		`"\\ud83d"`:                   `1:1!str"\\ud83d"`,
		`{"<<":{"a":1},"":0}`:         `1:1{1:2!str"<<" 1:7{1:8!str"a" 1:12!int"1"} 1:15!str"" 1:18!int"0"}`,
		`{"a":1,"a":2}`:               `1:1{1:2!str"a" 1:6!int"1" 1:8!str"a" 1:12!int"2"}`, // found by whoever decodes it
		`[0,-0,0.0,1E5,1e-5,10]`:      `1:1[1:2!int"0" 1:4!int"-0" 1:7!float"0.0" 1:11!float"1E5" 1:15!float"1e-5" 1:20!int"10"]`,
		strings.Repeat("[", 32) + "1" + strings.Repeat("]", 32): func() string {
			s := "1:33!int\"1\""
			for i := 32; i > 0; i-- {
				s = fmt.Sprintf("1:%d[%s]", i, s)
			}
			return s
		}(),
	} {
		n, err := ParseJSON("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %s", text, err)
		} else if got := show(n); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	const word = "is no value; write a number, true, false, null, or text in double quotes"
	const escape = `is not JSON: a string holds an unknown escape; there are \" \\ \/ \b \f \n \r \t and \u0000 to \uffff`
	const pair = `holds half of a surrogate pair (\ud800 to \udfff) in a string; write the character itself, or both halves`
	for text, want := range map[string]string{
		"":                      `1:1: is empty; it must be a JSON object`,
		"\t\n":                  `1:1: is empty; it must be a JSON object`,
		`{`:                     `1:2: is not JSON: the text ends in the middle of a value`,
		`{"a`:                   `1:4: is not JSON: the text ends in the middle of a value`,
		`{"a\`:                  `1:5: is not JSON: the text ends in the middle of a value`,
		`{"a":`:                 `1:6: is not JSON: the text ends in the middle of a value`,
		`[1,`:                   `1:4: is not JSON: the text ends in the middle of a value`,
		`{"a" 1}`:               `1:6: is not JSON: a colon should be here, after the key`,
		`{"a":1 "b":2}`:         `1:8: is not JSON: a comma or } should be here`,
		`[1 2]`:                 `1:4: is not JSON: a comma or ] should be here`,
		`[1}`:                   `1:3: is not JSON: a comma or ] should be here`,
		`[1,]`:                  `1:3: is not JSON: a comma stands before ]; leave it out`,
		`{"a":1, }`:             `1:7: is not JSON: a comma stands before }; leave it out`,
		`[,1]`:                  `1:2: is not JSON: a value should be here`,
		`{,}`:                   `1:2: is not JSON: a key should be here, in double quotes`,
		`{1:2}`:                 `1:2: is not JSON: a key should be here, in double quotes`,
		`]`:                     `1:1: is not JSON: a value should be here`,
		"{\n \"é\": tru}":       `2:7: is not JSON: "tru" ` + word,
		`[nul]`:                 `1:2: is not JSON: "nul" ` + word,
		`[NaN]`:                 `1:2: is not JSON: "NaN" ` + word,
		`[-]`:                   `1:2: is not JSON: "-" ` + word,
		`[01]`:                  `1:2: is not JSON: "01" ` + word,
		`[+1]`:                  `1:2: is not JSON: "+1" ` + word,
		`[1.]`:                  `1:2: is not JSON: "1." ` + word,
		`[.5]`:                  `1:2: is not JSON: ".5" ` + word,
		`[1e]`:                  `1:2: is not JSON: "1e" ` + word,
		`[0x10]`:                `1:2: is not JSON: "0x10" ` + word,
		`['a']`:                 `1:2: is not JSON: "'a'" ` + word,
		"[\u00a01]":             `1:2: is not JSON: "\u00a01" ` + word,
		"[\"a\tb\"]":            `1:4: is not JSON: a string holds the control character U+0009; write \u0009`,
		"[\"\x00\"]":            `1:3: is not JSON: a string holds the control character U+0000; write \u0000`,
		`["\x"]`:                `1:2: ` + escape,
		`["\u12"]`:              `1:2: ` + escape,
		`["\u+123"]`:            `1:2: ` + escape,
		`["\U0001"]`:            `1:2: ` + escape,
		`["é\ud800"]`:           `1:2: ` + pair,
		`["\udc00"]`:            `1:2: ` + pair,
		`["\ud800\ud800"]`:      `1:2: ` + pair,
		`["\ud800x\udc00"]`:     `1:2: ` + pair,
		`["\ud83d\ude00\udc"]`:  `1:2: ` + escape,
		`["\\\ud83d"]`:          `1:2: ` + pair,
		"[\"\xc3\"]":            `1:3: is not UTF-8 text`,
		"[]\xff":                `1:3: is not UTF-8 text`,
		"[\"\xed\xa0\x80\"]":    `1:3: is not UTF-8 text`, // a surrogate half as UTF-8
		`1 2`:                   `1:3: has more text after the JSON value`,
		"{}\n\n ]":              `3:2: has more text after the JSON value`,
		"\ufeff{}":              `1:1: begins with a byte order mark (U+FEFF); leave it out`,
		strings.Repeat("[", 33): `1:33: is nested deeper than 32 levels; make it flatter`,
		"[" + strings.Repeat("0,", maxNodes) + "0]": fmt.Sprintf(`1:%d: has more than 200000 values`, 2+2*(maxNodes-1)),
	} {
		n, err := ParseJSON("f", []byte(text))
		if err == nil {
			t.Errorf("%.40q is accepted: %s", text, show(n))
		} else if got := strings.TrimPrefix(err.Error(), "f:"); got != want || n != nil {
			t.Errorf("%.40q:\n got %s\nwant %s", text, got, want)
		}
	}
}
