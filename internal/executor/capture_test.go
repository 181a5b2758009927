package executor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/praxis-sdk/executor/internal/contracts"
)

func captured(most int, text string) *capture {
	c := &capture{most: most}
	c.add([]byte(text))
	return c
}

// encodedBytes is what both streams of a result take as JSON, without the quotes.
func encodedBytes(t testing.TB, r *contracts.Result) int {
	t.Helper()
	size := 0
	for _, v := range []any{r.Stdout, r.Stderr, r.StdoutBase64, r.StderrBase64} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			t.Fatal(err)
		}
		if text := strings.TrimSuffix(b.String(), "\n"); text != "null" {
			size += len(text) - 2
		}
	}
	return size
}

func TestFill(t *testing.T) {
	numbers := func(n int) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintln(&b, i)
		}
		return b.String()[:n]
	}
	for name, test := range map[string]struct {
		stdout, stderr string
		truncated      bool
	}{
		"empty":                               {"", "", false},
		"small":                               {"hello\n", "oops\n", false},
		"just fits":                           {numbers(750), "", false},
		"one long":                            {numbers(5000), "", true},
		"one long, one short":                 {numbers(5000), "short", true},
		"both long":                           {numbers(5000), numbers(7000), true},
		"control characters grow":             {strings.Repeat("\x01", 500), "", true},
		"no HTML escapes":                     {strings.Repeat("<", 1000), "", false},
		"wide characters":                     {strings.Repeat("€", 2000), strings.Repeat("😀", 2000), true},
		"not UTF-8":                           {strings.Repeat("\xff\x00", 200), "", false},
		"long and not UTF-8":                  {strings.Repeat("\xff\x00", 2000), "text", true},
		"not UTF-8 in the middle, which goes": {numbers(3000) + "\xff" + numbers(3000), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			const most = 1024
			var r contracts.Result
			fill(&r, captured(most, test.stdout), captured(most, test.stderr), most)
			if r.Truncated != test.truncated || r.StdoutBytes != int64(len(test.stdout)) || r.StderrBytes != int64(len(test.stderr)) {
				t.Errorf("%+v", r)
			}
			if size := encodedBytes(t, &r); size > most {
				t.Errorf("takes %d bytes of JSON, %d are allowed", size, most)
			}
			for _, part := range []struct {
				is     string
				base64 []byte
				was    string
			}{{r.Stdout, r.StdoutBase64, test.stdout}, {r.Stderr, r.StderrBase64, test.stderr}} {
				if part.base64 != nil && utf8.ValidString(part.was) {
					t.Error("text came as base64")
				}
				is := part.is + string(part.base64)
				if !test.truncated && is != part.was {
					t.Errorf("%q, want %q", is, part.was)
				}
				if is == part.was || part.base64 != nil {
					continue
				}
				var left int
				start, rest, cut := strings.Cut(is, "\n[… ")
				if !cut {
					t.Fatalf("nothing says that something is missing: %.60q", is)
				}
				fmt.Sscanf(rest, "%d", &left)
				_, end, _ := strings.Cut(rest, " bytes left out …]\n")
				if !strings.HasPrefix(part.was, start) || !strings.HasSuffix(part.was, end) || len(start)+len(end)+left != len(part.was) {
					t.Errorf("%d + %d + %d of %d bytes", len(start), left, len(end), len(part.was))
				}
			}
		})
	}
}

// A short stream leaves its half of the room to the other.
func TestFillSharesTheRoom(t *testing.T) {
	var r contracts.Result
	fill(&r, captured(1024, strings.Repeat("a", 900)), captured(1024, strings.Repeat("b", 5000)), 1024)
	if len(r.Stdout) > 600 || len(r.Stderr) < 300 {
		t.Errorf("%d and %d", len(r.Stdout), len(r.Stderr))
	}
	fill(&r, captured(1024, "tiny"), captured(1024, strings.Repeat("b", 5000)), 1024)
	if r.Stdout != "tiny" || len(r.Stderr) < 900 {
		t.Errorf("%d and %d", len(r.Stdout), len(r.Stderr))
	}
}

// However it is written, the first and the last part are kept, and memory is bounded.
func FuzzCapture(f *testing.F) {
	f.Add([]byte("hello wörld"), uint8(3), uint16(40))
	f.Fuzz(func(t *testing.T, data []byte, step uint8, most uint16) {
		c := &capture{most: int(most%512) + 2}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			c.add(rest[:n])
			rest = rest[n:]
		}
		first, last := c.parts()
		if len(first)+len(last) > c.most || cap(c.head)+cap(c.tail) > 4*c.most+64 {
			t.Fatalf("keeps %d bytes in %d, %d are allowed", len(first)+len(last), cap(c.head)+cap(c.tail), c.most)
		}
		if !bytes.HasPrefix(data, first) || !bytes.HasSuffix(data, last) {
			t.Fatalf("kept %q … %q of %q", first, last, data)
		}
		if len(data) <= c.most && !bytes.Equal(first, data) {
			t.Fatalf("kept %q of %q", first, data)
		}
		var r contracts.Result
		budget := int(most)%2000 + 200
		fill(&r, c, &capture{most: c.most}, budget)
		if size := encodedBytes(t, &r); size > budget {
			t.Fatalf("takes %d bytes of JSON, %d are allowed", size, budget)
		}
	})
}
