//go:build linux

package local

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
)

func TestStartRequestSurvivesTheWire(t *testing.T) {
	for _, r := range []startRequest{
		{Argv: []string{}, Env: []string{}},
		{Path: "/bin/true", Argv: []string{"true", "", "a\nb", "caf\xe9"}, Env: []string{"A=\x01\xff", "B="}, Dir: "/tmp/\xff", Remove: "/data/1"},
		{Argv: []string{"a"}, Env: []string{}, Args: "{\"args\":{}}", Cgroups: []string{"/sys/fs/cgroup/x"}, Box: []string{"", "b"}, Ahead: true},
		{Path: strings.Repeat("x", 1<<20), Argv: []string{""}, Env: make([]string, 1000)},
	} {
		if got, err := decodeStart(r.encode()); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%.200v became %.200v, %v", r, got, err)
		}
	}
}

func FuzzDecodeStart(f *testing.F) {
	whole := startRequest{Path: "/bin/true", Argv: []string{"true", "x"}, Env: []string{"A=b"}, Dir: "/", Remove: "/data/1"}.encode()
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(append(bytes.Clone(whole), 0))
	f.Add([]byte(nil))
	f.Add(binary.LittleEndian.AppendUint32(nil, 1<<32-1))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0}, 100))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeStart(text)
		if err != nil {
			if !reflect.DeepEqual(r, startRequest{}) {
				t.Errorf("part of a broken message was taken: %v", r)
			}
			return
		}
		if again := r.encode(); !bytes.Equal(again, text) {
			t.Errorf("%q was read as %v, which is written %q", text, r, again)
		}
	})
}
