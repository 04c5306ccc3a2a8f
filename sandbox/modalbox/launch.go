package modalbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// launch is one command to start. It is started through the runner, a small
// program that this package puts into the sandbox, or, where that cannot be, a
// line of shell that does the same. Both exec the command, so that its streams
// are Modal's own. They:
//
//   - look whether the directory and the program are there;
//   - set a mark that everything that comes from the command inherits and an
//     ordinary user cannot take off: the limit RLIMIT_LOCKS, which has meant
//     nothing to Linux since 2.4.25 (getrlimit(2)) and which /proc/PID/limits
//     shows. gVisor refuses it, and it must not be one that gVisor allows:
//     its execs and process 1 have their limits in common (createLimitSet of
//     runsc), so that a mark would be on all of them, and Kill end the sandbox;
//   - print a first line on stdout that says so, with the process's id, which
//     the command keeps.
//
// Should the exec fail after all, a file says with which status.
type launch struct {
	exec   *driver.Exec
	dir    string
	mark   int64
	env    map[string]string // without duplicates; the request's
	file   []byte            // arguments and environment that do not fit into a request
	runner bool              // there is one; a file takes a shell to read
}

// What the first line begins with.
const (
	sayStarted   = 'k'
	sayRunner    = 'r' // started by a shell, though there is a runner
	sayUnmarked  = 'm' // started, but there are no limits to mark it with
	sayNoProgram = 'n'
	sayNoRight   = 'p'
	sayNoDir     = 'd'
	sayNotDir    = 'D'
	sayDirRight  = 'a'
	sayCancelled = 'x'
	sayShell     = 's' // the runner cannot do this: it takes a shell
)

// What a request and execve(2) take, in bytes. The client allows 64 KiB of
// arguments.
const (
	maxRequest  = 40 << 10
	maxArgument = 128<<10 - 1
	maxTotal    = 6 << 20
)

// newMark is a number that no limit has by accident.
func newMark() int64 { return 1<<52 + rand.Int64N(1<<52) }

// The files of a command: one that keeps it from starting, one with the status
// of a failed exec, one with its arguments.
func cancelFile(mark int64) string { return fmt.Sprintf("/tmp/.vivarium-%d.x", mark) }
func failFile(mark int64) string   { return fmt.Sprintf("/tmp/.vivarium-%d.e", mark) }
func argsFile(mark int64) string   { return fmt.Sprintf("/tmp/.vivarium-%d.a", mark) }

func newLaunch(e *driver.Exec, dir string) (*launch, error) {
	l := &launch{exec: e, dir: dir, mark: newMark(), env: make(map[string]string, len(e.Env))}
	if e.Dir != "" {
		l.dir = e.Dir
	}
	size, plain := len(l.dir), utf8.ValidString(l.dir)
	for _, kv := range e.Env {
		k, v, _ := strings.Cut(kv, "=")
		if !isVariable(k) {
			return nil, fmt.Errorf("%w: variable %q: Modal takes letters, digits and '_'", driver.ErrInvalid, k)
		}
		l.env[k] = v
	}
	check := func(s string) error {
		if len(s) > maxArgument {
			return fmt.Errorf("an argument or variable of %d bytes: %w", len(s), syscall.E2BIG)
		}
		size, plain = size+len(s), plain && utf8.ValidString(s)
		return nil
	}
	for _, a := range e.Args {
		if err := check(a); err != nil {
			return nil, err
		}
	}
	for k, v := range l.env {
		if err := check(k + "=" + v); err != nil {
			return nil, err
		}
	}
	if size > maxTotal {
		return nil, fmt.Errorf("%d bytes of arguments and environment: %w", size, syscall.E2BIG)
	}
	if !plain || size > maxRequest {
		l.useFile()
	}
	return l, nil
}

// isVariable: letters, digits and '_', the first not a digit (environ(7)).
func isVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// useFile moves arguments and environment into a file, as a shell script.
func (l *launch) useFile() {
	var s strings.Builder
	s.WriteString("set -- ")
	s.WriteString(quote(l.dir))
	for _, a := range l.exec.Args {
		s.WriteString(" ")
		s.WriteString(quote(a))
	}
	for k, v := range l.env {
		s.WriteString("\nexport " + k + "=" + quote(v))
	}
	s.WriteString("\n")
	l.file = []byte(s.String())
	l.env = nil
}

// command is what to give to Modal.
func (l *launch) command() []string {
	if l.runner {
		args := []string{runnerPath, l.dir, l.flags(), strconv.FormatInt(l.mark, 10), cancelFile(l.mark), failFile(l.mark)}
		return append(args, l.exec.Args...)
	}
	command := []string{shell, "-c", l.script(), shell}
	if l.file == nil {
		command = append(append(command, l.dir), l.exec.Args...)
	}
	return command
}

// script is the line of shell. It sets no variable of its own, since one of that
// name could be in the environment.
func (l *launch) script() string {
	var s strings.Builder
	if l.file != nil {
		fmt.Fprintf(&s, ". %s;command -p rm -f %[1]s;", argsFile(l.mark))
	}
	fmt.Fprintf(&s, `[ -z "$%s" ]||{ eval "$%[1]s";unset %[1]s;};`, rawVariable)
	fmt.Fprintf(&s, `cd -P -- "$1" 2>/dev/null||{ if [ ! -e "$1" ];then echo %c;elif [ ! -d "$1" ];then echo %c;else echo %c;fi;exit;};`+
		"shift;unset OLDPWD;", sayNoDir, sayNotDir, sayDirRight)
	if tty := l.exec.TTY; tty != nil {
		fmt.Fprintf(&s, "stty rows %d cols %d 2>/dev/null;", tty.Rows, tty.Cols)
	}
	fmt.Fprintf(&s, `case $1 in */*) [ -e "$1" ]||{ echo %c;exit;};[ -x "$1" ]&&[ ! -d "$1" ]||{ echo %c;exit;};;`+
		`*) command -v -- "$1" >/dev/null 2>&1||{ echo %[1]c;exit;};;esac;`, sayNoProgram, sayNoRight)
	fmt.Fprintf(&s, "if { ulimit -w %d||ulimit -x %[1]d;} 2>/dev/null;then [ -e %s ]&&{ echo %c;exit;};[ -x %s ]&&echo %c$$||echo %c$$;else echo %c$$;fi;",
		l.mark, cancelFile(l.mark), sayCancelled, runnerPath, sayRunner, sayStarted, sayUnmarked)
	fmt.Fprintf(&s, `trap '{ echo $?>%s;} 2>/dev/null' 0;[ -z "$BASH_VERSION" ]||shopt -s execfail;exec "$@"%s`, failFile(l.mark), l.redirections())
	return s.String()
}

// flags are the redirections and the terminal's size for the runner.
func (l *launch) flags() string {
	e := l.exec
	if e.TTY != nil {
		return fmt.Sprintf("t%dx%d", e.TTY.Rows, e.TTY.Cols)
	}
	var s string
	if !e.Stdin {
		s += "i"
	}
	if !e.Stdout {
		s += "o"
	}
	if e.Merge {
		s += "m"
	}
	return s
}

// redirections are the same for a shell, which sets the size by a command.
func (l *launch) redirections() string {
	e := l.exec
	if e.TTY != nil {
		return ""
	}
	var s string
	if !e.Stdin {
		s += " </dev/null"
	}
	if !e.Stdout {
		s += " >/dev/null"
	}
	if e.Merge {
		s += " 2>&1"
	}
	return s
}

// params is how Modal is to run it. The first line is read from stdout even when
// nobody wants the command's.
func (l *launch) params() *modal.SandboxExecParams {
	p := &modal.SandboxExecParams{Env: l.env, PTY: l.exec.TTY != nil, Stderr: modal.Ignore}
	if l.exec.Stderr && !l.exec.Merge && l.exec.TTY == nil {
		p.Stderr = modal.Pipe
	}
	return p
}

// upload puts the file there, if there is one.
func (l *launch) upload(ctx context.Context, sb *modal.Sandbox) error {
	if l.file == nil {
		return nil
	}
	return sb.Filesystem.WriteBytes(ctx, l.file, argsFile(l.mark), nil)
}

// rawVariable holds a script that sets the sandbox's variables that are not UTF-8.
const rawVariable = "VIVARIUM_RAW"

// rawScript sets variables, of any bytes, that the command does not set itself.
func rawScript(env []string) string {
	var s strings.Builder
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&s, `[ -n "${%s+x}" ]||{ %[1]s=$(printf '%s.');%[1]s=${%[1]s%%.};export %[1]s;};`, k, octal(v))
	}
	return s.String()
}
