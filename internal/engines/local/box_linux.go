package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/praxis-sdk/executor/internal/engines/local/sandbox"
)

// shimBoxes are the sandboxes of a shim that have no tool: one that waits for its own, and those in which nothing is left and which
// the kernel has yet to end. That can take long, as with a mount that hangs, and is waited for by nobody.
type shimBoxes struct {
	plan    *sandbox.Plan    // of the one that waits, or waited last
	waiting *sandbox.Process // nil: none does
	leaving map[int]*sandbox.Process
}

// make makes one ahead of its run, instead of what there was. What fails now is tried again by the run that needs it.
func (b *shimBoxes) make(plan []string) {
	b.end()
	var err error
	if b.plan, err = sandbox.Decode(plan); err == nil {
		if one, err := sandbox.Make(b.plan, sandbox.Ahead); err == nil {
			b.waiting = one
		}
	}
}

// end ends the one that waits.
func (b *shimBoxes) end() {
	if b.waiting != nil {
		unix.Kill(b.waiting.PID, unix.SIGKILL)
		b.leave(b.waiting)
		b.waiting = nil
	}
}

// leave lets one go that ends, or has ended.
func (b *shimBoxes) leave(one *sandbox.Process) {
	if b.leaving == nil {
		b.leaving = map[int]*sandbox.Process{}
	}
	b.leaving[one.PID] = one
	b.collect()
}

// collect collects those that have ended. Until then their ids are nobody else's.
func (b *shimBoxes) collect() {
	for pid := range b.leaving {
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); got == pid || err == unix.ECHILD {
			b.gone(pid)
		}
	}
}

// gone reports whether a process that was collected was one of those that leave.
func (b *shimBoxes) gone(pid int) bool {
	one := b.leaving[pid]
	if one != nil {
		one.Close()
		delete(b.leaving, pid)
	}
	return one != nil
}

// holds reports whether a process is one of them.
func (b *shimBoxes) holds(pid int) bool {
	return b.leaving[pid] != nil || b.waiting != nil && b.waiting.PID == pid
}

// close ends all, and waits for that as long as a sandbox may take.
func (b *shimBoxes) close() {
	b.end()
	for deadline := time.Now().Add(boxTime); len(b.leaving) > 0 && time.Now().Before(deadline); b.collect() {
		for _, one := range b.leaving {
			unix.Poll([]unix.PollFd{{Fd: int32(one.PidFD), Events: unix.POLLIN}}, 20)
			break
		}
	}
}

// startBox starts a tool in the sandbox that was made ahead for it, or in one that it makes. Before, it says which process that
// is: if this one is killed, the executor has to wait for the end of that.
func (s *shim) startBox(start startRequest, files []int) (err error) {
	tool := sandbox.Tool{Path: start.Path, Argv: start.Argv, Env: start.Env, Dir: start.Dir, Args: []byte(start.Args), Cgroups: start.Cgroups, Streams: [3]int(files)}
	plan := s.boxes.plan
	if !start.Ahead {
		plan, err = sandbox.Decode(start.Box)
	} else if plan == nil {
		err = errBroken
	}
	if err == nil {
		switch start.Tier {
		case TierNamespaces:
			err = s.enterNamespaces(start, plan, tool)
		case TierBubblewrap:
			s.boxes.end()
			if s.room, err = openRoom(plan); err == nil {
				tellBox(s.room.first)
				s.box, err = sandbox.Enter(plan, s.room.pidfd, tool)
			}
		case TierLandlock:
			s.boxes.end()
			s.box, err = sandbox.Restrict(plan, tool)
		default:
			err = fmt.Errorf("there is no tier %q", start.Tier)
		}
	}
	if err != nil {
		s.box = nil
		s.endAll() // of what was to hold it
		s.ended.Step = "start"
		var failed *sandbox.StepError
		if errors.As(err, &failed) {
			s.ended.Step, err = failed.Step, failed.Errno
		}
		return err
	}
	s.first, s.pidfd = s.box.PID, s.box.PidFD
	return nil
}

func (s *shim) enterNamespaces(start startRequest, plan *sandbox.Plan, tool sandbox.Tool) (err error) {
	s.boxed = true
	if start.Ahead && s.boxes.waiting != nil && s.boxes.waiting.Waits(tool) {
		s.box, s.boxes.waiting = s.boxes.waiting, nil
	} else {
		s.boxes.end()
		if s.box, err = sandbox.Make(plan, tool.Room()); err != nil {
			return err
		}
	}
	tellBox(s.box.PID)
	return s.box.Enter(tool)
}

// tellBox says which the first process of a sandbox is.
func tellBox(pid int) {
	_ = sendFrame(frameBegun, binary.LittleEndian.AppendUint32(nil, uint32(pid))) // who is gone is missed soon enough
}

// lost reports whether a sandbox that was made ahead was killed just as it got its tool, which was not started then.
func (s *shim) lost() bool { return s.over && s.boxed && !s.asked && !s.box.Began() }

// heed takes what the sandbox said about itself. Where it said nothing it was killed, and its end is that of the tool.
func (s *shim) heed(r sandbox.Report) {
	if r.Gone {
		s.ended.CPU = time.Duration(r.Usage.Utime.Nano() + r.Usage.Stime.Nano())
		s.sawPeak(r.Usage.Maxrss)
	}
	switch {
	case r.Failed: // then what would have become the tool has ended, too
		s.ended.Error, s.ended.Errno, s.ended.Step = r.Errno.Error(), int(r.Errno), r.Step
	case r.Ended:
		s.ended.Status = int(r.Status)
	}
}

// killBox kills all in a sandbox but its first process, which sees its tool die and can say what they used. One that has not
// begun has no tool yet.
func (s *shim) killBox() {
	if !s.box.Began() {
		unix.Kill(s.first, unix.SIGKILL)
		return
	}
	for _, p := range descendants(s.first) {
		p.signal(unix.SIGKILL)
	}
}
