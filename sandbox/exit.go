package sandbox

import (
	"fmt"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Exit is how a command ended.
type Exit = driver.Exit

// Signal is a Linux signal number, and an os.Signal.
type Signal = driver.Signal

// Signals that programs commonly handle. The full list is signal(7)'s.
const (
	SIGHUP  = driver.SIGHUP
	SIGINT  = driver.SIGINT
	SIGQUIT = driver.SIGQUIT
	SIGKILL = driver.SIGKILL
	SIGUSR1 = driver.SIGUSR1
	SIGUSR2 = driver.SIGUSR2
	SIGTERM = driver.SIGTERM
)

// ExitError is a command that ran and did not end with status 0.
type ExitError struct {
	Exit
	// Args is the command's program and arguments. Only the program is part
	// of the text.
	Args []string
	// Stderr is the last 32 KiB at most of what the command wrote to stderr,
	// where this package saw it: with Cmd.Stderr set, or in Run and Output.
	// With Stdout and Stderr the same writer it holds both, as they came.
	Stderr []byte
	// Cause is why the command was cancelled; nil when it was not. It matches
	// the context's error and its context.Cause.
	Cause error
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != 0 {
		text = "signal: " + e.Signal.String()
	}
	if e.OOM {
		text += " (the sandbox reached its memory limit)"
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	if len(e.Args) > 0 {
		text = e.Args[0] + ": " + text
	}
	return text
}

// Unwrap gives Cause.
func (e *ExitError) Unwrap() error { return e.Cause }

// tailSize is how much of stderr an ExitError keeps, in bytes.
const tailSize = 32 << 10

// tail is a writer that keeps the last tailSize bytes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if n >= tailSize {
		t.buf = append(t.buf[:0], p[n-tailSize:]...)
		return n, nil
	}
	if len(t.buf)+n > 2*tailSize {
		// Let it grow to twice the size, so that most writes move nothing.
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	t.buf = append(t.buf, p...)
	return n, nil
}

// Bytes returns a copy of what is kept.
func (t *tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]byte(nil), t.buf[max(0, len(t.buf)-tailSize):]...)
}
