package sandboxtest

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) ttyTests() []test {
	return []test{
		{"IsATerminalOfItsSize", s.testTTYSize},
		{"Resize", s.testTTYResize},
		{"EndOfInput", s.testTTYEnd},
		{"NoInput", s.testTTYNoInput},
		{"Interrupt", s.testTTYInterrupt},
		{"ExitCode", s.testTTYExit},
		{"ContextEndsIt", s.testTTYCancel},
		{"ResizeWithoutTerminal", s.testResizeWithout},
	}
}

// onTTY runs a script on a terminal and returns what it showed.
func (s *suite) onTTY(t *testing.T, script string, stdin io.Reader) (string, error) {
	t.Helper()
	cmd := s.shared.Command(s.context(t), "sh", "-c", script)
	cmd.TTY = &sandbox.Winsize{Rows: 33, Cols: 101}
	cmd.Stdin = stdin
	out, err := cmd.Output()
	if errors.Is(err, errors.ErrUnsupported) {
		s.lacks(t, TTY, err.Error())
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n"), err
}

func (s *suite) testTTYSize(t *testing.T) {
	out, err := s.onTTY(t, "test -t 0 && test -t 1 && test -t 2 && stty size; echo err >&2", nil)
	if err != nil || !strings.Contains(out, "33 101\n") || !strings.Contains(out, "err\n") {
		t.Errorf("got %q, %v", out, err)
	}
}

// dialogue starts a script on a terminal and gives its two ends. Echo is off.
func (s *suite) dialogue(t *testing.T, script string) (*sandbox.Cmd, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	cmd := s.shared.Command(s.context(t), "sh", "-c", "stty -echo; "+script)
	cmd.TTY = &sandbox.Winsize{Rows: 24, Cols: 80}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	s.needs(t, TTY, cmd.Start())
	return cmd, in, bufio.NewReader(out)
}

func expect(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	if strings.TrimRight(line, "\r\n") != want {
		t.Fatalf("the terminal shows %q, %v; want %q", line, err, want)
	}
}

func (s *suite) testTTYResize(t *testing.T) {
	cmd, in, out := s.dialogue(t, "trap 'echo changed' WINCH; stty size; read x; stty size")
	expect(t, out, "24 80")
	if err := cmd.Resize(sandbox.Winsize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	// Shells differ on whether a trap cuts a read short.
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(rest), "changed") || !strings.Contains(string(rest), "50 132") {
		t.Errorf("after the resize: %q, %v", rest, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func (s *suite) testTTYEnd(t *testing.T) {
	for _, typed := range []string{"one\ntwo\n", "one\ntwo", ""} {
		out, err := s.onTTY(t, "stty -echo; cat; echo; echo ended", strings.NewReader(typed))
		if err != nil || !strings.HasSuffix(out, "ended\n") {
			t.Errorf("typed %q: got %q, %v", typed, out, err)
		}
	}
}

func (s *suite) testTTYNoInput(t *testing.T) {
	out, err := s.onTTY(t, "cat; echo ended", nil)
	if err != nil || !strings.HasSuffix(out, "ended\n") {
		t.Errorf("got %q, %v", out, err)
	}
}

func (s *suite) testTTYInterrupt(t *testing.T) {
	cmd, in, out := s.dialogue(t, "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 1; done")
	expect(t, out, "ready")
	if _, err := in.Write([]byte{3}); err != nil { // ^C
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil || !strings.Contains(string(rest), "interrupted") {
		t.Errorf("after ^C: %q, %v", rest, err)
	}
	err = cmd.Wait()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != 3 {
		t.Errorf("after ^C: %v, want exit status 3", err)
	}
}

func (s *suite) testTTYExit(t *testing.T) {
	_, err := s.onTTY(t, "exit 6", nil)
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != 6 {
		t.Errorf("got %v, want exit status 6", err)
	}
}

func (s *suite) testTTYCancel(t *testing.T) {
	cmd, in, out := s.dialogue(t, "trap '' INT TERM HUP; echo ready; while :; do sleep 1; done")
	expect(t, out, "ready")
	if err := cmd.Signal(sandbox.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Errorf("the terminal after the end: %v", err)
	}
	err := cmd.Wait()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Signal != sandbox.SIGKILL {
		t.Errorf("got %v, want it killed", err)
	}
	_ = in.Close()
}

func (s *suite) testResizeWithout(t *testing.T) {
	cmd := s.running(t, s.shared, s.context(t), "echo ready; cat")
	isErr(t, "resize without a terminal", cmd.Resize(sandbox.Winsize{Rows: 1, Cols: 1}), sandbox.ErrInvalid)
	if err := cmd.Signal(sandbox.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}
