package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas"
)

// pages are those that users read.
func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(list, "../../README.md", "../../CHANGELOG.md", "../../examples/README.md")
}

func readPage(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// prose is a page without its code.
func prose(page string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			b.WriteString(regexp.MustCompile("`[^`\n]*`").ReplaceAllStringFunc(line, func(code string) string {
				return strings.NewReplacer("[", " ", "]", " ", "(", " ", ")", " ").Replace(code)
			}))
		}
	}
	return b.String()
}

// headings are the headings of a page, without their marks.
func headings(page string) []string {
	var list []string
	for line := range strings.Lines(prose(page)) {
		if text, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			list = append(list, strings.TrimSpace(text))
		}
	}
	return list
}

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

// anchors are those of a page: a heading that comes again is numbered.
func anchors(page string) []string {
	var list []string
	times := map[string]int{}
	for _, h := range headings(page) {
		a := anchor(h)
		if n := times[a]; n > 0 {
			list = append(list, fmt.Sprintf("%s-%d", a, n))
		} else {
			list = append(list, a)
		}
		times[a]++
	}
	return list
}

var linked = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks: every relative link of the pages leads to a file, and every anchor to a heading.
func TestLinks(t *testing.T) {
	count := 0
	for _, page := range pages(t) {
		for _, m := range linked.FindAllStringSubmatch(prose(readPage(t, page)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			count++
			file, fragment, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
				continue
			}
			if fragment == "" {
				continue
			}
			if !slices.Contains(anchors(readPage(t, target)), fragment) {
				t.Errorf("%s: %s has no heading for the link %s", page, target, m[1])
			}
		}
	}
	if count < 60 {
		t.Errorf("only %d links", count)
	}
}

// TestTroubleshooting: the page has a heading for every code and every status, and for no other.
func TestTroubleshooting(t *testing.T) {
	page := readPage(t, "../../docs/troubleshooting.md")
	for part, want := range map[string][]string{
		"Statuses":    words(contracts.Statuses),
		"Error codes": words(contracts.Codes),
	} {
		_, text, found := strings.Cut(page, "\n## "+part+"\n")
		text, _, _ = strings.Cut(text, "\n## ")
		if !found {
			t.Errorf("there is no part %s", part)
		}
		var got []string
		for _, m := range regexp.MustCompile("(?m)^### (.*)$").FindAllStringSubmatch(text, -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: the headings are %v, not %v", part, got, want)
		}
	}
}

func words[T ~string](list []T) []string {
	var all []string
	for _, one := range list {
		all = append(all, string(one))
	}
	return all
}

// TestContractKeys: docs/contracts.md names every key of a contract.
func TestContractKeys(t *testing.T) {
	text, err := schemas.Text("contract")
	if err != nil {
		t.Fatal(err)
	}
	var schema any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	var look func(v any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if properties, ok := v["properties"].(map[string]any); ok {
				for key := range properties {
					keys[key] = !strings.HasPrefix(key, "$")
				}
			}
			for _, one := range v {
				look(one)
			}
		case []any:
			for _, one := range v {
				look(one)
			}
		}
	}
	look(schema)
	if len(keys) < 40 {
		t.Errorf("only %d keys", len(keys))
	}
	page := readPage(t, "../../docs/contracts.md")
	var examples strings.Builder
	for _, m := range regexp.MustCompile("(?s)```yaml contract\n(.*?)```").FindAllStringSubmatch(page, -1) {
		examples.WriteString(m[1])
	}
	for key, real := range keys {
		if !real { // of a schema whose key is called properties
			continue
		}
		if !strings.Contains(page, "`"+key+"`") {
			t.Errorf("docs/contracts.md does not explain the key %s", key)
		}
		if !regexp.MustCompile(`(?m)(^|[\s{,-])` + key + `:`).MatchString(examples.String()) {
			t.Errorf("docs/contracts.md has no example with the key %s", key)
		}
	}
}

// TestJSONShapes: the JSON in docs/cli.md has no field that the commands do not print.
func TestJSONShapes(t *testing.T) {
	shapes := []any{&client.Accepted{}, &outputDocument{}, &cancelled{}, &unfinished{}, &deadList{}, &deadShown{}, &replayed{}, &deadRemoved{}, &registered{}, &provisioned{}, &struct{ Findings []finding }{}}
	blocks := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(readPage(t, "../../docs/cli.md"), -1)
	if len(blocks) != len(shapes) {
		t.Fatalf("%d blocks of JSON, not %d", len(blocks), len(shapes))
	}
	for i, b := range blocks {
		decoder := json.NewDecoder(strings.NewReader(b[1]))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(shapes[i]); err != nil {
			t.Errorf("%T: %v in %s", shapes[i], err, b[1])
		}
	}
}

// commandBlock is a block of commands of a page, and what they print as the page says.
type commandBlock struct {
	line         int
	text, output string
}

// commandBlocks are the blocks of commands of a page: indented ones, and fenced ones of sh. A fenced block of text behind one
// is what it prints.
func commandBlocks(page string) []commandBlock {
	var found []commandBlock
	kind, last := "", ""
	for i, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case isFence && kind == "":
			if kind = fence; kind == "" {
				kind = "nothing"
			}
			if kind == "sh" {
				found = append(found, commandBlock{line: i + 2})
			}
		case isFence:
			kind, last = "", kind
		case kind == "sh":
			found[len(found)-1].text += line + "\n"
		case kind == "text" && last == "sh":
			found[len(found)-1].output += line + "\n"
		case kind != "":
		case indented && last == "indented":
			found[len(found)-1].text += code + "\n"
		case indented:
			last = "indented"
			found = append(found, commandBlock{line: i + 1, text: code + "\n"})
		case strings.TrimSpace(line) != "":
			last = ""
		}
	}
	return found
}

// The way in which the commands of pages are run. dev and serve go on; they are started beside, on free ports, and end with
// the script.
const pagePrelude = `
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
await() { # until a command works
  for deadline in $(seq 2000); do if "$@" >/dev/null 2>&1; then return; fi; read -t 0.01 <> <(:) || true; done
  echo "not in time: $*" >&2; cat "$XDG_STATE_HOME"/*.log >&2; exit 1
}
dev() {
  "$PWD/bin/executor" dev --data "$XDG_STATE_HOME/executor" --nats-port -1 --http off "$@" >"$XDG_STATE_HOME/dev.out" &
  await test -e "$XDG_STATE_HOME/executor/dev.url"
}
serve() {
  "$PWD/bin/executor" serve --data "$XDG_STATE_HOME/serve" --http "127.0.0.1:$PORT" --name second "$@" 2>"$XDG_STATE_HOME/serve.log" &
  await bin/executor healthcheck --url "http://127.0.0.1:$PORT/readyz"
}
`

// TestCommandsOfPages runs the commands of README.md and docs/quickstart.md, all of a page in one shell, in a folder that
// looks as the repository does. Those of nats are run in examples/, where there is a nats; make only says what it would do.
func TestCommandsOfPages(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "docs/quickstart.md"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			likeRepository(t, dir, root)
			blocks := commandBlocks(readPage(t, filepath.Join(root, name)))
			var script strings.Builder
			script.WriteString(pagePrelude)
			commands := 0
			for i, b := range blocks {
				fmt.Fprintf(&script, "echo '@@ %d'\n", i)
				for line := range strings.Lines(b.text) {
					line, n := runnable(line, root)
					script.WriteString(line)
					commands += n
				}
			}
			if commands < 4 {
				t.Errorf("only %d commands", commands)
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-c", script.String())
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, "state"), fmt.Sprintf("PORT=%d", freePort(t)), "NATS_REPLICAS=1")
			cmd.WaitDelay = 30 * time.Second
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s\n%s\n%s", err, &script, &stdout, &stderr)
			}
			outputs := strings.Split(stdout.String(), "@@ ")
			for i, b := range blocks {
				if missing := unsaid(b.output, outputs[i+1]); missing != "" {
					t.Errorf("%s:%d: does not print %q, but\n%s\n%s", name, b.line, missing, outputs[i+1], &stderr)
				}
			}
		})
	}
}

// likeRepository makes what the commands of pages need of the repository.
func likeRepository(t *testing.T, dir, root string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "configs"), os.DirFS(filepath.Join(root, "configs"))); err != nil {
		t.Fatal(err)
	}
	production := filepath.Join(dir, "configs", "production.yaml")
	text := readPage(t, production)
	text = strings.NewReplacer("/etc/executor/tools", filepath.Join(dir, "configs", "tools", "system_info"),
		"/usr/share/executor/tools", filepath.Join(dir, "configs", "tools", "text_analyzer")).Replace(text) // as the image has them
	for file, text := range map[string]string{production: text, filepath.Join(dir, "bin", "executor"): fmt.Sprintf("#!/bin/sh\n%s=1 exec %q \"$@\"\n", asProgram, self)} {
		if err := os.WriteFile(file, []byte(text), 0o700); err != nil { //nolint:gosec // a script
			t.Fatal(err)
		}
	}
}

// runnable is a line of a page as the test runs it, and 1 if it is a command of the program.
func runnable(line, root string) (string, int) {
	switch word, rest, _ := strings.Cut(strings.TrimSpace(line), " "); {
	case word == "make" && rest == "run":
		return "make -n -C " + root + " run | grep 'bin/executor dev --tools configs/tools' >/dev/null\ndev --tools configs/tools\n", 1
	case word == "make":
		return "make -n -C " + root + " " + rest + " >/dev/null\n", 1
	case word == "nats":
		return "\n", 0
	case word == "export" && strings.HasPrefix(rest, "NATS_URL="):
		return "export NATS_URL=$(cat \"$XDG_STATE_HOME/executor/dev.url\")\n", 0
	case strings.HasPrefix(line, "bin/executor dev "), strings.HasPrefix(line, "bin/executor serve "):
		return strings.TrimPrefix(line, "bin/executor "), 1
	}
	return line, strings.Count(line, "bin/executor ")
}

// unsaid is the first line of what a page says that is not in an output; … stands for anything.
func unsaid(said, output string) string {
	for line := range strings.Lines(said) {
		var pattern strings.Builder
		for i, part := range strings.Split(strings.TrimSpace(line), "…") {
			if i > 0 {
				pattern.WriteString(".*")
			}
			pattern.WriteString(regexp.QuoteMeta(part))
		}
		if !regexp.MustCompile(pattern.String()).MatchString(output) {
			return line
		}
	}
	return ""
}
