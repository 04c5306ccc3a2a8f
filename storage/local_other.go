//go:build !linux

package storage

import (
	"io/fs"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// originOf is empty: without the time of the last change of a file's state, one
// run of a machine says no more than another.
func originOf(*found) string { return "" }

// statInto fills in what a file system tells everywhere, and gives find's letter
// for the kind. Hard links become files of their own.
func statInto(f *found, info fs.FileInfo) byte {
	f.Size, f.Mode = info.Size(), uint16(info.Mode().Perm())
	if info.Mode()&fs.ModeSticky != 0 {
		f.Mode |= 0o1000
	}
	t := info.ModTime()
	f.Mtime = tree.Time{Sec: t.Unix(), Nsec: int32(t.Nanosecond())}
	switch info.Mode().Type() {
	case 0:
		return 'f'
	case fs.ModeDir:
		return 'd'
	case fs.ModeSymlink:
		return 'l'
	}
	return '?'
}
