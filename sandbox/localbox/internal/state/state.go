//go:build unix

// Package state is the directory in which localbox keeps what must be found
// again: which sandboxes there are, their sockets, the names in use, snapshots.
// Any number of processes use it at once.
//
//	boxes/<id>/info.json   the record; there once the sandbox is ready
//	boxes/<id>/alive       locked for as long as the sandbox's processes live
//	boxes/<id>/sock        where its helper listens
//	boxes/<id>/end         where its keeper listens: a connection ends the sandbox
//	boxes/<id>/desk        where its keeper listens for what is to change
//	boxes/<id>/files       the files of a sandbox that is not isolated
//	names/<sha256>         a link to the id of the sandbox of that name
//	snapshots/<id>.tar.zst
//	scratch/<id>           what one keeper has made for its sandboxes, locked by it
//	lock                   held for changes that must not interleave
package state

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// Keep is how long the record of a sandbox that has ended is kept.
const Keep = time.Hour

// Record is what is known of a sandbox. It holds no secret.
type Record struct {
	Info    driver.Info
	Cgroups []string `json:",omitempty"` // to be removed with it
	Plain   bool     `json:",omitempty"`
	Family  uint64   `json:",omitempty"` // of the marks of its processes; see package lineage

	// Root is what its files are made of; nil: of this machine's programs.
	Root *wire.Root `json:",omitempty"`

	Probe *driver.Probe `json:",omitempty"` // of Config
}

// Dir is a state directory.
type Dir struct{ path string }

// Open makes the directory where it is missing. One that others can write to
// is refused: its sockets are the way into the sandboxes.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"boxes", "names", "snapshots", "scratch"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("state directory %s must belong to this user and be writable by nobody else", path)
	}
	return &Dir{path: path}, nil
}

// Path is the directory itself.
func (d *Dir) Path() string { return d.path }

// NewID makes an id that was never used.
func NewID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails, it says
	return "box-" + hex.EncodeToString(b[:])
}

var validID = regexp.MustCompile(`^[a-z]+-[0-9a-f]{20}$`)

// Box is the directory of a sandbox.
func (d *Dir) Box(id string) string { return filepath.Join(d.path, "boxes", id) }

// Files is the directory of the files of a sandbox that is not isolated.
func (d *Dir) Files(id string) string { return filepath.Join(d.Box(id), "files") }

// lock holds the directory's lock while do runs.
func (d *Dir) lock(do func() error) error {
	f, err := os.OpenFile(filepath.Join(d.path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX); err != nil {
		return err
	}
	return do()
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// Reserve makes a sandbox's directory and returns the lock that says that it
// lives: until every copy of the descriptor is closed.
func (d *Dir) Reserve(id, name string) (alive *os.File, err error) {
	err = d.lock(func() error {
		if name != "" {
			if err := d.claimName(name, id); err != nil {
				return err
			}
		}
		if err := os.Mkdir(d.Box(id), 0o700); err != nil {
			return err
		}
		alive, err = os.OpenFile(d.aliveFile(id), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		return flock(alive, unix.LOCK_EX|unix.LOCK_NB)
	})
	if err != nil && alive != nil {
		alive.Close()
		alive = nil
	}
	return alive, err
}

const aliveName = "alive"

func (d *Dir) aliveFile(id string) string { return filepath.Join(d.Box(id), aliveName) }

func (d *Dir) nameLink(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(d.path, "names", hex.EncodeToString(sum[:]))
}

// claimName must be called with the lock held.
func (d *Dir) claimName(name, id string) error {
	link := d.nameLink(name)
	if other, err := os.Readlink(link); err == nil {
		if d.Alive(other) {
			return driver.ErrNameInUse
		}
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	return os.Symlink(id, link)
}

// Lookup finds the id of a living sandbox by its name.
func (d *Dir) Lookup(name string) (string, error) {
	id, err := os.Readlink(d.nameLink(name))
	if err != nil || !validID.MatchString(id) {
		return "", driver.ErrNotFound
	}
	if rec, err := d.Read(id); err != nil || rec.Info.State != driver.StateRunning || !d.Alive(id) {
		return "", driver.ErrNotFound
	}
	return id, nil
}

// Release lets a name go, if it is still id's.
func (d *Dir) Release(id, name string) error {
	if name == "" {
		return nil
	}
	return d.lock(func() error {
		if owner, _ := os.Readlink(d.nameLink(name)); owner != id {
			return nil // it has no link, or the link is another's
		}
		return os.Remove(d.nameLink(name))
	})
}

// Alive reports whether a process of the sandbox lives, or one that is about to
// make it.
func (d *Dir) Alive(id string) bool {
	f, err := os.Open(d.aliveFile(id))
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f, unix.LOCK_SH|unix.LOCK_NB) != nil
}

// Write writes a record, whole or not at all. It does not wait for the disk: a
// machine that loses power loses the sandboxes, and Check knows what to make of
// a record that was lost with them.
func (d *Dir) Write(rec *Record) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	path := filepath.Join(d.Box(rec.Info.ID), "info.json")
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, text, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// errUnreadable: the file is there, but a whole record was never written.
var errUnreadable = errors.New("it cannot be read")

// Read reads a record. An id that is not known matches driver.ErrNotFound.
func (d *Dir) Read(id string) (*Record, error) {
	if !validID.MatchString(id) {
		return nil, driver.ErrNotFound
	}
	text, err := os.ReadFile(filepath.Join(d.Box(id), "info.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, driver.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	rec := new(Record)
	if err := json.Unmarshal(text, rec); err != nil {
		return nil, fmt.Errorf("record of %s: %w: %w", id, errUnreadable, err)
	}
	return rec, nil
}

// IDs lists the sandboxes that have a directory.
func (d *Dir) IDs() ([]string, error) {
	f, err := os.Open(filepath.Join(d.path, "boxes"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	ids := names[:0]
	for _, n := range names {
		if validID.MatchString(n) {
			ids = append(ids, n)
		}
	}
	return ids, err
}

// Clear removes everything of a sandbox but its record and its lock.
func (d *Dir) Clear(id string) error {
	entries, err := os.ReadDir(d.Box(id))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if name := e.Name(); name != "info.json" && name != aliveName {
			errs = append(errs, removeAll(filepath.Join(d.Box(id), name)))
		}
	}
	return errors.Join(errs...)
}

// Forget removes everything of a sandbox.
func (d *Dir) Forget(id string) error { return removeAll(d.Box(id)) }

// removeAll also removes directories that their owner has closed to himself, as
// Go's module cache does.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	root, rerr := os.OpenRoot(filepath.Dir(path))
	if rerr != nil {
		return err
	}
	defer root.Close()
	openUp(root, filepath.Base(path))
	return os.RemoveAll(path)
}

func openUp(root *os.Root, rel string) {
	info, err := root.Lstat(rel)
	if err != nil || !info.IsDir() {
		return
	}
	_ = root.Chmod(rel, 0o700)
	f, err := root.Open(rel)
	if err != nil {
		return
	}
	names, _ := f.Readdirnames(-1)
	f.Close()
	for _, n := range names {
		openUp(root, filepath.Join(rel, n))
	}
}

// Snapshot is the file of a snapshot. An id that cannot be one matches
// driver.ErrNotFound.
func (d *Dir) Snapshot(id string) (string, error) {
	if !validID.MatchString(id) || !strings.HasPrefix(id, "snap-") {
		return "", driver.ErrNotFound
	}
	return filepath.Join(d.path, "snapshots", id+".tar.zst"), nil
}

// NewSnapshotID makes an id that was never used.
func NewSnapshotID() string { return "snap-" + strings.TrimPrefix(NewID(), "box-") }

// Names of sockets.
const (
	helperSocket = "sock"
	keeperSocket = "end"
	deskSocket   = "desk"
)

// Listen opens the socket of a sandbox's helper.
func (d *Dir) Listen(id string) (*net.UnixListener, error) { return d.listen(id, helperSocket) }

// ListenEnd opens the socket of a sandbox's keeper. A connection to it asks for
// the sandbox's end; nothing is sent.
func (d *Dir) ListenEnd(id string) (*net.UnixListener, error) { return d.listen(id, keeperSocket) }

// ListenDesk opens the socket where a sandbox's keeper takes requests about it.
func (d *Dir) ListenDesk(id string) (*net.UnixListener, error) { return d.listen(id, deskSocket) }

// DialDesk connects to it.
func (d *Dir) DialDesk(id string) (*net.UnixConn, error) { return d.dial(id, deskSocket) }

// Dial connects to a sandbox's helper.
func (d *Dir) Dial(id string) (*net.UnixConn, error) { return d.dial(id, helperSocket) }

// AskEnd asks a sandbox's keeper to end it, and does not wait until it has.
func (d *Dir) AskEnd(id string) error {
	c, err := d.dial(id, keeperSocket)
	if err != nil {
		return err
	}
	return c.Close()
}

func (d *Dir) listen(id, name string) (l *net.UnixListener, err error) {
	err = d.withSocket(id, name, func(path string) error {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err == nil {
		l.SetUnlinkOnClose(false) // the path may have been a short one that is gone
	}
	return l, err
}

func (d *Dir) dial(id, name string) (c *net.UnixConn, err error) {
	err = d.withSocket(id, name, func(path string) error {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	return c, err
}
