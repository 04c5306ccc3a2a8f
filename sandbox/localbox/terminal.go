//go:build unix

package localbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// terminal is this side of a command's terminal, shared by its two streams.
type terminal struct {
	file *os.File

	mu   sync.Mutex
	open int // streams that are not closed
}

// openTerminal makes the two streams of the descriptor that came.
func (p *process) openTerminal(fds []int) error {
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return fmt.Errorf("%d descriptors came with a terminal", len(fds))
	}
	p.tty = &terminal{file: stream(fds[0], "terminal"), open: 2}
	p.stdin, p.stdout = &terminalInput{tty: p.tty}, &terminalOutput{tty: p.tty}
	return nil
}

func (t *terminal) resize(size driver.Winsize) error {
	return t.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
}

func (t *terminal) control(do func(fd int) error) error {
	rc, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) { err = do(int(fd)) })
	return errors.Join(cerr, err)
}

// release closes the terminal with the last of its streams; the command's side
// then hangs up.
func (t *terminal) release() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open--; t.open > 0 {
		return nil
	}
	return t.file.Close()
}

// terminalInput is what is typed.
type terminalInput struct {
	tty    *terminal
	mu     sync.Mutex
	closed bool
}

func (i *terminalInput) Write(p []byte) (int, error) {
	i.mu.Lock()
	closed := i.closed
	i.mu.Unlock()
	if closed {
		return 0, os.ErrClosed
	}
	return i.tty.file.Write(p)
}

// Close types the end of the input, where the terminal takes lines; a program
// that has switched that off would take it for a key.
func (i *terminalInput) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return os.ErrClosed
	}
	i.closed = true
	if eof := i.tty.endOfInput(); eof != 0 {
		_, _ = i.tty.file.Write([]byte{eof})
	}
	return i.tty.release()
}

// terminalOutput is what is shown.
type terminalOutput struct {
	tty  *terminal
	once sync.Once
}

// Read ends with io.EOF when the command's side is closed, which Linux reports
// as EIO.
func (o *terminalOutput) Read(p []byte) (int, error) {
	n, err := o.tty.file.Read(p)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

// Close closes the whole terminal: without a reader the command would stop at
// its next line.
func (o *terminalOutput) Close() error {
	err := os.ErrClosed
	o.once.Do(func() { err = o.tty.file.Close() })
	return err
}
