package docker

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/praxis-sdk/executor/internal/engines/docker/boot"
)

// TestSplitter: output and frames are told apart however the stream is cut, and whatever the output looks like.
func TestSplitter(t *testing.T) {
	mark := newMark()
	almost := append(bytes.Clone(mark[:len(mark)-1]), mark[len(mark)-1]+1)
	for name, output := range map[string][]byte{
		"nothing": nil, "text": []byte("some text\n"), "what begins like a mark": bytes.Repeat(mark[:5], 3), "almost a mark": almost, "a byte of it at the end": append([]byte("x"), mark[0]),
		"all but the end": bytes.Repeat(mark[:boot.MarkSize-1], 2), "many first bytes": bytes.Repeat(mark[:1], 100),
	} {
		t.Run(name, func(t *testing.T) {
			payload := boot.End{Code: 3, CPU: 17}.Encode()
			stream := append(boot.Frame(mark, boot.Ready, nil), output...)
			stream = append(stream, boot.Frame(mark, boot.Ended, payload)...)
			stream = append(stream, "what comes after the end"...)
			for range 200 {
				b := &box{frames: make(chan frame, 4)}
				var got bytes.Buffer
				s := &splitter{box: b}
				s.expect(mark)
				s.to(&got)
				for rest := stream; len(rest) > 0; {
					n := 1 + rand.IntN(min(len(rest), 1+rand.IntN(60)))
					if wrote, err := s.Write(rest[:n]); wrote != n || err != nil {
						t.Fatal(wrote, err)
					}
					rest = rest[n:]
				}
				s.close()
				if !bytes.Equal(got.Bytes(), output) {
					t.Fatalf("the output is %q, %q is right", got.Bytes(), output)
				}
				if len(b.frames) != 2 || (<-b.frames).kind != boot.Ready || !bytes.Equal((<-b.frames).payload, payload) {
					t.Fatal("the frames are not those that were sent")
				}
			}
		})
	}
	t.Run("an end without a frame loses nothing", func(t *testing.T) {
		var got bytes.Buffer
		s := &splitter{box: &box{frames: make(chan frame, 4)}}
		s.expect(mark)
		s.to(&got)
		s.Write(append([]byte("x"), mark[:7]...))
		s.close()
		if want := append([]byte("x"), mark[:7]...); !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%q", got.Bytes())
		}
	})
}
