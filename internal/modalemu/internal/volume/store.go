package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Options tune a Store. The zero value is what is wanted as a rule.
type Options struct {
	// Interval is how often a mount looks for changes to commit; 0 means once a
	// second, negative never.
	Interval time.Duration
	// Log hears of commits that failed in the background; nil means slog.Default().
	Log *slog.Logger
}

// Store is a directory of volumes. Its methods are safe for concurrent use.
type Store struct {
	dir      string
	interval time.Duration
	log      *slog.Logger

	mu      sync.Mutex
	volumes map[string]*volume
	mounts  int // ever made
	closed  bool
}

// Open opens the volumes in dir, which is made if it is missing. Nobody else
// may use dir until Close. opts may be nil. Copies that an earlier process has
// left are removed; what they had not committed is lost.
func Open(dir string, opts *Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, interval: time.Second, log: slog.Default(), volumes: make(map[string]*volume)}
	if opts != nil && opts.Interval != 0 {
		s.interval = opts.Interval
	}
	if opts != nil && opts.Log != nil {
		s.log = opts.Log
	}
	if err := removeAll(s.mountsDir()); err != nil {
		return nil, fmt.Errorf("removing what was left of mounted volumes: %w", err)
	}
	for _, d := range []string{dir, s.mountsDir(), s.volumesDir()} {
		// Sandboxes choose the modes of files below, set-user-id for one: others of
		// this machine must not get at them.
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Store) mountsDir() string  { return filepath.Join(s.dir, "mounts") }
func (s *Store) volumesDir() string { return filepath.Join(s.dir, "volumes") }

// volume gives the volume of that id, which is made if it is missing.
func (s *Store) volume(ctx context.Context, id string) (*volume, error) {
	if !validID(id) {
		return nil, fmt.Errorf("%w: %q cannot be the id of a volume", driver.ErrInvalid, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fs.ErrClosed
	}
	if v := s.volumes[id]; v != nil {
		return v, nil
	}
	v, err := openVolume(ctx, filepath.Join(s.volumesDir(), id))
	if err != nil {
		return nil, err
	}
	s.volumes[id] = v
	return v, nil
}

func validID(id string) bool {
	return id != "" && len(id) < 200 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// IDs are those of the volumes that have files.
func (s *Store) IDs() ([]string, error) {
	entries, err := os.ReadDir(s.volumesDir())
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, err
}

// Delete removes a volume; one that does not exist is no error. Mounts of it go
// on with what they have, and commit nothing any more.
func (s *Store) Delete(id string) error {
	if !validID(id) {
		return fmt.Errorf("%w: %q cannot be the id of a volume", driver.ErrInvalid, id)
	}
	s.mu.Lock()
	v := s.volumes[id]
	delete(s.volumes, id)
	s.mu.Unlock()
	if v != nil {
		v.close(true)
	}
	return removeAll(filepath.Join(s.volumesDir(), id))
}

// Close lets go of the store. Mounts must be closed before.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, v := range s.volumes {
		v.close(false)
	}
	clear(s.volumes)
	return nil
}

// newMountDir makes a directory for a mount: data, which is shown in the
// sandbox, and stage, from where files are moved to it whole.
func (s *Store) newMountDir() (string, error) {
	s.mu.Lock()
	s.mounts++
	dir := filepath.Join(s.mountsDir(), strconv.Itoa(s.mounts))
	s.mu.Unlock()
	for _, d := range []string{dir, filepath.Join(dir, "stage")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return "", err
		}
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		return "", err
	}
	return dir, os.Chmod(data, 0o755) //nolint:gosec // whatever the umask is: the sandbox's users read it
}

// removeAll is os.RemoveAll, also of directories that their owner may not use.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var s scan // opens what it walks through
	if err := s.walk(context.Background(), root); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
