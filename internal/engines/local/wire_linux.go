package local

import (
	"encoding/binary"
	"errors"
	"time"
)

// A shim and its executor talk over a socket. The executor sends frames: a byte that says what, the length of a text in
// four bytes, the text. The shim answers a start with one frame when nothing of the tool is left; for a tool in a sandbox there
// is one before, when that has begun.
const (
	frameStart = 'S' // startRequest, with the descriptors of stdin, stdout and stderr
	frameTerm  = 'T' // ask the tool to stop
	frameKill  = 'K' // end it
	frameBegun = 'B' // the id of the first process of a sandbox, in four bytes
	frameEnded = 'E' // ended, as JSON

	frameHeader = 5
	maxFrame    = 16 << 20 // more than Linux takes as the arguments and environment of a program
)

func frameOf(kind byte, text []byte) []byte {
	frame := make([]byte, frameHeader, frameHeader+len(text))
	frame[0] = kind
	binary.LittleEndian.PutUint32(frame[1:], uint32(len(text)))
	return append(frame, text...)
}

// startRequest is what a shim is to start.
type startRequest struct {
	Path   string
	Argv   []string
	Env    []string
	Dir    string
	Remove string   // directory to remove if the executor dies meanwhile; "" for none
	Box    []string // a sandbox.Plan, encoded; none: an ordinary process
	Tier   string   // how that is to be made
}

// ended is how it went.
type ended struct {
	Error   string        `json:"error,omitempty"` // it could not be started
	Errno   int           `json:"errno,omitempty"` // why, where that is a system error
	Step    string        `json:"step,omitempty"`  // of making its sandbox, where that is what failed
	Status  int           `json:"status"`          // of wait4
	CPU     time.Duration `json:"cpu"`             // of the whole tree
	MaxRSS  int64         `json:"max_rss"`         // bytes, of the largest process of the tree; 0: no more than the shim had
	Stopped bool          `json:"stopped"`         // the executor had asked for the end
}

// encode writes the request as its strings, each after its length. It is not JSON, which cannot hold names that are not
// UTF-8: paths and variables of the operator may be any bytes.
func (r startRequest) encode() []byte {
	size := 0
	for _, list := range [][]string{{r.Path, r.Dir, r.Remove, r.Tier}, r.Argv, r.Env, r.Box} {
		size += 4
		for _, s := range list {
			size += 4 + len(s)
		}
	}
	text := make([]byte, 0, size)
	for _, list := range [][]string{{r.Path, r.Dir, r.Remove, r.Tier}, r.Argv, r.Env, r.Box} {
		text = binary.LittleEndian.AppendUint32(text, uint32(len(list)))
		for _, s := range list {
			text = binary.LittleEndian.AppendUint32(text, uint32(len(s)))
			text = append(text, s...)
		}
	}
	return text
}

var errBroken = errors.New("a broken message")

// decodeStart reads what encode wrote.
func decodeStart(text []byte) (r startRequest, err error) {
	number := func() (n int) {
		if len(text) < 4 {
			err = errBroken
			return 0
		}
		n = int(binary.LittleEndian.Uint32(text))
		if text = text[4:]; n < 0 || n > len(text) {
			err = errBroken
			return 0
		}
		return n
	}
	list := func() []string {
		n := number()
		if n > len(text)/4 {
			err = errBroken
			return nil
		}
		strings := make([]string, n)
		for i := range strings {
			size := number()
			strings[i], text = string(text[:size]), text[size:]
		}
		return strings
	}
	names, argv, env, box := list(), list(), list(), list()
	if err != nil || len(names) != 4 || len(text) > 0 {
		return startRequest{}, errBroken
	}
	if len(box) == 0 {
		box = nil
	}
	return startRequest{Path: names[0], Dir: names[1], Remove: names[2], Tier: names[3], Argv: argv, Env: env, Box: box}, nil
}
