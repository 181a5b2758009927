package contracts

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// digest is that of a request as it comes over the bus.
func digest(t *testing.T, text string) string {
	t.Helper()
	r, err := DecodeRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r.Digest()
}

// The digest is stored with every run, and compared by executors of other versions: it must never change.
func TestDigestIsStable(t *testing.T) {
	for text, canonical := range map[string]string{
		`{"tool":"true"}`: `{"tool":"true"}`,
		`{"id":"01JD","tool":"true","args":{"b":"<ü>","a":5.0},"context":{"s":null},"stdin":"hi","timeout":5}`: `{"tool":"true","args":{"a":5.0,"b":"<ü>"},"context":{"s":null},"stdin":"aGk="}`,
		`{"contract":{"engine":"docker-sdk","name":"t","engine_spec":{"command":["a","<b>"],"image":"alpine","timeout":"1m"}}}`: `{"contract":{"name":"t","engine":"docker",` +
			`"engine_spec":{"command":["a","<b>"],"timeout":60,"image":"alpine"}}}`,
	} {
		sum := sha256.Sum256([]byte(canonical))
		if got, want := digest(t, text), "sha256:"+hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s is not the digest of %s", text, canonical)
		}
	}
	if got := digest(t, `{"tool":"true","args":{"a":"x","n":5}}`); got != "sha256:1ad341a43c3f0527f8cff8af00f2441180784ab85297c8e0d6693f81465f85d2" {
		t.Errorf("the digest of a known request is now %s", got)
	}
}

// What does not change what is asked for does not change the digest.
func TestDigestsThatAreEqual(t *testing.T) {
	for _, same := range [][]string{
		{
			`{"tool":"t","args":{"a":1,"b":{"c":2,"d":3}}}`,
			` { "args" : {"b":{"d":3,"c":2},"\u0061":1}, "tool":"t" } `,
			`{"tool":"t","args":{"a":1,"b":{"c":2,"d":3}},"id":"x","timeout":5,"priority":"low","reply_to":"_INBOX.x","labels":{"a":"b"},"fallback":["docker"],"deadline":"2026-01-01T00:00:00Z","queue_timeout":1}`,
		},
		{`{"tool":"t"}`, `{"tool":"t","args":{},"context":{},"stdin":""}`},
		{`{"tool":"t","stdin":"abc"}`, `{"tool":"t","stdin_base64":"YWJj"}`},
		{`{"tool":"t","args":{"a":"😀é"}}`, `{"tool":"t","args":{"a":"\ud83d\ude00\u00e9"}}`},
		{
			`{"contract":{"name":"t","engine":"docker","engine_spec":{"image":"a","command":["a"],"mounts":{"x":"/x:rw"},"cwd":"/y"},"parameters":[{"name":"p","required":true}]}}`,
			`{"contract":{"name":"t","engine":"docker-sdk","engine_spec":{"image":"a","command":["a"],"mounts":["x:/x:rw"],"working_dir":"/y"},"params":{"properties":{"p":{}},"required":["p"]}}}`,
		},
	} {
		for _, text := range same[1:] {
			if digest(t, text) != digest(t, same[0]) {
				t.Errorf("%s\nhas another digest than\n%s", text, same[0])
			}
		}
	}
}

// Whatever changes what is asked for changes the digest.
func TestDigestsThatDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{
		`{"tool":"t"}`,
		`{"tool":"u"}`,
		`{"tool":"t","version":"1"}`,
		`{"tool":"t","args":{"a":1}}`,
		`{"tool":"t","args":{"a":1.0}}`,
		`{"tool":"t","args":{"a":"1"}}`,
		`{"tool":"t","args":{"a":null}}`,
		`{"tool":"t","args":{"b":1}}`,
		`{"tool":"t","args":{"a":[1,2]}}`,
		`{"tool":"t","args":{"a":[2,1]}}`,
		`{"tool":"t","args":{"a":12345678901234567890123}}`,
		`{"tool":"t","args":{"a":12345678901234567890124}}`,
		`{"tool":"t","context":{"a":1}}`,
		`{"tool":"t","stdin":"x"}`,
		`{"tool":"t","stdin":"y"}`,
		`{"contract":{"name":"t","engine":"local","engine_spec":{"command":["t"]}}}`,
		`{"contract":{"name":"t","engine":"local","engineSpec":{"command":["t"]}}}`,
		`{"contract":{"name":"t","engine":"local","engine_spec":{"command":["t"]},"parameters":[]}}`,
		`{"contract":{"name":"t","engine":"local","engine_spec":{"command":"t","shell":true}}}`,
		`{"contract":{"name":"t","engine":"local","engine_spec":{"command":["t"],"capture_output":true}}}`,
	} {
		d := digest(t, text)
		if other, twice := seen[d]; twice {
			t.Errorf("%s\nhas the digest of\n%s", text, other)
		}
		seen[d] = text
	}
}

// The hot path of every request.
func BenchmarkRequest(b *testing.B) {
	for _, request := range []struct{ name, text string }{
		{"typical", `{"id":"01JD0123456789ABCDEFGHJKMN","tool":"true","args":{"a":"x","n":5}}`},
		{"contract", `{"id":"01JD0123456789ABCDEFGHJKMN","contract":{"name":"t","engine":"docker","engine_spec":{"image":"alpine","command":["sh","-c","date"],"timeout":5}},"args":{"a":"x"}}`},
		{"1MiB", `{"id":"01JD0123456789ABCDEFGHJKMN","tool":"cat","args":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`},
	} {
		text := []byte(request.text)
		b.Run(request.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := DecodeRequest(text)
				if err != nil {
					b.Fatal(err)
				}
				r.Digest()
			}
		})
	}
}
