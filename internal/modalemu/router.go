package modalemu

import (
	"context"
	"errors"
	"strings"
	"sync"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// router is the service that a sandbox's commands and files are reached by.
type router struct {
	pb.UnimplementedTaskCommandRouterServer
	server    *Server
	snapshots onces[string] // image ids, by snapshot id

	mu      sync.Mutex
	execs   map[string]*execTable // by task id
	probes  map[*container]*prober
	adopted map[*container][]*process.Process // whose stdout is a file of the container's
}

func newRouter(s *Server) *router {
	return &router{
		server: s, execs: make(map[string]*execTable),
		probes: make(map[*container]*prober), adopted: make(map[*container][]*process.Process),
	}
}

// task finds the task that a call is about, which the call's token must be for.
func (r *router) task(ctx context.Context, id string) (*task, error) {
	token, ok := strings.CutPrefix(header(ctx, "authorization"), "Bearer ")
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "no token in the call's metadata")
	}
	claims, err := r.server.tokens.check(forRouter, token)
	if err != nil {
		return nil, err
	}
	if claims.Subject != id {
		return nil, status.Errorf(codes.PermissionDenied, "the token is not for task '%s'", id)
	}
	return r.server.task(id)
}

// container finds the container that a call is about; "" is the main one.
func (r *router) container(ctx context.Context, taskID, containerID string) (*container, error) {
	t, err := r.task(ctx, taskID)
	if err != nil {
		return nil, err
	}
	return t.container(containerID)
}

// running finds a container in which something is to be done. One that has ended
// is not there any more: it is what makes the client say so.
func (r *router) running(ctx context.Context, taskID, containerID string) (*container, error) {
	c, err := r.container(ctx, taskID, containerID)
	if err == nil && c.hasEnded() {
		return nil, c.gone()
	}
	return c, err
}

func (c *container) gone() error {
	if c.id != "" {
		return status.Errorf(codes.NotFound, "Container '%s' has already finished", c.id)
	}
	return status.Errorf(codes.NotFound, "Sandbox '%s' has already finished", c.task.sandboxID)
}

// inside maps an error of what was done in a container.
func (c *container) inside(err error) error {
	switch {
	case errors.Is(err, driver.ErrEnded):
		return c.gone()
	case errors.Is(err, process.ErrFull):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return err
}

// onces lets what has a key be done once, however often and by however many it
// is asked for. A failure may be tried again. The zero value is ready.
type onces[T any] struct {
	mu   sync.Mutex
	jobs map[string]*once[T]
}

type once[T any] struct {
	done  chan struct{} // closed once value and err are set
	value T
	err   error
}

// do gives what f returned for the key. f goes on when the context ends, since
// whoever asks again wants to know.
func (o *onces[T]) do(ctx context.Context, key string, f func(context.Context) (T, error)) (T, error) {
	o.mu.Lock()
	job := o.jobs[key]
	if job == nil {
		job = &once[T]{done: make(chan struct{})}
		makeMap(&o.jobs)
		o.jobs[key] = job
		go func() {
			defer close(job.done)
			job.value, job.err = guarded(context.WithoutCancel(ctx), f)
			if job.err != nil {
				o.forget(key)
			}
		}()
	}
	o.mu.Unlock()
	select {
	case <-job.done:
		return job.value, job.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

func (o *onces[T]) forget(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.jobs, key)
}

// guarded makes an error of a panic, which no interceptor sees here.
func guarded[T any](ctx context.Context, f func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{reason: r}
		}
	}()
	return f(ctx)
}
