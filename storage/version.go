package storage

import (
	"crypto/rand"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Version is one stored state of a volume.
type Version struct {
	// ID names the version within its volume. IDs sort as text in the order of
	// their times.
	ID string
	// Time is when the version's Sync began, in UTC. It is always after the
	// times of the versions that existed then, whatever the clocks of the
	// machines that made them say.
	Time time.Time
	// Parent is the ID of the version that was the newest when the Sync began, or
	// that Options.Parent named; "" for the first.
	Parent string
	// Conflict says that another writer's version became the newest first, and that
	// this one was kept beside it (Options.KeepConflict). Init never restores it.
	Conflict bool
	// Author and Note are Options.Author and Options.Note of the Sync.
	Author, Note string
	// Files counts regular files, hard links included; Dirs directories, the
	// volume's own not included; Links symbolic links.
	Files, Dirs, Links int64
	// Size is the sum of the files' lengths in bytes, holes included and hard
	// links counted once.
	Size int64
	// Stored is what the version's contents take in the bucket, in bytes,
	// whichever versions they are shared with. Added is what its Sync added to the
	// bucket.
	Stored, Added int64
	// Changed names up to 100 files that went on changing while they were
	// read, through several attempts. Such a file may hold a mixture of moments. A
	// Sync while nothing writes leaves it empty.
	Changed []string
	// Skipped names up to 100 devices, sockets and pipes that are not part of the
	// version; SkippedCount counts them all.
	Skipped      []string
	SkippedCount int64
}

// maxNames bounds Changed and Skipped.
const maxNames = 100

// A version's id is its time to the nanosecond, the number of its slot, and 8
// random base32 digits, all in lower case so that stores which fold case keep them
// apart.
const idLayout = "20060102-150405.000000000"

var idShape = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}\.[0-9]{9}-[1-9][0-9]{0,9}-[a-z2-7]{8}$`)

func newID(t time.Time, slot uint64) string {
	return t.UTC().Format(idLayout) + "-" + strconv.FormatUint(slot, 10) + "-" + newNonce()
}

// newNonce gives 8 random digits: 40 bits.
func newNonce() string { return strings.ToLower(rand.Text())[:8] }

// IsVersionID reports whether id has the form of a Version's ID. Whether a volume has
// that version is another question.
func IsVersionID(id string) bool {
	_, _, ok := parseID(id)
	return ok
}

// parseID gives the time and the slot in an id, and whether it is well formed.
func parseID(id string) (t time.Time, slot uint64, ok bool) {
	if !idShape.MatchString(id) {
		return t, 0, false
	}
	t, err := time.Parse(idLayout, id[:len(idLayout)])
	if err != nil {
		return t, 0, false
	}
	digits, _, _ := strings.Cut(id[len(idLayout)+1:], "-")
	slot, err = strconv.ParseUint(digits, 10, 64)
	return t, slot, err == nil && slot <= maxSlot
}
