//go:build linux

package modalbox

import (
	"bufio"
	"io"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// TestKillUnmarked kills by killScript, without marks, a tree of processes that
// all hold a pipe open: it ends when none is left. Another process stays.
func TestKillUnmarked(t *testing.T) {
	for name, script := range map[string]string{
		"alone":                                "echo up; exec sleep 600",
		"a child":                              "(echo up; exec sleep 600) & wait",
		"a session of its own":                 "setsid sh -c 'echo up; exec sleep 600' & wait",
		"an orphan in its group":               "((echo up; exec sleep 600) & exit); exec sleep 600",
		"a grandchild of a session of its own": "setsid sh -c 'setsid sh -c \"echo up; sleep 600; :\" & wait' & wait",
	} {
		t.Run(name, func(t *testing.T) {
			other := exec.Command("sleep", "600")
			other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(out)
			if line, err := r.ReadString('\n'); line != "up\n" || err != nil {
				t.Errorf("%q, %v", line, err)
			}
			if said, err := exec.Command("sh", "-c", killScript, "sh", "-", strconv.Itoa(cmd.Process.Pid)).CombinedOutput(); err != nil || len(said) > 0 {
				t.Errorf("%q, %v", said, err)
			}
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
				t.Errorf("%q, %v", rest, err)
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Errorf("%v", err)
			}
			if err := other.Process.Signal(syscall.Signal(0)); err != nil {
				t.Errorf("another process: %v", err)
			}
			if err := other.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = other.Wait() // it was killed
		})
	}
}
