//go:build linux

package ociimage

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// gone is what the record of a deleted image ends in for as long as somebody
// uses its layers.
const gone = ".gone"

// Delete deletes an image, and the steps of its build that no other image is
// built on. Layers that no other image has go too: at once, or when nobody uses
// them any more and the store is next opened or deleted from. An unknown id
// matches driver.ErrNotFound.
func (s *Store) Delete(id string) error {
	for first := true; ; first = false {
		rec, err := s.Lookup(id)
		if err != nil && first {
			return err
		}
		if err != nil || !first && (!rec.Step || s.hasChild(id)) {
			return s.collect()
		}
		if err := os.Rename(s.record(id), s.record(id)+gone); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("image %s: %w", id, driver.ErrNotFound)
		} else if err != nil {
			return err
		}
		id = rec.Parent
	}
}

// records reads all records, and the names of the files they are in.
func (s *Store) records() (map[string]*Record, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "records"))
	if err != nil {
		return nil, err
	}
	all := make(map[string]*Record, len(entries))
	for _, e := range entries {
		if !strings.HasSuffix(strings.TrimSuffix(e.Name(), gone), ".json") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.dir, "records", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		rec := new(Record)
		if err == nil {
			err = json.Unmarshal(text, rec)
		}
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", e.Name(), err)
		}
		all[e.Name()] = rec
	}
	return all, nil
}

func (s *Store) hasChild(id string) bool {
	all, err := s.records()
	if err != nil {
		return true
	}
	for name, rec := range all {
		if rec.Parent == id && !strings.HasSuffix(name, gone) {
			return true
		}
	}
	return false
}

func (s *Store) hasGone() bool {
	found, err := filepath.Glob(filepath.Join(s.dir, "records", "*"+gone))
	return err == nil && len(found) > 0
}

// collect removes what nobody refers to, unless something is being made: who
// makes it comes here at its end.
func (s *Store) collect() error {
	work, err := os.OpenFile(filepath.Join(s.dir, "work"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := flock(work, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		work.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		return err
	}
	trash, err := s.discard()
	work.Close()
	return errors.Join(err, removeAll(trash))
}

// discard moves what is not needed into one directory, which is quick. It must
// be called with the work lock held.
func (s *Store) discard() (trash string, err error) {
	// What others are just removing, or what they died over, comes along.
	trash = filepath.Join(s.dir, "tmp", "trash-"+rand.Text())
	old, err := os.ReadDir(filepath.Join(s.dir, "tmp"))
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(trash, 0o700); err != nil {
		return "", err
	}
	var errs []error
	move := func(path string) {
		err := os.Rename(path, filepath.Join(trash, rand.Text()))
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, e := range old {
		move(filepath.Join(s.dir, "tmp", e.Name()))
	}
	used, err := s.used(move)
	if err != nil {
		return trash, errors.Join(append(errs, err)...)
	}
	layers, err := os.ReadDir(filepath.Join(s.dir, "layers"))
	errs = append(errs, err)
	for _, l := range layers {
		if !used[l.Name()] {
			move(s.layer(l.Name()))
		}
	}
	s.discardKeys(move)
	s.discardLocks()
	return trash, errors.Join(errs...)
}

// used are the layers of all images, and of those that are deleted but not let go of.
func (s *Store) used(move func(string)) (map[string]bool, error) {
	all, err := s.records()
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool)
	for name, rec := range all {
		path := filepath.Join(s.dir, "records", name)
		if strings.HasSuffix(name, gone) && !held(path) {
			move(path)
			continue
		}
		for _, l := range rec.Layers {
			used[l] = true
		}
	}
	return used, nil
}

// held reports whether somebody has a lock on a file.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil
}

// discardKeys removes what names an image that is not there, and what writers of
// keys and records have left behind.
func (s *Store) discardKeys(move func(string)) {
	keys, _ := os.ReadDir(filepath.Join(s.dir, "keys"))
	for _, k := range keys {
		if _, err := s.Find(k.Name()); errors.Is(err, driver.ErrNotFound) || strings.Contains(k.Name(), ".") {
			move(filepath.Join(s.dir, "keys", k.Name()))
		}
	}
	records, _ := os.ReadDir(filepath.Join(s.dir, "records"))
	for _, r := range records {
		if name := strings.TrimSuffix(r.Name(), gone); !strings.HasSuffix(name, ".json") {
			move(filepath.Join(s.dir, "records", r.Name()))
		}
	}
}

// discardLocks removes the files of locks that nobody holds.
func (s *Store) discardLocks() {
	locks, _ := os.ReadDir(filepath.Join(s.dir, "locks"))
	for _, l := range locks {
		path := filepath.Join(s.dir, "locks", l.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(path) // one that stays is taken by the next who needs it
		}
		f.Close()
	}
}

// removeAll also removes directories that their owner has closed to himself.
func removeAll(path string) error {
	if path == "" {
		return nil
	}
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) // before it is read: WalkDir calls twice otherwise
		}
		return nil
	})
	return os.RemoveAll(path)
}
