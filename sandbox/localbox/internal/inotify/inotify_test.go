//go:build linux

package inotify_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/inotify"
)

// raw is an event as the kernel writes it, its name filled up to a multiple of 16.
func raw(wd int32, mask, cookie uint32, name string) []byte {
	var b []byte
	b = binary.NativeEndian.AppendUint32(b, uint32(wd))
	b = binary.NativeEndian.AppendUint32(b, mask)
	b = binary.NativeEndian.AppendUint32(b, cookie)
	size := 0
	if name != "" {
		size = (len(name)/16 + 1) * 16
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(size))
	return append(append(b, name...), make([]byte, size-len(name))...)
}

func TestParse(t *testing.T) {
	buf := slices.Concat(raw(1, unix.IN_CREATE, 0, "name"), raw(2, unix.IN_DELETE_SELF, 0, ""), raw(-1, unix.IN_Q_OVERFLOW, 0, ""))
	got, err := inotify.Parse(buf)
	if err != nil {
		t.Fatal(err)
	}
	want := []inotify.Event{
		{WD: 1, Mask: unix.IN_CREATE, Name: "name"}, {WD: 2, Mask: unix.IN_DELETE_SELF}, {WD: -1, Mask: unix.IN_Q_OVERFLOW},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for cut := range len(buf) {
		got, err := inotify.Parse(buf[:cut])
		if whole := cut == 0 || cut == 32 || cut == 48; (err == nil) != whole {
			t.Errorf("%d bytes: %v", cut, err)
		}
		if !slices.Equal(got, want[:len(got)]) {
			t.Errorf("%d bytes: %+v", cut, got)
		}
	}
}

// play feeds events to a tree and writes what it says, one line for each result.
func play(tree *inotify.Tree, events ...inotify.Event) (lines []string) {
	var q inotify.Queue
	start := time.Now()
	q.Add(events, start)
	for {
		ev, to, _, ok := q.Next(start.Add(time.Hour))
		if !ok {
			return lines
		}
		r := tree.Event(ev, to)
		for _, c := range r.Changes {
			lines = append(lines, fmt.Sprintf("%d%v", c.Op, c.Names))
		}
		if r.Scan != "" {
			lines = append(lines, "scan "+r.Scan)
		}
		if r.Rescan {
			lines = append(lines, "rescan")
		}
		if len(r.Drop) > 0 {
			slices.Sort(r.Drop)
			lines = append(lines, fmt.Sprint("drop ", r.Drop))
		}
		if r.Gone {
			lines = append(lines, "gone")
		}
	}
}

func check(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// tree watches /r, /r/d, /r/d/e and /r/dd by 1 to 4.
func tree() *inotify.Tree {
	tr := inotify.NewTree("/r", 1, true)
	tr.Learn([]inotify.Entry{{Path: "/r", WD: 1}, {Path: "/r/d", WD: 2}, {Path: "/r/d/e", WD: 3}, {Path: "/r/dd", WD: 4}})
	return tr
}

func TestDirectoryMoves(t *testing.T) {
	const dir = unix.IN_ISDIR
	tr := tree()
	check(t, "within", play(tr,
		inotify.Event{WD: 1, Mask: unix.IN_MOVED_FROM | dir, Cookie: 7, Name: "d"},
		inotify.Event{WD: 1, Mask: unix.IN_CREATE, Name: "between"},
		inotify.Event{WD: 4, Mask: unix.IN_MOVED_TO | dir, Cookie: 7, Name: "n"},
		inotify.Event{WD: 3, Mask: unix.IN_MODIFY, Name: "f"},
		inotify.Event{WD: 2, Mask: unix.IN_MOVE_SELF},
	), "4[/r/d /r/dd/n]", "1[/r/between]", "2[/r/dd/n/e/f]")
	check(t, "out", play(tr,
		inotify.Event{WD: 4, Mask: unix.IN_MOVED_FROM | dir, Cookie: 8, Name: "n"},
		inotify.Event{WD: 3, Mask: unix.IN_MODIFY, Name: "f"},
		inotify.Event{WD: 3, Mask: unix.IN_IGNORED},
	), "4[/r/dd/n ]", "drop [2 3]")
	check(t, "in", play(tr, inotify.Event{WD: 1, Mask: unix.IN_MOVED_TO | dir, Cookie: 9, Name: "in"}), "4[ /r/in]", "scan /r/in")
}

func TestFoundIsToldOnce(t *testing.T) {
	const dir = unix.IN_ISDIR
	tr := tree()
	check(t, "made", play(tr, inotify.Event{WD: 1, Mask: unix.IN_CREATE | dir, Name: "n"}), "1[/r/n]", "scan /r/n")
	found := tr.Found("/r/n", []inotify.Entry{
		{Path: "/r/n", WD: 5}, {Path: "/r/n/sub", WD: 6}, {Path: "/r/n/f"}, {Path: "/r/n/came"}, {Path: "/r/n/again"},
	})
	if len(found) != 4 {
		t.Fatalf("found %v", found)
	}
	check(t, "events of what was found", play(tr,
		inotify.Event{WD: 5, Mask: unix.IN_CREATE | dir, Name: "sub"},
		inotify.Event{WD: 5, Mask: unix.IN_CREATE, Name: "f"},
		inotify.Event{WD: 1, Mask: unix.IN_MOVED_FROM, Cookie: 1, Name: "x"},
		inotify.Event{WD: 5, Mask: unix.IN_MOVED_TO, Cookie: 1, Name: "came"},
		inotify.Event{WD: 5, Mask: unix.IN_CREATE, Name: "again"},
		inotify.Event{WD: 5, Mask: unix.IN_DELETE, Name: "again"},
		inotify.Event{WD: 5, Mask: unix.IN_CREATE, Name: "again"},
		inotify.Event{WD: 6, Mask: unix.IN_CREATE, Name: "below"},
	), "4[/r/x ]", "3[/r/n/again]", "1[/r/n/again]", "1[/r/n/sub/below]")
}

// A directory was removed and made again before the first was listed: what is in
// the second is told after its making too.
func TestMadeAgainBeforeListed(t *testing.T) {
	const dir = unix.IN_ISDIR
	tr := tree()
	play(tr, inotify.Event{WD: 1, Mask: unix.IN_CREATE | dir, Name: "n"})
	second := []inotify.Entry{{Path: "/r/n", WD: 5}, {Path: "/r/n/f"}}
	tr.Found("/r/n", second)
	check(t, "changes", play(tr,
		inotify.Event{WD: 1, Mask: unix.IN_DELETE | dir, Name: "n"},
		inotify.Event{WD: 1, Mask: unix.IN_CREATE | dir, Name: "n"},
	), "3[/r/n]", "1[/r/n]", "scan /r/n")
	if found := tr.Found("/r/n", second); len(found) != 1 {
		t.Errorf("found %v", found)
	}
}

// A watched directory was moved into one that is new and was found there: it is
// not dropped when the move is told.
func TestMovedIntoNewDirectory(t *testing.T) {
	tr := tree()
	play(tr, inotify.Event{WD: 1, Mask: unix.IN_CREATE | unix.IN_ISDIR, Name: "n"})
	tr.Found("/r/n", []inotify.Entry{{Path: "/r/n", WD: 5}, {Path: "/r/n/d", WD: 2}, {Path: "/r/n/d/e", WD: 3}})
	check(t, "changes", play(tr,
		inotify.Event{WD: 1, Mask: unix.IN_MOVED_FROM | unix.IN_ISDIR, Cookie: 1, Name: "d"},
		inotify.Event{WD: 3, Mask: unix.IN_CREATE, Name: "f"},
	), "4[/r/d ]", "1[/r/n/d/e/f]")
}

func TestOverflowAndEnd(t *testing.T) {
	tr := tree()
	check(t, "overflow", play(tr, inotify.Event{WD: -1, Mask: unix.IN_Q_OVERFLOW}), "6[]", "rescan")
	drop := tr.Learn([]inotify.Entry{{Path: "/r", WD: 1}, {Path: "/r/other", WD: 3}})
	slices.Sort(drop)
	if !slices.Equal(drop, []int32{2, 4}) {
		t.Errorf("dropped %v", drop)
	}
	check(t, "after it", play(tr, inotify.Event{WD: 3, Mask: unix.IN_CREATE, Name: "f"}), "1[/r/other/f]")
	check(t, "removed", play(tr, inotify.Event{WD: 1, Mask: unix.IN_DELETE_SELF}), "3[/r]", "gone")
	check(t, "moved", play(tree(), inotify.Event{WD: 1, Mask: unix.IN_MOVE_SELF}), "4[/r ]", "gone")
	check(t, "unmounted", play(tree(), inotify.Event{WD: 1, Mask: unix.IN_UNMOUNT}, inotify.Event{WD: 1, Mask: unix.IN_IGNORED}), "gone")
}

// A first half waits for the second, but not for ever.
func TestHalves(t *testing.T) {
	var q inotify.Queue
	start := time.Now()
	from := inotify.Event{WD: 1, Mask: unix.IN_MOVED_FROM, Cookie: 1, Name: "a"}
	q.Add([]inotify.Event{from}, start)
	_, _, until, ok := q.Next(start)
	if ok || !until.Equal(start.Add(inotify.Patience)) {
		t.Fatalf("at once: %v, until %v", ok, until)
	}
	q.Add([]inotify.Event{{WD: 2, Mask: unix.IN_MOVED_TO, Cookie: 1, Name: "b"}}, start)
	ev, to, _, ok := q.Next(start)
	if !ok || ev != from || to == nil || to.Name != "b" {
		t.Fatalf("with its other half: %v %v %v", ev, to, ok)
	}
	if _, _, _, ok := q.Next(start); ok {
		t.Error("the other half came by itself too")
	}
	q.Add([]inotify.Event{from}, start)
	if _, to, _, ok := q.Next(start.Add(inotify.Patience)); !ok || to != nil {
		t.Errorf("after its time: %v %v", to, ok)
	}
}

// FuzzTree holds that whatever a descriptor gives, names stay below the root,
// the other half of a move never comes alone, and nothing is told twice.
func FuzzTree(f *testing.F) {
	f.Add(slices.Concat(raw(1, unix.IN_CREATE|unix.IN_ISDIR, 0, "n"), raw(2, unix.IN_MOVED_FROM, 3, "a"), raw(1, unix.IN_MOVED_TO, 3, "b")))
	f.Add(slices.Concat(raw(-1, unix.IN_Q_OVERFLOW, 0, ""), raw(1, unix.IN_MOVED_FROM|unix.IN_ISDIR, 1, "d"), raw(1, unix.IN_DELETE_SELF, 0, "")))
	f.Fuzz(func(t *testing.T, buf []byte) {
		events, err := inotify.Parse(buf)
		var q inotify.Queue
		now := time.Now()
		q.Add(events, now)
		tr, taken := tree(), 0
		for {
			ev, to, _, ok := q.Next(now.Add(inotify.Patience))
			if !ok {
				break
			}
			taken++
			if to != nil {
				taken++
			}
			for _, c := range tr.Event(ev, to).Changes {
				for _, name := range c.Names {
					if name != "" && name != "/r" && !strings.HasPrefix(name, "/r/") {
						t.Fatalf("%+v: %+v", ev, c)
					}
				}
				if (c.Op == driver.ChangeOverflow) != (len(c.Names) == 0) || (c.Op == driver.ChangeRename) != (len(c.Names) == 2) {
					t.Fatalf("%+v: %+v", ev, c)
				}
			}
		}
		if taken != len(events) {
			t.Fatalf("%d of %d events came (%v)", taken, len(events), err)
		}
	})
}
