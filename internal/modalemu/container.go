package modalemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// endWait bounds what ending a container may take.
const endWait = 30 * time.Second

// ending is why a container is to end.
type ending int

const (
	endTerminated ending = iota
	endTimeout
	endIdle
)

func (e ending) result() *pb.GenericResult {
	switch e {
	case endTimeout:
		return failure(pb.GenericResult_GENERIC_STATUS_TIMEOUT, 124, "Sandbox timed out")
	case endIdle:
		return failure(pb.GenericResult_GENERIC_STATUS_IDLE_TIMEOUT, 137, "Sandbox was idle for its idle timeout")
	}
	return failure(pb.GenericResult_GENERIC_STATUS_TERMINATED, 137, "Sandbox was terminated")
}

func failure(code pb.GenericResult_GenericStatus, exit int32, text string) *pb.GenericResult {
	return pb.GenericResult_builder{Status: code, Exitcode: exit, Exception: text}.Build()
}

// exitResult is the result of a container whose command has ended.
func exitResult(e process.Exit) *pb.GenericResult {
	code := int32(e.Code)
	if e.Signal != 0 {
		code = 128 + int32(e.Signal)
	}
	switch {
	case e.OOM:
		return failure(pb.GenericResult_GENERIC_STATUS_FAILURE, 137, "Sandbox ran out of memory")
	case code != 0:
		return failure(pb.GenericResult_GENERIC_STATUS_FAILURE, code, "")
	}
	return pb.GenericResult_builder{Status: pb.GenericResult_GENERIC_STATUS_SUCCESS}.Build()
}

// lostResult is the result of a container that has ended by itself.
func lostResult(info *driver.Info) *pb.GenericResult {
	if info == nil {
		return failure(pb.GenericResult_GENERIC_STATUS_INTERNAL_FAILURE, 1, "Sandbox was lost")
	}
	switch info.End {
	case driver.EndCancelled:
		return endTerminated.result()
	case driver.EndLifetime:
		return endTimeout.result()
	case driver.EndIdle:
		return endIdle.result()
	case driver.EndOOM:
		return failure(pb.GenericResult_GENERIC_STATUS_FAILURE, 137, "Sandbox ran out of memory")
	}
	return failure(pb.GenericResult_GENERIC_STATUS_INTERNAL_FAILURE, 1, "Sandbox was lost")
}

// end asks for the container's end; the first to ask says why.
func (c *container) end(why ending) {
	select {
	case c.stop <- why:
	default:
	}
}

// startEntry starts the container's command. One that cannot be started is the
// end of the container, not of its creation: that is what Modal does.
func (s *Server) startEntry(ctx context.Context, c *container, args []string) (failed *pb.GenericResult, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	e := &driver.Exec{Args: args, Stdin: true, Stdout: true, Stderr: true}
	if pty := c.definition.GetPtyInfo(); pty.GetEnabled() {
		e.TTY = &driver.Winsize{Rows: uint16(pty.GetWinszRows()), Cols: uint16(pty.GetWinszCols())}
		e.Env = terminalEnv(pty)
	}
	c.log = newEntryLog()
	c.entry, err = process.Start(ctx, c.box, e, c.task.dir, &process.Options{Written: c.log.written})
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, exec.ErrNotFound):
		return failure(pb.GenericResult_GENERIC_STATUS_FAILURE, 127, fmt.Sprintf("exec: %q: executable file not found in $PATH", args[0])), nil
	case errors.Is(err, driver.ErrEnded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, err
	}
	return failure(pb.GenericResult_GENERIC_STATUS_FAILURE, 126, fmt.Sprintf("exec: %q: %v", args[0], err)), nil
}

// terminalEnv is what a terminal's command is told about it.
func terminalEnv(pty *pb.PTYInfo) []string {
	var env []string
	for _, v := range []struct{ key, value string }{
		{"TERM", pty.GetEnvTerm()}, {"COLORTERM", pty.GetEnvColorterm()}, {"TERM_PROGRAM", pty.GetEnvTermProgram()},
	} {
		if v.value != "" {
			env = append(env, v.key+"="+v.value)
		}
	}
	return env
}

// watch waits for the container's end, ends what is left of it, and then tells.
// before runs while its files can still be read.
func (s *Server) watch(c *container, before func()) {
	result := s.awaitEnd(c)
	if before != nil {
		before()
	}
	s.finish(c, result)
}

// awaitEnd returns how the container ended.
func (s *Server) awaitEnd(c *container) *pb.GenericResult {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	gone := make(chan *driver.Info, 1)
	go func() {
		info, err := c.box.Wait(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Error("sandbox was lost", "sandbox", c.task.sandboxID, "error", err)
		}
		gone <- info
	}()
	var exited <-chan struct{}
	if c.entry != nil {
		exited = c.entry.Done()
	}
	select {
	case why := <-c.stop:
		return why.result()
	case info := <-gone:
		return lostResult(info)
	case <-exited:
		e, _ := c.entry.Wait(ctx)
		if e.Lost {
			return lostResult(<-gone)
		}
		return exitResult(e)
	}
}

// finish ends the container's processes, saves its volumes and sets its result.
func (s *Server) finish(c *container, result *pb.GenericResult) {
	ctx, cancel := context.WithTimeout(context.Background(), endWait)
	defer cancel()
	var errs []error
	if c.box != nil {
		errs = append(errs, c.box.Terminate(ctx), c.box.Close())
	}
	c.closePolicy()
	for _, v := range c.volumes {
		errs = append(errs, v.Close(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Error("something of a sandbox could not be ended", "sandbox", c.task.sandboxID, "container", c.id, "error", err)
	}
	c.mu.Lock()
	c.result = result
	c.mu.Unlock()
	close(c.ended)
}

// await waits for the container's result, nil when ctx or the wait ends first.
func (c *container) await(ctx context.Context, wait time.Duration) *pb.GenericResult {
	if r := c.outcome(); r != nil || wait <= 0 {
		return r
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-c.ended:
	case <-t.C:
	case <-ctx.Done():
	}
	return c.outcome()
}
