package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// errDeleted: the volume has been deleted while it was mounted.
var errDeleted = fmt.Errorf("%w: the volume has been deleted", driver.ErrNotFound)

// volume is the committed state of one volume: files in tree, and an index of
// them. Nobody but this process writes to tree, and no file in it is ever written
// to again.
type volume struct {
	dir   string
	stage *os.Root // where files are completed before they are moved into tree
	named atomic.Uint64

	mu      sync.RWMutex
	root    *os.Root // of tree
	index   map[string]entry
	gen     uint64
	deleted bool
}

func openVolume(ctx context.Context, dir string) (*volume, error) {
	v := &volume{dir: dir, index: make(map[string]entry)}
	tree, stage := filepath.Join(dir, "tree"), filepath.Join(dir, "stage")
	if err := removeAll(stage); err != nil {
		return nil, err
	}
	for _, d := range []string{dir, tree, stage} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if v.root, err = os.OpenRoot(tree); err != nil {
		return nil, err
	}
	if v.stage, err = os.OpenRoot(stage); err == nil {
		err = v.load(ctx)
	}
	if err != nil {
		v.close(false)
		return nil, err
	}
	return v, nil
}

// load makes the index of what is in tree.
func (v *volume) load(ctx context.Context) error {
	var s scan
	if err := s.walk(ctx, v.root); err != nil {
		return err
	}
	v.gen++
	blobs := make(map[uint64]uint64)
	for p, st := range s.found {
		e := entry{stamp: st, gen: v.gen}
		if st.kind == regular {
			e.blob = v.named.Add(1)
			if first, ok := blobs[st.inode]; ok && st.inode != 0 {
				e.blob = first
			}
			blobs[st.inode] = e.blob
		}
		v.index[p] = e
	}
	return nil
}

func (v *volume) close(deleted bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.deleted = v.deleted || deleted
	for _, r := range []*os.Root{v.root, v.stage} {
		if r != nil {
			r.Close()
		}
	}
}

func (v *volume) isDeleted() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.deleted
}

// name is one that nothing in stage has had before.
func (v *volume) name() (name string, blob uint64) {
	blob = v.named.Add(1)
	return strconv.FormatUint(blob, 10), blob
}

// commit makes puts, parents before children, and removals, children before
// parents, part of the volume. done is called for each that is. dirs are the
// directories of the committer, for the case that somebody else has removed one.
func (v *volume) commit(puts []change, removals []string, dirs map[string]stamp, done func(path string, gen uint64)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		return errDeleted
	}
	v.gen++
	for _, p := range removals {
		if err := v.remove(p); err != nil {
			return err
		}
		done(p, 0)
	}
	for _, c := range puts {
		if err := v.makeDirs(path.Dir(c.path), dirs); err != nil {
			return err
		}
		if err := v.put(c); err != nil {
			return err
		}
		done(c.path, v.gen)
	}
	return nil
}

// remove removes p; a directory to which somebody else has added stays.
func (v *volume) remove(p string) error {
	if _, ok := v.index[p]; !ok {
		return nil
	}
	err := v.root.Remove(p)
	if occupied(err) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(v.index, p)
	return nil
}

// makeDirs makes the directory p and those above it.
func (v *volume) makeDirs(p string, dirs map[string]stamp) error {
	if p == "." || v.index[p].kind == directory {
		return nil
	}
	if err := v.makeDirs(path.Dir(p), dirs); err != nil {
		return err
	}
	st, ok := dirs[p]
	if !ok || st.kind != directory {
		st = stamp{kind: directory, mode: 0o755, uid: os.Geteuid(), gid: os.Getegid()}
	}
	return v.put(change{path: p, stamp: st})
}

func (v *volume) put(c change) error {
	if c.kind == regular {
		if err := v.clear(c.path, directory); err != nil {
			return err
		}
		return v.moveIn(c)
	}
	if c.kind == directory {
		return v.putDir(c)
	}
	if err := v.clear(c.path, directory); err != nil {
		return err
	}
	c.staged, _ = v.name()
	if err := v.stage.Symlink(c.target, c.staged); err != nil {
		return err
	}
	if err := own(v.stage, c.staged, c.stamp); err != nil {
		return err
	}
	return v.moveIn(c)
}

// moveIn gives a staged file or link its place, and its entry.
func (v *volume) moveIn(c change) error {
	// Both ends are below directories that only this process writes to.
	if err := os.Rename(filepath.Join(v.stage.Name(), c.staged), filepath.Join(v.root.Name(), filepath.FromSlash(c.path))); err != nil {
		return err
	}
	v.index[c.path] = entry{stamp: c.stamp, blob: c.blob, gen: v.gen}
	return nil
}

func (v *volume) putDir(c change) error {
	if v.index[c.path].kind != directory {
		if err := v.clear(c.path, regular, link); err != nil {
			return err
		}
		if err := v.root.Mkdir(c.path, 0o700); err != nil {
			return err
		}
	}
	if err := own(v.root, c.path, c.stamp); err != nil {
		return err
	}
	v.index[c.path] = entry{stamp: c.stamp, gen: v.gen}
	return nil
}

// clear removes p, with what is in it, if it is of one of those kinds.
func (v *volume) clear(p string, kinds ...kind) error {
	e, ok := v.index[p]
	for _, k := range kinds {
		if !ok || e.kind != k {
			continue
		}
		if err := v.root.RemoveAll(p); err != nil {
			return err
		}
		for q := range v.index {
			if q == p || strings.HasPrefix(q, p+"/") {
				delete(v.index, q)
			}
		}
	}
	return nil
}

// below copies the part of the index below the directory prefix, "" for all,
// with names relative to it. The caller holds mu.
func (v *volume) below(prefix string) map[string]entry {
	m := make(map[string]entry, len(v.index))
	for p, e := range v.index {
		if prefix == "" {
			m[p] = e
		} else if rest, ok := strings.CutPrefix(p, prefix+"/"); ok {
			m[rest] = e
		}
	}
	return m
}

// makePrefix makes the directory that a mount shows alone.
func (v *volume) makePrefix(prefix string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.deleted {
		return errDeleted
	}
	for p := prefix; p != "." && p != ""; p = path.Dir(p) {
		if e, ok := v.index[p]; ok && e.kind != directory {
			return fmt.Errorf("%w: %q of the volume is no directory", driver.ErrInvalid, p)
		}
	}
	if prefix == "" {
		return nil
	}
	v.gen++
	return v.makeDirs(prefix, nil)
}
