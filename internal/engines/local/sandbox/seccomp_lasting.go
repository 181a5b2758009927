//go:build linux && (amd64 || arm64)

package sandbox

import "golang.org/x/sys/unix"

// lasting are the system calls that make or find objects that no file system has and no process owns: without an IPC namespace
// they would be there for all, and stay when the run has ended.
var lasting = []uint32{
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL,
	unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL, unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
}
