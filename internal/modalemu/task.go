package modalemu

import (
	"context"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/outbound"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// task is what the command router knows a sandbox by: its main container and
// the sidecars. It stays, with what its commands printed, after the sandbox has
// ended, until the server forgets the sandbox.
type task struct {
	id, sandboxID string
	dir           string // for spools; removed with the task
	main          *container
	idle          *idleTimer

	mu        sync.Mutex
	sidecars  map[string]*container // by id
	making    map[string]bool       // names of sidecars that are being made
	ending    bool                  // no more sidecars
	running   sync.WaitGroup        // sidecars that run
	forgotten []func()
}

// container is one driver sandbox of a task.
type container struct {
	id, name   string // "" and "main" for the main one
	task       *task
	box        driver.Sandbox
	entry      *process.Process // nil without a command
	log        *entryLog        // of entry; nil without one
	definition *pb.Sandbox
	createdAt  time.Time
	volumes    []volumeMount
	policy     *outbound.Proxy // nil without an outbound policy
	served     chan struct{}   // closed once policy serves no more
	trust      string          // the directory of whom to trust with it

	stop  chan ending   // asks for the end; holds one
	ended chan struct{} // closed once result is set

	mu      sync.Mutex
	result  *pb.GenericResult
	readyAt time.Time
}

// volumeMount is a volume's copy in a container.
type volumeMount interface {
	// Reload commits what the container changed, and brings its copy up to
	// what others have committed.
	Reload(ctx context.Context) error
	// Close commits for the last time, and removes the copy.
	Close(ctx context.Context) error
}

// container finds a container by its id; "" is the main one.
func (t *task) container(id string) (*container, error) {
	if id == "" || id == t.main.id {
		return t.main, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.sidecars[id]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %s not found in task %s", id, t.id)
}

// sidecar finds a sidecar by its name, the running one first.
func (t *task) sidecar(name string) *container {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *container
	for _, c := range t.sidecars {
		if c.name != name {
			continue
		}
		if !c.hasEnded() {
			return c
		}
		if found == nil || c.createdAt.After(found.createdAt) {
			found = c
		}
	}
	return found
}

// reserve keeps the name of a sidecar that is about to be made.
func (t *task) reserve(name string) (done func(), err error) {
	if c := t.sidecar(name); c != nil && !c.hasEnded() {
		return nil, status.Errorf(codes.AlreadyExists, "Container with name '%s' already exists", name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ending || t.main.hasEnded():
		return nil, finished(t.sandboxID)
	case t.making[name]:
		return nil, status.Errorf(codes.AlreadyExists, "Container with name '%s' already exists", name)
	}
	makeMap(&t.making)
	t.making[name] = true
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.making, name)
	}, nil
}

// add takes a sidecar that was made, unless the sandbox is ending.
func (t *task) add(c *container) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending {
		return finished(t.sandboxID)
	}
	t.sidecars[c.id] = c
	t.running.Add(1)
	return nil
}

// endSidecars ends the sidecars, and lets no new one be.
func (t *task) endSidecars() {
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	for _, c := range t.containers()[1:] {
		c.end(endTerminated)
	}
}

// hasEnded reports whether the container has a result.
func (c *container) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// outcome is the container's result, nil while it runs.
func (c *container) outcome() *pb.GenericResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.result
}

// onForget has f called when the server forgets the sandbox: what its commands
// have left is given up then.
func (t *task) onForget(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgotten = append(t.forgotten, f)
}

// containers are all of the task's, the main one first.
func (t *task) containers() []*container {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []*container{t.main}
	for _, c := range t.sidecars {
		all = append(all, c)
	}
	return all
}

// busy marks the task as in use, for as long as an exec, a tunnel's connection
// or a stream to its stdin lasts, so that it is not ended as idle. The caller
// calls done once.
func (t *task) busy() (done func()) { return t.idle.busy() }
