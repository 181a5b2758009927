//go:build linux

package sandbox

import (
	"bytes"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// It is executed where nothing else is, says that it is there, and ends with its input.
func TestHoldProgram(t *testing.T) {
	text := HoldProgram()
	file, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if libraries, _ := file.ImportedLibraries(); len(libraries) > 0 || len(file.Progs) != 2 || file.Progs[1].Flags&elf.PF_X != 0 {
		t.Errorf("it needs %q, and its parts are %v", libraries, file.Progs)
	}
	path := filepath.Join(t.TempDir(), "hold")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 3)
	if _, err := io.ReadFull(out, said); err != nil || string(said) != "up\n" {
		t.Errorf("it said %q, %v", said, err)
	}
	if err := unix.Kill(c.Process.Pid, 0); err != nil {
		t.Error("it did not wait")
	}
	in.Close()
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("then it said %q, %v", rest, err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHoldFilter(t *testing.T) {
	if size := len(HoldFilter()); size != 8*len(holdRules()) {
		t.Errorf("%d rules are %d bytes", len(holdRules()), size)
	}
	for _, number := range holding {
		if got := judgeCall(t, holdRules(), arch, number); got != unix.SECCOMP_RET_ALLOW {
			t.Errorf("%d: %#x", number, got)
		}
	}
	for _, number := range []uint32{unix.SYS_OPENAT, unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_SOCKET, unix.SYS_KILL, unix.SYS_PTRACE, unix.SYS_MMAP, 0x40000000 + unix.SYS_READ} {
		if got := judgeCall(t, holdRules(), arch, number); got != unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM) {
			t.Errorf("%d: %#x", number, got)
		}
	}
	if got := judgeCall(t, holdRules(), arch+1, unix.SYS_READ); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("another architecture: %#x", got)
	}
}
