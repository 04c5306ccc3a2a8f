package modalbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Start implements driver.Sandbox.
func (b *box) Start(ctx context.Context, e *driver.Exec) (driver.Process, error) {
	if err := b.usable(ctx); err != nil {
		return nil, err
	}
	l, err := newLaunch(e, b.rec.dir)
	if err != nil {
		return nil, err
	}
	if err := l.upload(ctx, b.sb); err != nil {
		return nil, b.explain(ctx, "send the arguments", err)
	}
	if l.file == nil && b.runner.Load() {
		l.runner = true
		p, err := b.start(ctx, l)
		if err == nil || !b.withoutRunner(ctx, err) {
			return p, err
		}
		l.runner = false
		l.mark = newMark()
	}
	return b.start(ctx, l)
}

// errNoRunner is that the runner did not run the command.
var errNoRunner = errors.New("the runner did not run the command")

// withoutRunner reports whether to try again by a shell, now and later: Modal
// could not execute the runner, or nothing was heard of it.
func (b *box) withoutRunner(ctx context.Context, err error) bool {
	again := errors.Is(err, errNoRunner)
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Kind {
		case driver.ErrNotFound, driver.ErrInvalid, driver.ErrUnauthenticated, nil:
			again = true
		}
	}
	if again = again && ctx.Err() == nil; again {
		b.runner.Store(false)
	}
	return again
}

// start starts a command and returns it as a driver.Process that is nil with an error.
func (b *box) start(ctx context.Context, l *launch) (driver.Process, error) {
	cp, err := b.sb.Exec(ctx, l.command(), l.params())
	if err != nil {
		if ctx.Err() != nil || !isDefinite(err) {
			b.abandon(l.mark)
		}
		return nil, b.explain(ctx, "start a command", err)
	}
	p := newProcess(b, l, cp)
	if err := p.acknowledge(ctx); err != nil {
		p.closeStreams()
		if ctx.Err() != nil {
			b.abandon(l.mark)
		}
		return nil, err
	}
	if p.stdout == nil {
		_ = p.first.Close()
	}
	return p, nil
}

// acknowledge waits for the first line.
func (p *process) acknowledge(ctx context.Context) error {
	line, err := p.firstLine(ctx)
	if err != nil {
		return err
	}
	switch line[0] {
	case sayStarted, sayRunner, sayUnmarked:
		p.marked = line[0] != sayUnmarked
		if line[0] == sayRunner {
			p.box.runner.Store(true)
		}
		p.pid, err = strconv.Atoi(line[1:])
		return err
	case sayShell:
		return errNoRunner
	case sayNoProgram:
		return exec.ErrNotFound
	case sayNoRight, sayDirRight:
		return fs.ErrPermission
	case sayNoDir:
		return fs.ErrNotExist
	case sayNotDir:
		return syscall.ENOTDIR
	case sayCancelled:
		return context.Canceled
	}
	return fmt.Errorf("%w: the image's %s said %q; it needs a POSIX shell", driver.ErrInvalid, shell, line)
}

// firstLine reads what the line of shell says. What the command prints after it
// stays to be read.
func (p *process) firstLine(ctx context.Context) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = p.first.Close() })
	line, err := p.first.line()
	if !stop() {
		return "", ctx.Err()
	}
	if err == nil && line != "" {
		return line, nil
	}
	if err != nil && err != io.EOF {
		return "", p.box.explain(ctx, "start a command", err)
	}
	// It ended before it could say anything.
	if _, err := p.Wait(ctx); err != nil {
		return "", err
	}
	if p.byRunner {
		return "", errNoRunner
	}
	return "", p.box.explain(ctx, "start a command",
		fmt.Errorf("%w: %s did not run the command: the image needs a POSIX shell there", driver.ErrInvalid, shell))
}

// failed finds out whether a command that ended with 126 or 127 was never run,
// because its interpreter is missing for one.
func (p *process) failed(code int) error {
	ctx, cancel := context.WithTimeout(p.box.ctx, cleanupTimeout)
	defer cancel()
	out, got, err := p.box.script(ctx, `cat -- "$1" 2>/dev/null && rm -f -- "$1"`, failFile(p.mark))
	if err != nil || got != 0 || strings.TrimSpace(string(out)) != strconv.Itoa(code) {
		return nil // without the file's word it has run
	}
	if code == 127 {
		return exec.ErrNotFound
	}
	return fmt.Errorf("the program could not be executed: %w", fs.ErrPermission)
}

// abandon ends a command of which it is not known whether it was started, or
// will be.
func (b *box) abandon(mark int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return
	}
	b.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
		defer cancel()
		// Where this fails too, the command ends with its sandbox.
		_, _, _ = b.script(ctx, ": >"+cancelFile(mark)+"\n"+killScript, strconv.FormatInt(mark, 10), "0")
	})
}
