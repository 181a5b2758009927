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
	frameAhead = 'A' // a sandbox for a later start, as a startRequest with nothing else
	frameStart = 'S' // startRequest, with the descriptors of stdin, stdout and stderr
	frameTerm  = 'T' // ask the tool to stop
	frameKill  = 'K' // end it
	frameBegun = 'B' // the id of the first process of a sandbox, in four bytes
	frameEnded = 'E' // ended, as JSON

	frameHeader = 5
	maxFrame    = 1 << 30 // the largest arguments there can be are a message of NATS, 64 MiB, with each byte escaped
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

	Args    string   // the content of the sandbox's file of arguments
	Cgroups []string // directories of the cgroups of the sandbox
	Tier    string   // how the sandbox is made
	Ahead   bool     // the sandbox is there, made ahead by the same plan
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
	ahead := ""
	if r.Ahead {
		ahead = "y"
	}
	lists := [...][]string{{r.Path, r.Dir, r.Remove, ahead, r.Args, r.Tier}, r.Argv, r.Env, r.Cgroups, r.Box}
	size := 0
	for _, list := range lists {
		size += 4
		for _, s := range list {
			size += 4 + len(s)
		}
	}
	text := make([]byte, 0, size)
	for _, list := range lists {
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
	names, argv, env, cgroups, box := list(), list(), list(), list(), list()
	if err != nil || len(names) != 6 || len(text) > 0 || names[3] != "" && names[3] != "y" {
		return startRequest{}, errBroken
	}
	r = startRequest{Path: names[0], Dir: names[1], Remove: names[2], Ahead: names[3] != "", Args: names[4], Tier: names[5], Argv: argv, Env: env}
	if len(cgroups) > 0 {
		r.Cgroups = cgroups
	}
	if len(box) > 0 {
		r.Box = box
	}
	return r, nil
}
