//go:build linux

package sandbox

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// limit is one of getrlimit(2).
type limit struct {
	what int
	most int64
}

// limits sets what bounds each process, and returns what bounds those of the tool alone: who makes a sandbox for it has more
// descriptors, and writes a larger file.
func (p *Plan) limits(c *calls) (ofTool []limit) {
	c.limit(limit{unix.RLIMIT_CORE, 0})
	c.limit(limit{unix.RLIMIT_MSGQUEUE, 819200})
	c.limit(limit{unix.RLIMIT_MEMLOCK, 8 << 20})
	if p.Processes > 0 {
		c.limit(limit{unix.RLIMIT_NPROC, p.Processes})
	}
	for _, l := range []limit{{unix.RLIMIT_NOFILE, p.OpenFiles}, {unix.RLIMIT_FSIZE, p.FileSize}, {unix.RLIMIT_DATA, p.Data}} {
		if l.most > 0 {
			ofTool = append(ofTool, l)
		}
	}
	return ofTool
}

// limit sets one that is not higher than the one that there is.
func (c *calls) limit(l limit) {
	most := uint64(l.most)
	var now unix.Rlimit
	if unix.Getrlimit(l.what, &now) == nil {
		most = min(most, now.Max)
	}
	both := binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, most), most)
	c.add("set a limit of the process", unix.SYS_PRLIMIT64, 0, l.what, both, 0)
}
