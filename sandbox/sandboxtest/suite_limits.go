package sandboxtest

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) limitTests() []test {
	return []test{
		{"Memory", s.testMemory},
		{"Pids", s.testPids},
		{"Disk", s.testDisk},
		{"CPU", s.testCPU},
	}
}

func (s *suite) testMemory(t *testing.T) {
	sb := s.createWith(t, Memory, func(c *sandbox.Config) { c.Memory = 256 << 20 })
	equal(t, "little memory", s.sh(t, sb, "head -c 1000000 /dev/zero | tail -n 1 | wc -c"), "1000000")
	// tail keeps a line of 1 GiB in memory.
	out, err := sb.Command(s.context(t), "sh", "-c", "head -c 1073741824 /dev/zero | tail -n 1 | wc -c").Output()
	if err == nil && strings.TrimSpace(string(out)) == "1073741824" {
		t.Error("1 GiB fit into a limit of 256 MiB")
	}
	if ee, ok := errors.AsType[*sandbox.ExitError](err); ok && ee.Signal == sandbox.SIGKILL && !ee.OOM {
		t.Errorf("killed at the memory limit, but ExitError.OOM is not set: %v", err)
	}
}

func (s *suite) testPids(t *testing.T) {
	sb := s.createWith(t, Pids, func(c *sandbox.Config) { c.Pids = 40 })
	// A shell that cannot fork ends or goes on, depending on the shell.
	cmd := sb.Command(s.context(t), "sh", "-c", `i=0; while [ $i -lt 200 ]; do sleep 600 & i=$((i+1)); done; wait`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	fsys := sb.FSAt(s.context(t), "/")
	if err := fsys.WriteFile("tmp/alive", nil, 0o644); err != nil {
		t.Errorf("the file system does not work at the limit: %v", err)
	}
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatalf("terminate at the limit: %v", err)
	}
	<-waited //nolint:errcheck // the command ends with the sandbox
	sb = s.createWith(t, Pids, func(c *sandbox.Config) { c.Pids = 40 })
	out, err := sb.Command(s.context(t), "sh", "-c", `
		i=0; while [ $i -lt 200 ]; do (sleep 600 <&- >&- 2>&- &) || break; i=$((i+1)); done
		n=0; for p in /proc/[0-9]*; do n=$((n+1)); done; echo $n`).Output()
	if err == nil && len(strings.TrimSpace(string(out))) > 2 {
		t.Errorf("%s processes under a limit of 40", out)
	}
}

func (s *suite) testDisk(t *testing.T) {
	sb := s.createWith(t, Disk, func(c *sandbox.Config) { c.Disk = 32 << 20 })
	fsys := sb.FS(s.context(t))
	if err := fsys.WriteFile("small", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatalf("1 MiB of 32: %v", err)
	}
	if err := sb.Command(s.context(t), "sh", "-c", "head -c 134217728 /dev/zero > large").Run(); err == nil {
		t.Error("a command wrote 128 MiB under a limit of 32 MiB")
	}
	err := fsys.WriteFile("larger", make([]byte, 128<<20), 0o644)
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !errors.Is(err, syscall.EFBIG) {
		t.Errorf("writing 128 MiB under a limit of 32 MiB: got %v, want one that matches ENOSPC, EDQUOT or EFBIG", err)
	}
	for _, name := range []string{"large", "larger"} {
		if err := fsys.RemoveAll(name); err != nil {
			t.Errorf("remove from a full disk: %v", err)
		}
	}
	if err := fsys.WriteFile("again", make([]byte, 1<<20), 0o644); err != nil {
		t.Errorf("write after making room: %v", err)
	}
}

func (s *suite) testCPU(t *testing.T) {
	sb := s.createWith(t, CPU, func(c *sandbox.Config) { c.CPU = 0.5 })
	equal(t, "output", s.sh(t, sb, "echo slow"), "slow")
}
