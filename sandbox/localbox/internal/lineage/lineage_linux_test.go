package lineage_test

import (
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/lineage"
)

func TestEnd(t *testing.T) {
	f := lineage.NewFamily()
	tag, err := f.Tag(1)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	lim := unix.Rlimit{Cur: uint64(tag), Max: uint64(tag)}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_RTTIME, &lim, nil); err != nil {
		t.Fatal(err)
	}
	// With no patience nobody waits for the end of what was killed.
	if err := f.End(0); err == nil {
		t.Error("a process that was there was not told of")
	}
	if err := f.End(time.Minute); err != nil {
		t.Error(err)
	}
	if err := lineage.NewFamily().End(0); err != nil {
		t.Errorf("of nobody: %v", err)
	}
}
