package contracts

import (
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestParseYAML(t *testing.T) {
	for text, want := range map[string]string{
		"":                         ``,
		"# nothing\n---\n---\n...": ``,
		"a: 1\n---\n- b\n---\n":    `1:1{1:1!str"a" 1:4!int"1"} 3:1[3:3!str"b"]`,
		"é: {\"ü\": x}":            `1:1{1:1!str"é" 1:4{1:5!str"ü" 1:10!str"x"}}`, // columns count characters
		"- !!str 1\n- ! x\n- !!int 5\n- !!float 5\n- !<tag:yaml.org,2002:int> 5\n- !!map {}\n- !!seq []": `1:1[1:3!str"1" 2:3!str"x" 3:3!int"5" 4:3!float"5" 5:3!int"5" 6:3{} 7:3[]]`,
		"[yes, on, y, True, ~, '', 2026-01-31, 1:30, 0x1f, .inf]": `1:1[1:2!str"yes" 1:7!str"on" 1:11!str"y" 1:14!bool"True" 1:20!null"~" 1:23!str"" 1:27!timestamp"2026-01-31" ` +
			`1:39!str"1:30" 1:45!int"0x1f" 1:51!float".inf"]`,

		// Aliases are followed; what they name keeps its place. Merge keys add what is not written out, the first first.
		"a: &x b\n*x : *x":          `1:1{1:1!str"a" 1:4!str"b" 1:4!str"b" 1:4!str"b"}`,
		"a: &x {b: 1}\nc: [*x, *x]": `1:1{1:1!str"a" 1:4{1:8!str"b" 1:11!int"1"} 2:1!str"c" 2:4[1:4{1:8!str"b" 1:11!int"1"} 1:4{1:8!str"b" 1:11!int"1"}]}`,
		"- &x {a: 1, b: 1}\n- &y {b: 2, c: 2}\n- {<<: [*x, *y], a: 0, d: 0}": `1:1[1:3{1:7!str"a" 1:10!int"1" 1:13!str"b" 1:16!int"1"} 2:3{2:7!str"b" 2:10!int"2" 2:13!str"c" 2:16!int"2"} ` + `3:3{3:18!str"a" 3:21!int"0" 3:24!str"d" 3:27!int"0" 1:13!str"b" 1:16!int"1" 2:13!str"c" 2:16!int"2"}]`,
		"{'<<': 1, a: <<}": `1:1{1:2!str"<<" 1:8!int"1" 1:11!str"a" 1:14!str"<<"}`,
	} {
		documents, err := ParseYAML("f", []byte(text))
		if err != nil {
			t.Errorf("%q: %s", text, err)
			continue
		}
		shown := make([]string, len(documents))
		for i, n := range documents {
			shown[i] = show(n)
		}
		if got := strings.Join(shown, " "); got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// Nothing is shared between the places of an alias: configuration puts ${VAR} in place in the tree.
func TestParseYAMLCopiesAliases(t *testing.T) {
	documents, err := ParseYAML("f", []byte("a: &x {k: [v]}\nb: *x\nc: {<<: *x}"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*yaml.Node]bool{}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if seen[n] {
			t.Errorf("%s stands at two places", show(n))
		}
		seen[n] = true
		for _, one := range n.Content {
			walk(one)
		}
	}
	walk(documents[0])
	if n, path := Locate(documents[0], "c", "k"); path != "c.k" || show(n) != `1:11[1:12!str"v"]` {
		t.Errorf("%s at %s", show(n), path)
	}
	if n, path := Locate(documents[0], "b", "no", "more"); path != "b.no" || n.Line != 1 {
		t.Errorf("%s at %s", show(n), path)
	}
}

// The limits hold for YAML as for JSON.
func TestYAMLLimits(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	wide := func(n int) string { return "- 1\n" + strings.Repeat("- 1\n", n-2) } // the list is a value too
	for text, ok := range map[string]bool{
		deep(32): true, deep(33): false, deep(9000): false, deep(20000): false,
		"a: &a " + deep(15) + "\nb: &b {c: *a}\n": true,
		"a: &a " + deep(30) + "\nb: [[*a]]":       false, // 33 levels by way of the alias
		wide(maxNodes):                            true,
		wide(maxNodes + 1):                        false,
	} {
		documents, err := ParseYAML("f", []byte(text))
		if (err == nil) != ok || ok != (len(documents) == 1) {
			t.Errorf("%.30q… (%d bytes): %v", text, len(text), err)
		}
	}
}
