//go:build unix

package state

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// scratchLock is the file in a scratch directory whose lock keeps it.
const scratchLock = "lock"

// Scratch makes a directory that is kept for as long as a copy of the
// descriptor held is open. RemoveScratch removes it, and a sweep does if nobody
// else has.
func (d *Dir) Scratch() (path string, held *os.File, err error) {
	path = filepath.Join(d.path, "scratch", NewID())
	err = d.lock(func() error {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		held, err = os.OpenFile(filepath.Join(path, scratchLock), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		return flock(held, unix.LOCK_EX|unix.LOCK_NB)
	})
	if err != nil {
		return "", nil, errors.Join(err, RemoveScratch(path, held))
	}
	return path, held, nil
}

// RemoveScratch removes what Scratch has made. held may be nil.
func RemoveScratch(path string, held *os.File) error {
	err := removeAll(path)
	if held != nil {
		held.Close()
	}
	return err
}

// sweepScratch removes the directories of those who died.
func (d *Dir) sweepScratch() error {
	return d.lock(func() error {
		entries, err := os.ReadDir(filepath.Join(d.path, "scratch"))
		errs := []error{err}
		for _, e := range entries {
			path := filepath.Join(d.path, "scratch", e.Name())
			f, err := os.Open(filepath.Join(path, scratchLock))
			if err == nil && flock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
				f.Close() // somebody lives
				continue
			}
			errs = append(errs, RemoveScratch(path, f))
		}
		return errors.Join(errs...)
	})
}
