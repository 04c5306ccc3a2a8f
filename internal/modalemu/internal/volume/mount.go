package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// MountOptions say how a volume is mounted. The zero value shows all of it and
// lets the sandbox write.
type MountOptions struct {
	ReadOnly bool
	// SubPath is a directory of the volume, made if it is missing, that is shown
	// instead of the whole; a "/" in front means nothing. It may not have "..".
	SubPath string
}

// Mount is a volume as one sandbox has it. Its methods are safe for concurrent
// use.
type Mount struct {
	store    *Store
	vol      *volume
	prefix   string // of the volume's paths; "" for the whole
	readOnly bool
	dir      string
	root     *os.Root // of dir: data and stage
	data     *os.Root
	stage    *os.Root
	stop     context.CancelFunc
	stopped  chan struct{}

	mu     sync.Mutex // one scan, commit or reload at a time
	held   map[string]held
	closed bool
}

// Mount makes a copy of the volume of that id, which comes into being if there
// is none yet. The copy's owner closes it. Options that make no sense match
// driver.ErrInvalid. opts may be nil.
func (s *Store) Mount(ctx context.Context, id string, opts *MountOptions) (*Mount, error) {
	if opts == nil {
		opts = &MountOptions{}
	}
	prefix, err := cleanSubPath(opts.SubPath)
	if err != nil {
		return nil, err
	}
	v, err := s.volume(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := v.makePrefix(prefix); err != nil {
		return nil, err
	}
	m := &Mount{store: s, vol: v, prefix: prefix, readOnly: opts.ReadOnly, held: make(map[string]held), stopped: make(chan struct{})}
	if err := m.open(ctx); err != nil {
		return nil, errors.Join(err, m.drop())
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	go m.watch(background)
	return m, nil
}

func cleanSubPath(p string) (string, error) {
	if strings.ContainsRune(p, 0) || slices.Contains(strings.Split(p, "/"), "..") || len(p) > maxPath {
		return "", fmt.Errorf("%w: %q cannot be a directory of a volume", driver.ErrInvalid, p)
	}
	return strings.TrimPrefix(path.Clean("/"+p), "/"), nil
}

// open makes the copy.
func (m *Mount) open(ctx context.Context) error {
	var err error
	if m.dir, err = m.store.newMountDir(); err != nil {
		return err
	}
	if m.root, err = os.OpenRoot(m.dir); err != nil {
		return err
	}
	if m.data, err = m.root.OpenRoot("data"); err != nil {
		return err
	}
	if m.stage, err = m.root.OpenRoot("stage"); err != nil {
		return err
	}
	return m.update(ctx)
}

// Dir is the directory of this machine that the sandbox is to be shown. It stays
// the same one until Close.
func (m *Mount) Dir() string { return filepath.Join(m.dir, "data") }

// ReadOnly reports whether the sandbox may not write.
func (m *Mount) ReadOnly() bool { return m.readOnly }

// Commit makes what the sandbox has changed part of the volume. What it changes
// while Commit runs may be left to the next one.
func (m *Mount) Commit(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return os.ErrClosed
	}
	return m.commit(ctx)
}

// Reload commits, and then brings the copy up to what is committed. Files that
// the sandbox has changed since the commit stay as they are.
func (m *Mount) Reload(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return os.ErrClosed
	}
	if err := m.commit(ctx); err != nil {
		return err
	}
	return m.update(ctx)
}

// Close commits a last time and removes the copy. It is called once nothing
// runs in the sandbox any more. The error is the commit's or the removal's; the
// copy is let go of in any case. Closing again does nothing.
func (m *Mount) Close(ctx context.Context) error {
	m.stop()
	<-m.stopped
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	err := m.commit(ctx)
	return errors.Join(err, m.drop())
}

// drop removes the copy.
func (m *Mount) drop() error {
	for _, r := range []*os.Root{m.root, m.data, m.stage} {
		if r != nil {
			r.Close()
		}
	}
	if m.dir == "" {
		return nil
	}
	return removeAll(m.dir)
}

// watch commits in the background until it is told to stop. A copy that takes
// long to look through is looked through less often.
func (m *Mount) watch(ctx context.Context) {
	defer close(m.stopped)
	if m.readOnly || m.store.interval < 0 {
		return
	}
	timer := time.NewTimer(m.store.interval)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		err := m.Commit(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			m.store.log.WarnContext(ctx, "a volume could not be committed in the background; it is tried again", "error", err)
		}
		failing = err != nil
		timer.Reset(max(m.store.interval, 20*time.Since(start)))
	}
}
