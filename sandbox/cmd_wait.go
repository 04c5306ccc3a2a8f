package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// ErrWaitDelay is returned by Wait when the command ended well but its streams
// stayed open, as a background process can keep them, beyond WaitDelay.
var ErrWaitDelay = exec.ErrWaitDelay

// killTimeout bounds the clean-up that follows a context's end.
const killTimeout = 30 * time.Second

// tailGrace is how long Wait waits for the end of a stderr that nobody asked
// for, when a command failed and something else keeps its stderr open.
const tailGrace = 250 * time.Millisecond

// outcome is how a command ended, and what its context had to do with it.
type outcome struct {
	exit   Exit
	cancel error // the context's error, with that of a Cancel that failed
	err    error // why exit is not known
}

// Wait waits for the command to end and for its streams to be copied, and
// closes the pipes. It must be called once after Start, and not before reads
// from StdoutPipe and StderrPipe are done.
//
// A command that failed is an *ExitError, which is joined with what went wrong
// with its streams, if anything did, as the output may lack something then. When the context ended first, the
// error matches the context's and its cause, and is an *ExitError too if the
// command was killed by that. When the sandbox ended first the error matches
// ErrEnded.
func (c *Cmd) Wait() error {
	if c.proc == nil {
		return c.fail(errors.New("not started"))
	}
	if c.waited {
		return c.fail(errors.New("Wait was already called"))
	}
	c.waited = true
	end := <-c.ended
	copyErr := c.finishStreams(end.err)
	switch {
	case end.err != nil:
		return c.fail(errors.Join(end.err, end.cancel))
	case end.exit.Code != 0 || end.exit.Signal != 0:
		c.exit = &end.exit
		if copyErr != nil && end.cancel == nil { // the output may lack something
			return errors.Join(c.exitError(end), c.fail(copyErr))
		}
		return c.exitError(end)
	}
	c.exit = &end.exit
	if end.cancel != nil {
		return c.fail(end.cancel)
	}
	if copyErr != nil {
		return c.fail(copyErr)
	}
	return nil
}

func (c *Cmd) exitError(end outcome) *ExitError {
	e := &ExitError{Exit: end.exit, Args: c.Args, Cause: end.cancel}
	if c.tailed != nil {
		grace := time.NewTimer(tailGrace)
		defer grace.Stop()
		select {
		case <-c.tailed:
		case <-grace.C:
		}
	}
	if c.tail != nil {
		e.Stderr = c.tail.Bytes()
	}
	return e
}

// await waits for the process, and cancels it when the context ends first.
func (c *Cmd) await() outcome {
	ctx, stop := context.WithCancel(context.WithoutCancel(c.ctx))
	defer stop()
	done := make(chan outcome, 1)
	go func() {
		exit, err := c.proc.Wait(ctx)
		done <- outcome{exit: exit, err: err}
	}()
	select {
	case end := <-done:
		return end
	case <-c.ctx.Done():
	}
	select {
	case end := <-done: // both at once: the command was first
		return end
	default:
	}
	cancel, err := c.cancelled()
	if err != nil {
		return outcome{cancel: cancel, err: err}
	}
	return c.awaitCancelled(done, cancel)
}

// awaitCancelled waits for a process that was told to end, and kills it when
// it does not within WaitDelay.
func (c *Cmd) awaitCancelled(done <-chan outcome, cancel error) outcome {
	var expired <-chan time.Time
	if c.WaitDelay > 0 {
		timer := time.NewTimer(c.WaitDelay)
		defer timer.Stop()
		expired = timer.C
	}
	for {
		select {
		case end := <-done:
			end.cancel = cancel
			return end
		case <-expired:
			if err := c.kill(); err != nil {
				return outcome{cancel: cancel, err: err}
			}
		}
	}
}

// cancelled cancels the command and returns what Wait is to report for it. err
// says that it could not be killed, so that there is no point in waiting.
func (c *Cmd) cancelled() (cancel, err error) {
	cancel = contextError(c.ctx)
	if c.Cancel == nil {
		return cancel, c.kill()
	}
	switch err := c.Cancel(); {
	case errors.Is(err, os.ErrProcessDone):
		return nil, nil
	case err != nil:
		return errors.Join(cancel, fmt.Errorf("cancel: %w", err)), nil
	}
	return cancel, nil
}

// contextError matches the error of a context that ended and its cause.
func contextError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

func (c *Cmd) kill() error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.ctx), killTimeout)
	defer stop()
	err := c.proc.Kill(ctx)
	if err != nil && !errors.Is(err, ErrEnded) && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill: %w", err)
	}
	return nil
}

// finishStreams waits until the streams are copied, and closes them. When it
// is not known how the command ended, for another reason than the sandbox's
// end, nothing promises that they will end by themselves: it closes them first.
func (c *Cmd) finishStreams(unknown error) error {
	if unknown != nil && !errors.Is(unknown, ErrEnded) {
		c.closeStreams()
		if c.tailStream != nil {
			_ = c.tailStream.Close()
		}
		c.awaitOutputs()
		return nil
	}
	err := c.awaitCopies()
	c.closeStreams()
	if err == ErrWaitDelay {
		c.awaitOutputs()
	}
	return err
}

// awaitCopies waits until the streams are copied, WaitDelay at most if set.
func (c *Cmd) awaitCopies() error {
	var expired <-chan time.Time
	if c.WaitDelay > 0 {
		timer := time.NewTimer(c.WaitDelay)
		defer timer.Stop()
		expired = timer.C
	}
	var first error
	for c.copying > 0 || c.copiedIn != nil {
		var err error
		select {
		case err = <-c.copied:
			c.copying--
		case err = <-c.copiedIn:
			c.copiedIn = nil
		case <-expired:
			return ErrWaitDelay
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (c *Cmd) closeStreams() {
	for _, s := range c.streams {
		_ = s.Close()
	}
}

// awaitOutputs waits for copies whose streams were closed, so that nothing
// writes to Stdout and Stderr any more. A Read of Stdin can block: it is left.
func (c *Cmd) awaitOutputs() {
	for ; c.copying > 0; c.copying-- {
		<-c.copied //nolint:errcheck // only that the copy has ended counts now
	}
}
