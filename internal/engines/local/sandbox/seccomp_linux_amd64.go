package sandbox

import "golang.org/x/sys/unix"

const (
	arch    = unix.AUDIT_ARCH_X86_64
	foreign = 0x40000000 // __X32_SYSCALL_BIT
)

// holdCode says "up", waits for input or the end of it, and exits.
var holdCode = []byte{
	0xb8, 1, 0, 0, 0, // mov eax, SYS_WRITE
	0xbf, 1, 0, 0, 0, // mov edi, 1
	0x48, 0x8d, 0x35, 30, 0, 0, 0, // lea rsi, [rip+30]: the text at the end
	0xba, 3, 0, 0, 0, // mov edx, 3
	0x0f, 0x05, // syscall
	0x31, 0xc0, // xor eax, eax: SYS_READ
	0x31, 0xff, // xor edi, edi
	0x48, 0x89, 0xe6, // mov rsi, rsp
	0xba, 1, 0, 0, 0, // mov edx, 1
	0x0f, 0x05, // syscall
	0xb8, 231, 0, 0, 0, // mov eax, SYS_EXIT_GROUP
	0x31, 0xff, // xor edi, edi
	0x0f, 0x05, // syscall
	'u', 'p', '\n',
}

// deniedHere are those that only this architecture has.
var deniedHere = []uint32{
	unix.SYS_KEXEC_FILE_LOAD, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL, unix.SYS_CREATE_MODULE,
	unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE,
}
