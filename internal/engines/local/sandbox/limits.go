//go:build linux

package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// limits lists what bounds each process of a tool. Only lower limits than those that it has can be set.
func (p *Plan) limits(c *calls) {
	for _, l := range []struct {
		what     int
		size     int64
		optional bool
	}{{unix.RLIMIT_CORE, 0, false}, {unix.RLIMIT_NOFILE, p.OpenFiles, true}, {unix.RLIMIT_FSIZE, p.FileSize, true}, {unix.RLIMIT_MSGQUEUE, 819200, true}, {unix.RLIMIT_MEMLOCK, 8 << 20, true}} {
		if l.size == 0 && l.optional {
			continue
		}
		limit := uint64(l.size)
		var now unix.Rlimit
		if unix.Getrlimit(l.what, &now) == nil {
			limit = min(limit, now.Max)
		}
		both := []uint64{limit, limit}
		c.pins = append(c.pins, both)
		c.add("set a limit of the process", unix.SYS_PRLIMIT64, 0, l.what, uintptr(unsafe.Pointer(&both[0])), 0)
	}
}
