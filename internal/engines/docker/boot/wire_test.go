package boot

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

var full = Request{
	Mark: bytes.Repeat([]byte{MarkFirst}, MarkSize), Env: []string{"A=b", ""}, Argv: []string{"a", "\xff\x00"}, Dir: "/d", ArgsFile: "/a", ArgsText: []byte("{}"), Grace: time.Second, NoRoot: true, Kernel: "k",
	Mounts: []Mount{{"/m", 1, 1 << 63}}, Links: []Link{{"/l", "t"}}, Stdin: []byte{0, 1},
}

func TestWire(t *testing.T) {
	got, err := ReadRequest(bytes.NewReader(full.Encode()))
	if err != nil || !reflect.DeepEqual(*got, full) {
		t.Errorf("%+v, %v; %+v is right", got, err, full)
	}
	end := End{Code: 255, Signal: "SIGKILL", CPU: time.Hour, MaxRSS: 1 << 40, OOM: -1, Stopped: true, Error: "e", Errno: 8}
	if got, err := DecodeEnd(end.Encode()); err != nil || got != end {
		t.Errorf("%+v, %v; %+v is right", got, err, end)
	}
	refusal := Refusal{Denied: true, Message: "m"}
	if got, err := DecodeRefusal(refusal.Encode()); err != nil || got != refusal {
		t.Errorf("%+v, %v; %+v is right", got, err, refusal)
	}
	// Whatever is cut off, or too long, is an error.
	text := full.Encode()
	for n := range text {
		if _, err := ReadRequest(bytes.NewReader(text[:n])); err == nil {
			t.Errorf("a request of which %d of %d bytes are there is taken", n, len(text))
		}
	}
	if _, err := ReadRequest(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff})); err == nil {
		t.Error("a request of 4 GiB is taken")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(full.Encode()[4:])
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := decodeRequest(text)
		if err != nil {
			return
		}
		again, err := ReadRequest(bytes.NewReader(q.Encode()))
		if err != nil || !reflect.DeepEqual(q, again) {
			t.Errorf("%+v, %+v, %v", q, again, err)
		}
	})
}

func FuzzEnd(f *testing.F) {
	f.Add(End{Code: 1, OOM: -1, Error: "e"}.Encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = DecodeRefusal(text)
		end, err := DecodeEnd(text)
		if err != nil {
			return
		}
		if again, err := DecodeEnd(end.Encode()); err != nil || again != end {
			t.Errorf("%+v, %+v, %v", end, again, err)
		}
	})
}
