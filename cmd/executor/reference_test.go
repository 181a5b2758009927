package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas"
)

// updatePages is set by `make docs`.
var updatePages = flag.Bool("update", false, "write the generated pages of docs/ anew")

// samePage compares a generated page with what is there, or writes it.
func samePage(t *testing.T, file, text string) {
	t.Helper()
	if *updatePages {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // a page that all may read
			t.Fatal(err)
		}
		return
	}
	there, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, want := strings.Split(string(there), "\n"), strings.Split(text, "\n")
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%s differs from line %d on; write it anew with: make docs", file, i+1)
		}
	}
}

// TestCLIReference: docs/cli-reference.md is what the commands say about themselves.
func TestCLIReference(t *testing.T) {
	t.Setenv("HOME", "~") // defaults below it are the reader's
	t.Setenv("XDG_STATE_HOME", "")
	root := (&program{}).rootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	b.WriteString("# Command reference\n\nMade from the program by `make docs`; do not edit. [cli.md](cli.md) explains what the commands have in common.\n")
	write := func(c *cobra.Command) {
		if path := c.CommandPath(); c != root && c.IsAvailableCommand() && !strings.HasPrefix(path, "executor completion ") {
			describeCommand(&b, c)
		}
	}
	for _, group := range root.Groups() {
		fmt.Fprintf(&b, "\n**%s**", group.Title)
		for _, c := range root.Commands() {
			if c.GroupID == group.ID {
				fmt.Fprintf(&b, " [%s](#%s)", c.Name(), anchor(c.CommandPath()))
			}
		}
		b.WriteString("\n")
	}
	walk(root, write)
	samePage(t, "../../docs/cli-reference.md", b.String())
}

// walk calls do with a command and all below it.
func walk(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		walk(sub, do)
	}
}

func describeCommand(b *strings.Builder, c *cobra.Command) {
	c.InitDefaultHelpFlag()
	fmt.Fprintf(b, "\n## %s\n\n%s.\n\n    %s\n", c.CommandPath(), c.Short, c.UseLine())
	if c.Long != "" && c.Name() != "completion" {
		fmt.Fprintf(b, "\n%s\n", strings.ReplaceAll(c.Long, "|", "\\|"))
	}
	if c.Example != "" {
		b.WriteString("\nExamples:\n\n")
		for line := range strings.SplitSeq(c.Example, "\n") {
			fmt.Fprintf(b, "    %s\n", strings.TrimPrefix(line, "  "))
		}
	}
	var rows strings.Builder
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind != "" {
			name += " " + kind
		}
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "0s" && d != "[]" && !strings.Contains(usage, "default") {
			usage += " (default " + d + ")"
		}
		fmt.Fprintf(&rows, "| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", "\\|"))
	})
	if rows.Len() > 0 {
		b.WriteString("\n| flag | |\n|---|---|\n" + rows.String())
	}
}

// node is what the page takes from a JSON Schema.
type node struct {
	Title       string                     `json:"title"`
	Description string                     `json:"description"`
	Type        any                        `json:"type"`
	Ref         string                     `json:"$ref"`
	AnyOf       []node                     `json:"anyOf"`
	Enum        []any                      `json:"enum"`
	Items       *node                      `json:"items"`
	Properties  map[string]json.RawMessage `json:"properties"`
	Defs        map[string]node            `json:"$defs"`
}

// TestConfigurationReference: docs/configuration.md has every key of the configuration, with the description of the schema
// and the default of the program.
func TestConfigurationReference(t *testing.T) {
	text, err := schemas.Text("configuration")
	if err != nil {
		t.Fatal(err)
	}
	var schema node
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	p := &configurationPage{t: t, defs: schema.Defs}
	p.b.WriteString(configurationHead)
	p.section("", reflect.ValueOf(configs.Default()), schema)
	if p.keys < 50 {
		t.Errorf("only %d keys", p.keys)
	}
	samePage(t, "../../docs/configuration.md", p.b.String())
}

const configurationHead = `# Configuration

Made from the schema and the defaults by ` + "`make docs`" + `; do not edit. [configs/executor.yaml](../configs/executor.yaml) is the same as
a file to start from, with more words on when to change what.

` + "`executor serve --config FILE`" + ` and ` + "`executor dev --config FILE`" + ` read it; ` + "`executor validate --config FILE`" + ` checks it. Every key may be
left out; unknown keys are errors. What the command line says wins over the file. ` + "`executor dev`" + ` begins with other values for some
keys: [configs/development.yaml](../configs/development.yaml).

* **duration**: seconds (` + "`30`, `0.5`" + `) or text with units (` + "`1m30s`" + `).
* **size**: bytes (` + "`1048576`" + `) or text with a unit that counts in 1024 (` + "`512Mi`" + `).
* **variables**: ` + "`${NAME}`" + ` in a value stands for a variable of the environment, ` + "`${NAME:-text}`" + ` has a default for one that is not
  set. Without quotes the result may be a number or a truth value; in quotes it stays text.

` + "```yaml configuration" + `
nats:
  urls: ["nats://nats-0:4222", "nats://nats-1:4222"]
  password: "${NATS_PASSWORD:-}"
  user: executor
  streams: {reply_age: 48h, reply_bytes: 8Gi}
executor: {slots: 16}
tools:
  directories: [/etc/executor/tools]
` + "```" + `
`

type configurationPage struct {
	t    *testing.T
	b    strings.Builder
	defs map[string]node
	keys int
}

// section writes a mapping: a table of its values, then its own sections.
func (p *configurationPage) section(path string, v reflect.Value, n node) {
	var rows strings.Builder
	var later []func()
	seen := 0
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		if name == "-" {
			continue
		}
		raw, there := n.Properties[name]
		if !there {
			p.t.Errorf("the schema has no %s.%s", path, name)
			continue
		}
		seen++
		var one node
		if err := json.Unmarshal(raw, &one); err != nil {
			p.t.Fatal(err)
		}
		full := strings.TrimPrefix(path+"."+name, ".")
		if def, ok := p.defs[strings.TrimPrefix(one.Ref, "#/$defs/")]; ok && def.Properties != nil {
			field := v.Field(i)
			later = append(later, func() { p.section(full, field, def) })
			continue
		}
		if one.Description == "" {
			p.t.Errorf("the schema does not describe %s", full)
		}
		p.keys++
		fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", name, kindOf(v.Field(i).Type(), one), defaultOf(v.Field(i)), strings.ReplaceAll(one.Description, "|", "\\|"))
	}
	if seen != len(n.Properties) {
		p.t.Errorf("the schema has %d keys of %q, the program %d", len(n.Properties), path, seen)
	}
	if path != "" {
		fmt.Fprintf(&p.b, "\n## %s\n\n%s\n", path, n.Description)
	}
	if rows.Len() > 0 {
		p.b.WriteString("\n| key | type | default | meaning |\n|---|---|---|---|\n" + rows.String())
	}
	for _, f := range later {
		f()
	}
}

// kindOf names the type of a key.
func kindOf(t reflect.Type, n node) string {
	for _, one := range n.AnyOf {
		if len(one.Enum) > 0 {
			var values []string
			for _, v := range one.Enum {
				values = append(values, fmt.Sprintf("`%v`", v))
			}
			return strings.Join(values, ", ")
		}
	}
	switch t {
	case reflect.TypeFor[contracts.Duration]():
		return "duration"
	case reflect.TypeFor[contracts.Size]():
		return "size"
	case reflect.TypeFor[contracts.CPU]():
		return "processors"
	case reflect.TypeFor[contracts.Variables]():
		return "mapping"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "truth value"
	case reflect.Int, reflect.Int64:
		return "number"
	case reflect.Slice:
		return "list of text"
	}
	return "text"
}

// defaultOf shows a default as it is written in the file.
func defaultOf(v reflect.Value) string {
	switch d := v.Interface().(type) {
	case contracts.Duration:
		if d == 0 {
			return "`0`"
		}
		text := time.Duration(d).String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		return "`" + text + "`"
	case contracts.Size:
		for _, unit := range []struct {
			name  string
			bytes contracts.Size
		}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
			if d != 0 && d%unit.bytes == 0 {
				return fmt.Sprintf("`%d%s`", d/unit.bytes, unit.name)
			}
		}
		return fmt.Sprintf("`%d`", d)
	}
	if v.IsZero() && v.Kind() != reflect.Bool && v.Kind() != reflect.Int && v.Kind() != reflect.Int64 || v.Type() == reflect.TypeFor[contracts.CPU]() {
		return "none"
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return err.Error()
	}
	return "`" + strings.Trim(string(text), `"`) + "`"
}
