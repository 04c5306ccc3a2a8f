package sandboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) cmdTests() []test {
	return []test{
		{"Output", s.testOutput},
		{"CombinedOutputKeepsTheOrder", s.testCombined},
		{"ExitCodes", s.testExitCodes},
		{"Signals", s.testSignals},
		{"SignalIsSeen", s.testSignalTrap},
		{"SignalReachesTheGroup", s.testSignalGroup},
		{"SignalAfterTheEnd", s.testSignalEnded},
		{"StderrTail", s.testStderrTail},
		{"ProgramNotFound", s.testNotFound},
		{"ProgramNotExecutable", s.testNotExecutable},
		{"DirNotThere", s.testDirMissing},
		{"ArgumentsAreKept", s.testArgs},
		{"LargeArgumentsAndEnv", s.testLargeArgs},
		{"TooLargeArguments", s.testTooLargeArgs},
		{"PathIsTheSandboxs", s.testPath},
		{"FilesStayBetweenCommands", s.testFilesStay},
		{"ManyAtOnce", s.testManyCommands},
		{"NoInputIsEmpty", s.testNoInput},
		{"NothingInherited", s.testNothingInherited},
		{"Usage", s.testUsage},
	}
}

func (s *suite) testOutput(t *testing.T) {
	out, err := s.shared.Command(s.context(t), "echo", "a", "b  c").Output()
	if err != nil || string(out) != "a b  c\n" {
		t.Errorf("got %q, %v", out, err)
	}
	cmd := s.shared.Command(s.context(t), "sh", "-c", "echo out; echo err >&2; exit 4")
	out, err = cmd.Output()
	ee, ok := errors.AsType[*sandbox.ExitError](err)
	if !ok || ee.Code != 4 || string(ee.Stderr) != "err\n" || string(out) != "out\n" {
		t.Errorf("got %q, %v with stderr %q", out, err, stderrOf(err))
	}
	if exit := cmd.Exit(); exit == nil || exit.Code != 4 {
		t.Errorf("Exit: got %v, want code 4", exit)
	}
}

func (s *suite) testCombined(t *testing.T) {
	script := `i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done`
	out, err := s.shared.Command(s.context(t), "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	for i := range 500 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
	}
	if !bytes.Equal(out, want.Bytes()) {
		t.Errorf("stdout and stderr of one writer are out of order: %.200q", out)
	}
}

func (s *suite) testExitCodes(t *testing.T) {
	for _, code := range []int{0, 1, 2, 42, 126, 127, 128, 137, 255} {
		err := s.shared.Command(s.context(t), "sh", "-c", "exit "+strconv.Itoa(code)).Run()
		if code == 0 {
			if err != nil {
				t.Errorf("exit 0: %v", err)
			}
			continue
		}
		ee, ok := errors.AsType[*sandbox.ExitError](err)
		if !ok || ee.Code != code || ee.Signal != 0 || ee.Cause != nil {
			t.Errorf("exit %d: got %v", code, err)
		}
	}
}

// cat starts cat and waits until it runs. A shell that says so itself and then
// executes cat can lose a signal that comes in between.
func (s *suite) cat(t *testing.T) *sandbox.Cmd {
	t.Helper()
	cmd := s.shared.Command(s.context(t), "cat")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "ready"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func (s *suite) testSignals(t *testing.T) {
	for _, sig := range []sandbox.Signal{sandbox.SIGHUP, sandbox.SIGINT, sandbox.SIGKILL, sandbox.SIGUSR1, sandbox.SIGTERM} {
		cmd := s.cat(t)
		if err := cmd.Signal(sig); err != nil {
			t.Errorf("send %v: %v", sig, err)
		}
		err := cmd.Wait()
		ee, ok := errors.AsType[*sandbox.ExitError](err)
		if !ok || ee.Signal != sig || ee.Code != -1 {
			t.Errorf("after %v: got %v", sig, err)
		}
	}
}

func (s *suite) testSignalTrap(t *testing.T) {
	cmd := s.running(t, s.shared, s.context(t), `trap 'exit 7' TERM; echo ready; while :; do read line || sleep 1; done`)
	if err := cmd.Signal(sandbox.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != 7 {
		t.Errorf("a trapped signal: got %v, want exit status 7", err)
	}
}

func (s *suite) testSignalGroup(t *testing.T) {
	// A child that ignores nothing, and a shell that outlives the signal to say
	// how the child ended.
	cmd := s.running(t, s.shared, s.context(t), `trap : TERM
		sh -c 'echo ready; exec cat'; code=$?; [ $code -eq 143 ] && exit 5; exit $code`)
	if err := cmd.Signal(sandbox.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if ee, ok := errors.AsType[*sandbox.ExitError](err); !ok || ee.Code != 5 || ee.Cause != nil {
		t.Errorf("a child of a command that was signalled: got %v, want exit status 5", err)
	}
}

func (s *suite) testSignalEnded(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	isErr(t, "signal after the end", cmd.Signal(sandbox.SIGTERM), os.ErrProcessDone)
}

func (s *suite) testStderrTail(t *testing.T) {
	err := s.shared.Command(s.context(t), "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo last >&2; exit 1").Run()
	tail := stderrOf(err)
	if len(tail) != 32<<10 || !bytes.HasSuffix(tail, []byte("xlast\n")) {
		t.Errorf("tail of stderr: %d bytes, ending in %q; error %v", len(tail), tail[max(0, len(tail)-20):], err)
	}
}

func (s *suite) testNotFound(t *testing.T) {
	dir, _ := s.dir(t)
	for _, name := range []string{"no-such-program", "/no/such/program", dir + "/nothing", "./nothing"} {
		err := s.shared.Command(s.context(t), name).Run()
		isErr(t, "run "+name, err, exec.ErrNotFound)
		if _, ok := errors.AsType[*sandbox.ExitError](err); ok {
			t.Errorf("run %s: it is an ExitError, as if it had run", name)
		}
		if !strings.Contains(fmt.Sprint(err), name) || !strings.Contains(fmt.Sprint(err), s.shared.ID()) {
			t.Errorf("run %s: the error names neither program nor sandbox: %v", name, err)
		}
	}
}

func (s *suite) testNotExecutable(t *testing.T) {
	dir, fsys := s.dir(t)
	if err := fsys.WriteFile("plain", []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir + "/plain", dir} {
		err := s.shared.Command(s.context(t), name).Run()
		isErr(t, "run "+name, err, fs.ErrPermission)
	}
	if err := fsys.WriteFile("script", []byte("#!/bin/sh\necho \"$0 $1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := s.shared.Command(s.context(t), dir+"/script", "one").Output()
	if err != nil || string(out) != dir+"/script one\n" {
		t.Errorf("a script: %q, %v", out, err)
	}
}

func (s *suite) testDirMissing(t *testing.T) {
	dir, fsys := s.dir(t)
	cmd := s.shared.Command(s.context(t), "true")
	cmd.Dir = dir + "/nothing"
	isErr(t, "a directory that is not there", cmd.Run(), fs.ErrNotExist)
	if err := fsys.WriteFile("file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd = s.shared.Command(s.context(t), "true")
	cmd.Dir = dir + "/file"
	err := cmd.Run()
	if _, ran := errors.AsType[*sandbox.ExitError](err); err == nil || ran {
		t.Errorf("a directory that is a file: got %v, want an error that is no ExitError", err)
	}
	if errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a directory that is a file reads as a program that is not there: %v", err)
	}
}

func (s *suite) testArgs(t *testing.T) {
	args := []string{"", " ", "a b", "'", `"`, `\`, "$HOME", "*", "new\nline", "tab\t", "-n", "--", "ünï 🌱", "\xff\xfe", "%s"}
	cmd := s.shared.Command(s.context(t), "printf", append([]string{"%s\\0"}, args...)...)
	out, err := cmd.Output()
	if err != nil || string(out) != strings.Join(args, "\x00")+"\x00" {
		t.Errorf("got %q, %v", out, err)
	}
}

func (s *suite) testLargeArgs(t *testing.T) {
	args := make([]string, 8)
	for i := range args { // Linux allows 128 KiB for each
		args[i] = strings.Repeat(strconv.Itoa(i), 120_000)
	}
	cmd := s.shared.Command(s.context(t), "sh", append([]string{"-c", `printf '%s' "$BIG" "$@" | wc -c`, "sh"}, args...)...)
	cmd.Env = []string{"BIG=" + strings.Repeat("e", 120_000)}
	out, err := cmd.Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != "1080000" {
		t.Errorf("bytes of arguments and environment: %s, %v; want 1080000", got, err)
	}
}

func (s *suite) testTooLargeArgs(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "echo", strings.Repeat("x", 64<<20))
	err := cmd.Run()
	if _, ran := errors.AsType[*sandbox.ExitError](err); err == nil || ran {
		t.Errorf("64 MiB of arguments: got %v, want an error that is no ExitError", err)
	}
	equal(t, "the next command", s.sh(t, s.shared, "echo fine"), "fine")
}

func (s *suite) testPath(t *testing.T) {
	dir, fsys := s.dir(t)
	if err := fsys.WriteFile("my-tool", []byte("#!/bin/sh\necho mine\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	sb := s.create(t, nil)
	isErr(t, "a program of another sandbox", sb.Command(s.context(t), "my-tool").Run(), exec.ErrNotFound)
	cmd := s.shared.Command(s.context(t), "sh", "-c", "my-tool")
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	out, err := cmd.Output()
	if err != nil || string(out) != "mine\n" {
		t.Errorf("a program on the command's PATH: %q, %v", out, err)
	}
}

func (s *suite) testFilesStay(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `cd "$1" && echo kept > file && chmod 640 file`, dir)
	equal(t, "content", s.sh(t, s.shared, `cd "$1" && cat file`, dir), "kept")
}

func (s *suite) testManyCommands(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			want := strings.Repeat(strconv.Itoa(i)+"\n", 1000)
			cmd := s.shared.Command(s.context(t), "sh", "-c", "cat; exit "+strconv.Itoa(i))
			cmd.Stdin = strings.NewReader(want)
			out, err := cmd.Output()
			code := 0
			if ee, ok := errors.AsType[*sandbox.ExitError](err); ok {
				code = ee.Code
			} else if err != nil {
				t.Errorf("command %d: %v", i, err)
			}
			if string(out) != want || code != i {
				t.Errorf("command %d: %d bytes of %d, code %d", i, len(out), len(want), code)
			}
		})
	}
	wg.Wait()
}

func (s *suite) testNoInput(t *testing.T) {
	equal(t, "bytes of no input", strings.TrimSpace(s.sh(t, s.shared, "wc -c")), "0")
}

func (s *suite) testNothingInherited(t *testing.T) {
	out := s.sh(t, s.shared, `for fd in /proc/$$/fd/*; do n=${fd##*/}; [ "$n" -gt 2 ] && readlink "$fd"; done; true`)
	for _, line := range strings.Split(out, "\n") {
		// The shell's own: a descriptor of the directory it just listed.
		if line != "" && !strings.HasPrefix(line, "/proc/") {
			t.Errorf("an inherited descriptor: %s", line)
		}
	}
}

func (s *suite) testUsage(t *testing.T) {
	cmd := s.shared.Command(s.context(t), "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	exit := cmd.Exit()
	if exit.UserTime < 0 || exit.SysTime < 0 || exit.MaxMemory < 0 {
		t.Errorf("usage: %+v", exit)
	}
}
