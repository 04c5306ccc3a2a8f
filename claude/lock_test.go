package claude

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// shells are those that lockScript has to work in, with nothing but their own on PATH.
func shells(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{"sh": {"sh"}}
	if busybox, err := exec.LookPath("busybox"); err == nil {
		all["busybox"] = []string{busybox, "sh"}
	}
	return all
}

// claim runs cat with a claim on a conversation, as another process would. It
// gives its input and whether it runs.
func claim(t *testing.T, shell []string, home, id string) (in io.WriteCloser, cmd *exec.Cmd, runs bool, said string) {
	t.Helper()
	args := locked(id, "sh", []string{"-c", "echo on; exec cat"})
	cmd = exec.Command(shell[0], append(shell[1:len(shell):len(shell)], args[1:]...)...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line == "on\n" {
		return in, cmd, true, ""
	}
	_ = cmd.Wait()
	return in, cmd, false, stderr.String()
}

func TestLock(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc")
	}
	for name, shell := range shells(t) {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			_, first, runs, said := claim(t, shell, home, "one")
			if !runs {
				t.Fatalf("the first was refused: %s", said)
			}
			if _, cmd, runs, said := claim(t, shell, home, "one"); runs || cmd.ProcessState.ExitCode() != lockedStatus || !strings.Contains(said, lockMark) {
				t.Errorf("a second: runs %v, %v, %q", runs, cmd.ProcessState, said)
			}
			in, other, runs, said := claim(t, shell, home, "two")
			if !runs {
				t.Errorf("another conversation was refused: %s", said)
			}
			_ = in.Close()
			_ = other.Wait()
			// The owner dies without letting go; the number of its process comes again.
			_ = first.Process.Kill()
			_ = first.Wait()
			dir := filepath.Join(home, ".claude/vivarium-locks/one")
			if err := os.WriteFile(filepath.Join(dir, "1.1"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			in, third, runs, said := claim(t, shell, home, "one")
			if !runs {
				t.Errorf("after the owner's death: %s", said)
			}
			_ = in.Close()
			_ = third.Wait()
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("claims %v, %v, want that of the last owner", left, err)
			}
		})
	}
	t.Run("at once", func(t *testing.T) {
		home := t.TempDir()
		var owners []*exec.Cmd
		var inputs []io.WriteCloser
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				in, cmd, runs, _ := claim(t, []string{"sh"}, home, "one")
				if runs {
					mu.Lock()
					defer mu.Unlock()
					owners, inputs = append(owners, cmd), append(inputs, in)
				}
			})
		}
		all.Wait()
		if len(owners) > 1 {
			t.Errorf("%d have the conversation", len(owners))
		}
		for i, cmd := range owners {
			_ = inputs[i].Close()
			_ = cmd.Wait()
		}
	})
	t.Run("nowhere to write", func(t *testing.T) {
		in, cmd, runs, said := claim(t, []string{"sh"}, "/proc/nowhere", "one")
		if !runs {
			t.Errorf("refused: %s", said)
		}
		_ = in.Close()
		_ = cmd.Wait()
	})
}
