//go:build linux

package inotify

import (
	"maps"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Mask is what a Tree wants to be told of each directory it watches, and of the
// root when that is a file. An open file that has no name any more is silent.
const Mask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_DELETE_SELF |
	unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MOVE_SELF | unix.IN_ACCESS | unix.IN_OPEN |
	unix.IN_EXCL_UNLINK

// Entry is a file that was found below a directory.
type Entry struct {
	Path string
	WD   int32 // its watch, if it is a directory that is watched now; otherwise 0
}

// Tree knows which watch stands for which path, and what was told already. It
// is not safe for concurrent use.
type Tree struct {
	root      string
	rootWD    int32
	recursive bool
	paths     map[int32]string
	// told are files that were reported because they were found in a new
	// directory. The event of their making may still come.
	told map[string]bool
}

// NewTree watches root by the watch wd, and with recursive what is below it by
// the watches that Learn is given.
func NewTree(root string, wd int32, recursive bool) *Tree {
	return &Tree{
		root: root, rootWD: wd, recursive: recursive,
		paths: map[int32]string{wd: root}, told: make(map[string]bool),
	}
}

// Result is what follows from an event.
type Result struct {
	Changes []driver.Change
	Scan    string  // a directory to watch and to list, for Found; "" for none
	Rescan  bool    // events were lost: watch everything anew, for Learn
	Drop    []int32 // watches that are not needed any more
	Gone    bool    // what is watched is not there any more
}

// Learn replaces the watches by those of all directories there are. It returns
// those that are not needed any more.
func (t *Tree) Learn(entries []Entry) (drop []int32) {
	old := t.paths
	t.paths = map[int32]string{t.rootWD: t.root}
	for _, e := range entries {
		if e.WD > 0 && e.WD != t.rootWD {
			t.paths[e.WD] = e.Path
		}
	}
	for wd := range old {
		if _, still := t.paths[wd]; !still {
			drop = append(drop, wd)
		}
	}
	return drop
}

// Found takes what a Scan of dir has found, and reports what is new.
func (t *Tree) Found(dir string, entries []Entry) (changes []driver.Change) {
	for _, e := range entries {
		if e.WD > 0 && e.WD != t.rootWD {
			t.paths[e.WD] = e.Path
		}
		if e.Path != dir && !t.told[e.Path] {
			t.told[e.Path] = true
			changes = append(changes, one(driver.ChangeCreate, e.Path))
		}
	}
	return changes
}

// Drained says that there are no more events: none can be about what was found
// before it.
func (t *Tree) Drained() { clear(t.told) }

func one(op driver.ChangeOp, path string) driver.Change {
	return driver.Change{Op: op, Names: []string{path}}
}

func moved(from, to string) driver.Change {
	return driver.Change{Op: driver.ChangeRename, Names: []string{from, to}}
}

// Event says what an event means. to is the other half of a move, which has the
// same cookie, or nil.
func (t *Tree) Event(ev Event, to *Event) (r Result) {
	if ev.Mask&unix.IN_Q_OVERFLOW != 0 {
		clear(t.told)
		r.Changes = []driver.Change{{Op: driver.ChangeOverflow}}
		r.Rescan = t.recursive
		return r
	}
	dir, known := t.paths[ev.WD]
	switch {
	case ev.Mask&unix.IN_IGNORED != 0:
		delete(t.paths, ev.WD)
		r.Gone = ev.WD == t.rootWD
	case !known && to == nil: // of a watch that was dropped
	case ev.Name != "" || to != nil:
		t.entry(&r, ev, to)
	case ev.WD == t.rootWD:
		t.self(&r, dir, ev.Mask)
	}
	return r
}

// self is for events about the root; those about other directories come from
// their parents too.
func (t *Tree) self(r *Result, root string, mask uint32) {
	switch {
	case mask&unix.IN_DELETE_SELF != 0:
		r.Changes, r.Gone = append(r.Changes, one(driver.ChangeRemove, root)), true
	case mask&unix.IN_MOVE_SELF != 0:
		r.Changes, r.Gone = append(r.Changes, moved(root, "")), true
	default:
		t.touched(r, root, mask)
	}
}

func (t *Tree) touched(r *Result, path string, mask uint32) {
	switch {
	case mask&(unix.IN_MODIFY|unix.IN_ATTRIB) != 0:
		r.Changes = append(r.Changes, one(driver.ChangeModify, path))
	case mask&(unix.IN_OPEN|unix.IN_ACCESS) != 0 && mask&unix.IN_ISDIR == 0:
		// Directories are read by whoever watches, too.
		r.Changes = append(r.Changes, one(driver.ChangeAccess, path))
	}
}

// entry is for events about what is in a directory.
func (t *Tree) entry(r *Result, ev Event, to *Event) {
	path, isDir := t.path(ev), ev.Mask&unix.IN_ISDIR != 0
	switch {
	case ev.Mask&unix.IN_CREATE != 0:
		if t.told[path] {
			delete(t.told, path)
			return
		}
		r.Changes = append(r.Changes, one(driver.ChangeCreate, path))
		t.scan(r, path, isDir)
	case ev.Mask&unix.IN_DELETE != 0:
		t.forget(path, isDir)
		r.Changes = append(r.Changes, one(driver.ChangeRemove, path))
	case ev.Mask&unix.IN_MOVED_FROM != 0 && to != nil:
		t.move(r, path, t.path(*to), isDir)
	case ev.Mask&unix.IN_MOVED_FROM != 0:
		t.move(r, path, "", isDir)
	case ev.Mask&unix.IN_MOVED_TO != 0:
		t.move(r, "", path, isDir)
	default:
		t.touched(r, path, ev.Mask)
	}
}

// forget is for a file that is gone from path. What was told below it may have
// been in another directory, of the same name, that came later.
func (t *Tree) forget(path string, isDir bool) {
	delete(t.told, path)
	if isDir {
		maps.DeleteFunc(t.told, func(p string, _ bool) bool { return strings.HasPrefix(p, path+"/") })
	}
}

// path is "" when nobody knows any more where the event was.
func (t *Tree) path(ev Event) string {
	dir, known := t.paths[ev.WD]
	switch {
	case !known:
		return ""
	case dir == "/":
		return "/" + ev.Name
	}
	return dir + "/" + ev.Name
}

func (t *Tree) scan(r *Result, path string, isDir bool) {
	if isDir && t.recursive {
		r.Scan = path
	}
}

// move is for a file that went from one path to the other; "" is outside.
func (t *Tree) move(r *Result, from, to string, isDir bool) {
	t.forget(from, isDir)
	if to != "" && t.told[to] { // reported where it was found
		delete(t.told, to)
		to = ""
		isDir = false // and watched there
	}
	if from == "" && to == "" {
		return
	}
	r.Changes = append(r.Changes, moved(from, to))
	if !isDir {
		return
	}
	watched := false
	for wd, path := range t.paths {
		rest, below := strings.CutPrefix(path+"/", from+"/")
		if from == "" || !below || wd == t.rootWD {
			watched = watched || path == to
			continue
		}
		if to == "" {
			delete(t.paths, wd)
			r.Drop = append(r.Drop, wd)
			continue
		}
		t.paths[wd] = strings.TrimSuffix(to+"/"+rest, "/")
		watched = true
	}
	if to != "" && !watched {
		t.scan(r, to, isDir)
	}
}
