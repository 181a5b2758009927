package sandbox

import "golang.org/x/sys/unix"

const (
	arch    = unix.AUDIT_ARCH_AARCH64
	foreign = 0
)

// deniedHere are those that not every architecture has.
var deniedHere = []uint32{unix.SYS_KEXEC_FILE_LOAD}
