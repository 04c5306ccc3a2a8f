package volume

import (
	"io/fs"
	"time"
)

// kind is what a name stands for. The zero value is something that volumes do
// not keep, such as a FIFO.
type kind uint8

const (
	other kind = iota
	directory
	regular
	link
)

func kindOf(m fs.FileMode) kind {
	switch m.Type() {
	case 0:
		return regular
	case fs.ModeDir:
		return directory
	case fs.ModeSymlink:
		return link
	default:
		return other
	}
}

// permissions are the bits of a mode that a volume keeps.
const permissions = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// stamp is what tells, without reading it, whether a file has been changed. Two
// equal stamps of one path mean the same file, unless it was changed within the
// grain of the clock; see fresh.
type stamp struct {
	kind     kind
	mode     fs.FileMode // permissions; 0 of a link
	uid, gid int
	target   string // of a link
	// The rest is of regular files only: a directory is changed by its entries,
	// which have stamps of their own.
	size         int64
	mtime, ctime time.Duration // since 1970
	inode, links uint64
}

// untouched reports whether s and t are of a file that nobody has written to
// in between; it may have got or lost other names.
func (s stamp) untouched(t stamp) bool {
	s.ctime, s.links = t.ctime, t.links
	return s == t
}

// grain is more than the clock of any kernel's file system advances by at once.
const grain = 50 * time.Millisecond

// fresh reports whether a file that is changed again after now could still have
// the time t.
func fresh(t time.Duration, now time.Time) bool {
	return (time.Duration(now.UnixNano()) - t).Abs() < grain
}

// entry is one path of the committed state.
type entry struct {
	stamp
	blob uint64 // the same for all names of one file; 0 unless regular
	gen  uint64 // of the commit that last changed it; never the same again
}

// held is what a mount remembers of a path: that what it had then is what the
// volume had in generation gen.
type held struct {
	stamp
	gen uint64
	unsettled
}

// unsettled marks a file so new that a later change may not show in its stamp,
// so that it is compared by its content. The zero value is a settled file.
type unsettled struct {
	is  bool
	sum uint64
}

// change is what a copy has and the volume has not yet.
type change struct {
	path string
	stamp
	unsettled
	staged string // the file's name in the volume's staging directory
	blob   uint64
}
