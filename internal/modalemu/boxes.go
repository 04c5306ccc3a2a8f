package modalemu

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// endedKept bounds the ended sandboxes that are remembered, with what they
	// have printed, and endedLife how long.
	endedKept = 1000
	endedLife = 24 * time.Hour
)

// sandbox is one that was created, running or not.
type sandbox struct {
	id        string
	v1        bool // made by the older interface
	app       *appRecord
	imageID   string
	createdAt time.Time
	task      *task
	tunnels   tunnels // nil without ports
	connect   connector
	snapshot  *exitSnapshot // nil unless asked for
	timer     *time.Timer

	mu    sync.Mutex
	name  string
	named bool // has, or has had, a name
	tags  map[string]string

	stdin       sync.Mutex // orders the writes of the older interface
	stdinIndex  uint32     // of the last one
	stdinOffset uint64     // after it
}

// boxes are the sandboxes of a server. Its methods are safe for concurrent use.
type boxes struct {
	mu     sync.Mutex
	byID   map[string]*sandbox
	byTask map[string]*sandbox
	taken  map[nameOf]*sandbox // names of running ones; nil values are being made
	made   sync.WaitGroup      // those being made, and those that run
	closed bool
	last   time.Time // that of the newest
}

// createdNow is a time that no other sandbox has, also as the protocol tells
// it: clients page by it.
func (b *boxes) createdNow() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now().Truncate(time.Microsecond)
	if !now.After(b.last) {
		now = b.last.Add(time.Microsecond)
	}
	b.last = now
	return now
}

// nameOf is a sandbox's name, unique in its app.
type nameOf struct{ app, name string }

func newBoxes() *boxes {
	return &boxes{byID: make(map[string]*sandbox), byTask: make(map[string]*sandbox), taken: make(map[nameOf]*sandbox)}
}

// errClosed is what a server that is closing answers.
var errClosed = status.Error(codes.Unavailable, "the emulator is closing")

// begin counts a sandbox that is about to be made, and reserves its name. The
// caller calls add or abandon.
func (b *boxes) begin(app, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	if name != "" {
		if b.isTaken(nameOf{app, name}) {
			return status.Errorf(codes.AlreadyExists, "Sandbox with name '%s' already exists", name)
		}
		b.taken[nameOf{app, name}] = nil
	}
	b.made.Add(1)
	return nil
}

// isTaken reports whether a name is that of a sandbox which has not ended, or of
// one that is being made. The caller holds mu.
func (b *boxes) isTaken(key nameOf) bool {
	sb, ok := b.taken[key]
	return ok && (sb == nil || !sb.task.main.hasEnded())
}

func (b *boxes) abandon(app, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if name != "" {
		delete(b.taken, nameOf{app, name})
	}
	b.made.Done()
}

// add makes a sandbox known that begin was called for.
func (b *boxes) add(sb *sandbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byID[sb.id], b.byTask[sb.task.id] = sb, sb
	if sb.name != "" {
		b.taken[nameOf{sb.app.ID, sb.name}] = sb
	}
}

// gone frees the name of a sandbox that has ended.
func (b *boxes) gone(sb *sandbox) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb.mu.Lock()
	key := nameOf{sb.app.ID, sb.name}
	sb.mu.Unlock()
	if b.taken[key] == sb {
		delete(b.taken, key)
	}
	b.made.Done()
}

// setName names a sandbox that never had a name.
func (b *boxes) setName(sb *sandbox, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.named {
		if sb.name == name {
			return nil
		}
		return status.Errorf(codes.FailedPrecondition, "Sandbox '%s' already has a name", sb.id)
	}
	if sb.task.main.hasEnded() {
		return status.Errorf(codes.FailedPrecondition, "Sandbox '%s' has already finished", sb.id)
	}
	if b.isTaken(nameOf{sb.app.ID, name}) {
		return status.Errorf(codes.AlreadyExists, "Sandbox with name '%s' already exists", name)
	}
	b.taken[nameOf{sb.app.ID, name}] = sb
	sb.name, sb.named = name, true
	return nil
}

// get finds a sandbox by its id.
func (b *boxes) get(id string) (*sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sb := b.byID[id]; sb != nil {
		return sb, nil
	}
	return nil, status.Errorf(codes.NotFound, "Sandbox with ID '%s' not found", id)
}

// task finds a sandbox's task by its id.
func (s *Server) task(id string) (*task, error) {
	s.boxes.mu.Lock()
	defer s.boxes.mu.Unlock()
	if sb := s.boxes.byTask[id]; sb != nil {
		return sb.task, nil
	}
	return nil, status.Errorf(codes.NotFound, "Task '%s' not found", id)
}

// all are the sandboxes that keep approves of, the newest first.
func (b *boxes) all(keep func(*sandbox) bool) []*sandbox {
	b.mu.Lock()
	found := slices.Collect(maps.Values(b.byID))
	b.mu.Unlock()
	found = slices.DeleteFunc(found, func(sb *sandbox) bool { return !keep(sb) })
	slices.SortFunc(found, func(x, y *sandbox) int { return y.createdAt.Compare(x.createdAt) })
	return found
}

func (b *boxes) runningIn(app string) int {
	return len(b.all(func(sb *sandbox) bool { return sb.app.ID == app && !sb.task.main.hasEnded() }))
}

// volumesInUse are the ids of those that running sandboxes have mounted.
func (b *boxes) volumesInUse() map[string]bool {
	ids := make(map[string]bool)
	for _, sb := range b.all(func(*sandbox) bool { return true }) {
		for _, c := range sb.task.containers() {
			if c.hasEnded() {
				continue
			}
			for _, m := range c.definition.GetVolumeMounts() {
				ids[m.GetVolumeId()] = true
			}
		}
	}
	return ids
}

// close refuses new sandboxes from now on.
func (b *boxes) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// terminateIn ends the sandboxes of an app.
func (b *boxes) terminateIn(ctx context.Context, app string) error {
	return terminate(ctx, b.all(func(sb *sandbox) bool { return sb.app.ID == app }))
}

func terminate(ctx context.Context, all []*sandbox) error {
	for _, sb := range all {
		sb.task.main.end(endTerminated)
	}
	for _, sb := range all {
		select {
		case <-sb.task.main.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// terminateAll ends every sandbox, waits for those that are being made, and
// forgets them all.
func (b *boxes) terminateAll(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		b.made.Wait()
		close(done)
	}()
	for {
		all := b.all(func(*sandbox) bool { return true })
		err := terminate(ctx, all)
		select {
		case <-done:
			for _, sb := range b.all(func(*sandbox) bool { return true }) {
				b.forget(sb)
			}
			return err
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(10 * time.Millisecond): // one that was being made may be there now
		}
	}
}

// forget gives up what a sandbox that has ended has left.
func (b *boxes) forget(sb *sandbox) {
	b.mu.Lock()
	delete(b.byID, sb.id)
	delete(b.byTask, sb.task.id)
	b.mu.Unlock()
	sb.task.mu.Lock()
	last := sb.task.forgotten
	sb.task.forgotten = nil
	sb.task.mu.Unlock()
	for _, f := range last {
		f()
	}
	for _, c := range sb.task.containers() {
		if c.entry != nil {
			_ = c.entry.Close() // its spool is unlinked already
		}
	}
	_ = os.RemoveAll(sb.task.dir) // what stays goes with the spool directory
}

// trim forgets the sandboxes that ended long ago.
func (b *boxes) trim(now time.Time) {
	ended := b.all(func(sb *sandbox) bool { return sb.task.main.hasEnded() })
	for i, sb := range ended {
		if i >= endedKept || now.Sub(sb.createdAt) > endedLife+maxTimeout {
			b.forget(sb)
		}
	}
}

// sweep ends the sandboxes that a server before this one has left.
func (s *Server) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	var errs []error
	for info, err := range s.provider.List(ctx, &driver.Filter{}) {
		if err != nil {
			return err
		}
		box, err := s.provider.Attach(ctx, info.ID)
		if errors.Is(err, driver.ErrEnded) || errors.Is(err, driver.ErrNotFound) {
			continue
		}
		if err == nil {
			err = errors.Join(box.Terminate(ctx), box.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tunnels are the ways to a sandbox's ports. wire_tunnel.go has the one there is.
type tunnels interface {
	// data describes them to the client.
	data() []*pb.TunnelData
	// close ends them and their connections.
	close()
}
