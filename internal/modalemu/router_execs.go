package modalemu

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os/exec"
	"path"
	"sync"
	"syscall"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/fstools"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// execsKept bounds the commands of one sandbox that have ended and whose
	// output is kept.
	execsKept = 10_000
	// startWait bounds the start of a command.
	startWait = time.Minute
)

// execTable are the commands of one task, by the ids that the client gives them.
type execTable struct {
	starts onces[*process.Process]

	mu     sync.Mutex
	byID   map[string]*process.Process
	order  []string // the oldest first
	closed bool
}

// table is the task's.
func (r *router) table(t *task) *execTable {
	r.mu.Lock()
	defer r.mu.Unlock()
	table := r.execs[t.id]
	if table == nil {
		table = &execTable{byID: make(map[string]*process.Process)}
		r.execs[t.id] = table
		t.onForget(func() {
			r.mu.Lock()
			delete(r.execs, t.id)
			r.mu.Unlock()
			table.close()
		})
	}
	return table
}

// exec finds a command that was started.
func (r *router) exec(ctx context.Context, taskID, execID string) (*process.Process, error) {
	t, err := r.task(ctx, taskID)
	if err != nil {
		return nil, err
	}
	table := r.table(t)
	table.mu.Lock()
	defer table.mu.Unlock()
	if p := table.byID[execID]; p != nil {
		return p, nil
	}
	return nil, status.Errorf(codes.NotFound, "Exec '%s' not found in task '%s'", execID, taskID)
}

// add keeps a command, and forgets the oldest one that has ended when there are
// too many.
func (e *execTable) add(id string, p *process.Process) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errors.Join(errClosed, p.Close())
	}
	e.byID[id] = p
	e.order = append(e.order, id)
	if len(e.order) <= execsKept {
		return nil
	}
	for i, old := range e.order {
		select {
		case <-e.byID[old].Done():
		default:
			continue
		}
		_ = e.byID[old].Close() // what it held is a file without a name
		delete(e.byID, old)
		e.order = append(e.order[:i], e.order[i+1:]...)
		e.starts.forget(old)
		break
	}
	return nil
}

func (e *execTable) close() {
	e.mu.Lock()
	e.closed = true
	all := e.byID
	e.byID, e.order = nil, nil
	e.mu.Unlock()
	for _, p := range all {
		_ = p.Close() // what it held is a file without a name
	}
}

// TaskExecStart implements the service.
func (r *router) TaskExecStart(ctx context.Context, req *pb.TaskExecStartRequest) (*pb.TaskExecStartResponse, error) {
	t, err := r.task(ctx, req.GetTaskId())
	if err != nil {
		return nil, err
	}
	if req.GetExecId() == "" {
		return nil, invalid("exec_id is missing")
	}
	table := r.table(t)
	_, err = table.starts.do(ctx, req.GetExecId(), func(ctx context.Context) (*process.Process, error) {
		ctx, cancel := context.WithTimeout(ctx, startWait)
		defer cancel()
		c, err := t.container(req.GetContainerId())
		if err != nil {
			return nil, err
		}
		p, err := r.start(ctx, c, req)
		if err != nil {
			return nil, err
		}
		return p, table.add(req.GetExecId(), p)
	})
	if err != nil {
		return nil, err
	}
	return &pb.TaskExecStartResponse{}, nil
}

// start starts a command, or what stands in for it.
func (r *router) start(ctx context.Context, c *container, req *pb.TaskExecStartRequest) (*process.Process, error) {
	if c.hasEnded() {
		return nil, c.gone()
	}
	e, err := r.command(req)
	if err != nil {
		return nil, err
	}
	opts := &process.Options{
		Timeout: time.Duration(req.GetTimeoutSecs()) * time.Second,
		Ended:   c.task.busy(),
	}
	if e.Args[0] == fstools.Path {
		return r.startTools(c, e.Args[1:], opts), nil
	}
	p, err := process.Start(ctx, c.box, e, c.task.dir, opts)
	if err != nil {
		opts.Ended()
		return nil, c.notStarted(e, err)
	}
	return p, nil
}

// startTools starts an operation on files, which ends with its container.
func (r *router) startTools(c *container, args []string, opts *process.Options) *process.Process {
	p := process.Run(fstools.Program(c.box, args), c.task.dir, opts)
	go func() {
		select {
		case <-c.ended:
			_ = p.Kill(context.Background()) // that of a function cannot fail
		case <-p.Done():
		}
		if p.Stdout.Adopted() {
			r.dropAtEnd(c, p)
		}
	}()
	return p
}

// dropAtEnd lets go of a file of the container's that is an output, once the
// container has ended: it would hold all of the container's memory otherwise.
func (r *router) dropAtEnd(c *container, p *process.Process) {
	r.mu.Lock()
	first := r.adopted[c] == nil
	r.adopted[c] = append(r.adopted[c], p)
	r.mu.Unlock()
	if !first {
		return
	}
	<-c.ended
	r.mu.Lock()
	all := r.adopted[c]
	delete(r.adopted, c)
	r.mu.Unlock()
	for _, p := range all {
		_ = p.Stdout.Drop() // it was only read
	}
}

// command is what the driver is to start.
func (r *router) command(req *pb.TaskExecStartRequest) (*driver.Exec, error) {
	if len(req.GetCommandArgs()) == 0 || req.GetCommandArgs()[0] == "" {
		return nil, invalid("the command has no arguments")
	}
	if len(req.GetSecretSources()) > 0 && (len(req.GetSecretIds()) > 0 || len(req.GetEnv()) > 0) {
		return nil, invalid("secret_sources cannot be combined with secret_ids or env")
	}
	values, err := r.server.variables(req.GetSecretIds(), req.GetSecretSources())
	if err != nil {
		return nil, err
	}
	if err := checkVariables(req.GetEnv()); err != nil {
		return nil, err
	}
	maps.Copy(values, req.GetEnv())
	e := &driver.Exec{Args: req.GetCommandArgs(), Stdin: true}
	if dir := req.GetWorkdir(); dir != "" {
		if !path.IsAbs(dir) {
			return nil, invalid("workdir must be an absolute path, got: %q", dir)
		}
		e.Dir = path.Clean(dir)
	}
	if pty := req.GetPtyInfo(); pty.GetEnabled() {
		e.TTY = &driver.Winsize{Rows: uint16(pty.GetWinszRows()), Cols: uint16(pty.GetWinszCols())}
		e.Env = terminalEnv(pty)
	}
	e.Stdout = req.GetStdoutConfig() == pb.TaskExecStdoutConfig_TASK_EXEC_STDOUT_CONFIG_PIPE
	switch req.GetStderrConfig() {
	case pb.TaskExecStderrConfig_TASK_EXEC_STDERR_CONFIG_PIPE:
		e.Stderr = true
	case pb.TaskExecStderrConfig_TASK_EXEC_STDERR_CONFIG_STDOUT:
		e.Merge = e.Stdout
	}
	e.Env = append(e.Env, environ(values)...)
	return e, nil
}

// notStarted maps why a command could not be started. It is nothing that trying
// again would change, as the client would for an internal error.
func (c *container) notStarted(e *driver.Exec, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return invalid("exec: %q: executable file not found in $PATH", e.Args[0])
	case errors.Is(err, fs.ErrNotExist):
		return invalid("exec: working directory %q does not exist", e.Dir)
	case errors.Is(err, driver.ErrEnded):
		return c.gone()
	case errors.Is(err, fs.ErrPermission):
		return status.Errorf(codes.PermissionDenied, "exec: %q: %v", e.Args[0], err)
	case errors.As(err, &errno):
		return invalid("exec: %q: %v", e.Args[0], err)
	}
	return err
}
