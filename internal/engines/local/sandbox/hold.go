//go:build linux

package sandbox

import (
	"bytes"
	"debug/elf"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Where another program that makes a sandbox has what is ours, and nothing of a contract is: a directory of the sandbox.
const (
	Ours = "/.sandbox"
	Hold = Ours + "/hold"
)

// HoldProgram is the file of a program that says "up" and waits: who makes a sandbox for us has to execute something in it. It
// needs nothing that is there, no shell and no libraries, which may be what a contract put in their place.
func HoldProgram() []byte {
	const at, page = 0x400000, 0x10000 // the largest page that there is
	machine := elf.EM_X86_64
	if arch == unix.AUDIT_ARCH_AARCH64 {
		machine = elf.EM_AARCH64
	}
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Phnum: 2,
	}
	parts := [2]elf.Prog64{{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: at, Paddr: at, Align: page}, {Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)}}
	header.Ehsize, header.Phentsize = uint16(binary.Size(header)), uint16(binary.Size(parts[0]))
	header.Phoff = uint64(header.Ehsize)
	code := header.Phoff + uint64(binary.Size(parts))
	header.Entry = at + code
	parts[0].Filesz = code + uint64(len(holdCode))
	parts[0].Memsz = parts[0].Filesz
	var file bytes.Buffer
	for _, part := range []any{header, parts, holdCode} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			panic(err) // numbers
		}
	}
	return file.Bytes()
}

// holding are the system calls of that program, and of the first process, which collects orphans and is executed by nobody.
var holding = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_EXECVE, unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_RT_SIGRETURN, unix.SYS_RESTART_SYSCALL,
}

// holdRules are the filter of these two. Whoever came in their place could do no more than they: no process, no file, no socket.
func holdRules() []unix.SockFilter {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: atArch},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: arch},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: atNumber},
	}
	for _, number := range holding {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	}
	return append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
}

// HoldFilter is that filter as bytes, which is how other programs take one.
func HoldFilter() []byte {
	text, err := binary.Append(nil, binary.NativeEndian, holdRules())
	if err != nil {
		panic(err) // numbers
	}
	return text
}
