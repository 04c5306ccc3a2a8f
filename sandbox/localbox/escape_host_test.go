//go:build linux

package localbox_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

// hostSees reports whether a process of this machine has the marker for its
// last argument.
func hostSees(t *testing.T, marker string) bool {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		b, err := os.ReadFile(name)
		if err == nil && strings.HasSuffix(strings.TrimSuffix(string(b), "\x00"), "\x00"+marker) {
			return true
		}
	}
	return false
}

// stays is a command line that lives until it is killed, whatever ends around it.
func stays(marker string) string {
	return probeExe + " vivarium-probe-child wait " + marker
}

// leave is a script that leaves processes behind in every way a process can
// leave its parent: n is how many.
func leave(marker string) (script string, markers []string) {
	for i, form := range []string{
		"%s </dev/zero &",                                                 // in the background
		"setsid %s </dev/zero &",                                          // in a session of its own
		"(setsid %s </dev/zero >&- 2>&- &) &",                             // twice removed
		"(trap '' TERM HUP INT; %s </dev/zero &) &",                       // deaf to signals
		"env -i setsid sh -c 'cd /; (%s </dev/zero >/dev/null 2>&1 &)' &", // with nothing of its parent's
	} {
		m := marker + "-" + string(rune('a'+i))
		markers = append(markers, m)
		script += strings.Replace(form, "%s", stays(m), 1) + "\n"
	}
	return script, markers
}

func TestProbesDaemonsEndWithTheSandbox(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	script, markers := leave(facts.Marker)
	sh(t, sb, "{ "+script+" } >/dev/null 2>&1")
	for _, m := range markers {
		eventually(t, m+" runs", func() bool { return hostSees(t, m) })
	}
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, m := range markers {
		if hostSees(t, m) {
			t.Errorf("%s runs after Terminate", m)
		}
	}
}

func TestProbesKilledCommandLeavesNothing(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	bystander := facts.Marker + "-bystander"
	other := sb.Command(testContext(t), probeExe, "vivarium-probe-child", "wait", bystander)
	hold, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	script, markers := leave(facts.Marker)
	cmd := sb.Command(ctx, "sh", "-c", "{ "+script+" } >/dev/null 2>&1\nexec sleep infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, m := range append(markers, bystander) {
		eventually(t, m+" runs", func() bool { return hostSees(t, m) })
	}
	cancel()
	if err := cmd.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	for _, m := range markers {
		eventually(t, m+" ends", func() bool { return !hostSees(t, m) })
	}
	if !hostSees(t, bystander) {
		t.Error("another command was killed too")
	}
	hold.Close()
	if err := other.Wait(); err != nil {
		t.Errorf("the other command: %v", err)
	}
}

func TestProbesForkBombEndsWithTheSandbox(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	marker := facts.Marker + "-bomb"
	// Each generation starts two more, deaf to everything but the kill.
	script := `trap '' TERM HUP INT; bomb() { bomb "$@" & bomb "$@" & ` + stays(marker) + ` </dev/zero; }; bomb`
	cmd := sb.Command(testContext(t), "sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bomb goes off", func() bool { return hostSees(t, marker) })
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the bomb ended well")
	}
	if hostSees(t, marker) {
		t.Error("the bomb goes on after Terminate")
	}
}

// TestProbesHugeOutput: what a command writes is in pipes, and never in the
// memory of this process.
func TestProbesHugeOutput(t *testing.T) {
	e := newEscape(t)
	sb, _, _ := e.box(t)
	const size, limit = 512 << 20, 32 << 20
	heap := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	runtime.GC()
	base := heap()
	t.Run("read", func(t *testing.T) {
		cmd := sb.Command(testContext(t), "head", "-c", "536870912", "/dev/zero")
		var n, most, next int64
		cmd.Stdout = writerFunc(func(b []byte) (int, error) {
			if n += int64(len(b)); n >= next {
				next += 16 << 20
				most = max(most, heap()-base)
			}
			return len(b), nil
		})
		if err := cmd.Run(); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		if most > limit {
			t.Errorf("the heap grew by %d bytes", most)
		}
	})
	t.Run("not read, then closed", func(t *testing.T) {
		cmd := sb.Command(testContext(t), "sh", "-c", "trap - PIPE; exec cat /dev/zero")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if grown := heap() - base; grown > limit {
			t.Errorf("the heap grew by %d bytes", grown)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		exit := new(sandbox.ExitError)
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Errorf("the writer ended with %v", err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestProbesTerminalHandedBack: a terminal is its command's own. What stays
// behind on it neither reaches the next command's, nor keeps Wait.
func TestProbesTerminalHandedBack(t *testing.T) {
	e := newEscape(t)
	sb, facts, _ := e.box(t)
	size := &sandbox.Winsize{Rows: 24, Cols: 80}
	marker := facts.Marker + "-tty"
	first := sb.Command(testContext(t), "sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2; "+stays(marker)+" </dev/tty & echo left")
	first.TTY = size
	out, err := first.Output()
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "left") {
		t.Fatalf("printed %q, %v", out, err)
	}
	second := sb.Command(testContext(t), "sh", "-c", "tty; stty size; read line && echo got $line")
	second.TTY = size
	second.Stdin = strings.NewReader("hello\n")
	out, err = second.Output()
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "24 80") || !strings.Contains(string(out), "got hello") {
		t.Errorf("the next terminal printed %q, %v", out, err)
	}
	if _, err := sb.Command(testContext(t), "sh", "-c", "exec </dev/tty").Output(); err == nil {
		t.Error("a command without a terminal has one")
	}
}
