package examples_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// natsBlock is a block of commands of a page, and what they print as the page says.
type natsBlock struct {
	line         int
	text, output string
}

// natsBlocks are the fenced blocks of a page with the info string "sh nats", and the single commands of nats in its other
// blocks. A fenced block of text behind one is what it prints.
func natsBlocks(page string) []natsBlock {
	var found []natsBlock
	kind, last := "", ""
	for i, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && kind == "":
			if kind = fence; kind == "" {
				kind = "nothing"
			}
			if kind == "sh nats" {
				found = append(found, natsBlock{line: i + 2})
			}
		case isFence:
			kind, last = "", kind
		case kind == "sh nats":
			found[len(found)-1].text += line + "\n"
		case kind == "text" && last == "sh nats":
			found[len(found)-1].output += line + "\n"
		case strings.HasPrefix(line, "    nats ") || kind == "sh" && strings.HasPrefix(line, "nats "):
			found = append(found, natsBlock{line: i + 1, text: strings.TrimSpace(line) + "\n"})
		}
	}
	return found
}

// TestPages runs the commands of nats that the pages show, and looks for what the pages say they print.
func TestPages(t *testing.T) {
	t.Parallel()
	nats := buildNATS(t)
	for page, least := range map[string]int{"../docs/tracing.md": 12, "../docs/quickstart.md": 2, "../README.md": 2} {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			blocks := natsBlocks(string(text))
			if len(blocks) < least {
				t.Errorf("only %d blocks", len(blocks))
			}
			var script strings.Builder
			script.WriteString("set -euo pipefail\n")
			for i, b := range blocks {
				fmt.Fprintf(&script, "echo '@@ %d'\n%s", i, b.text)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			home := t.TempDir()
			cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
			cmd.Dir = home
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(nats)+":"+os.Getenv("PATH"), "NATS_URL="+startDev(t, t.TempDir()).url,
				"HOME="+home, "XDG_CONFIG_HOME="+home)
			out, err := cmd.CombinedOutput() // nats shows headers on stderr
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			outputs := strings.Split(string(out), "@@ ")
			for i, b := range blocks {
				for said := range strings.Lines(b.output) {
					pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(said)), "…", ".*")
					if !regexp.MustCompile(pattern).MatchString(outputs[i+1]) {
						t.Errorf("%s:%d: does not print %q, but\n%s", page, b.line, said, outputs[i+1])
					}
				}
			}
		})
	}
}
