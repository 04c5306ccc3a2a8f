//go:build unix

// Package lineage marks a command so that everything that comes from it can be
// found again, also what changed its process group, its session, its parent
// and its environment, and without a cgroup.
//
// The mark is the limit RLIMIT_RTTIME (setrlimit(2)), which means nothing to a
// process without real-time scheduling. It is inherited over fork and exec, an
// unprivileged process can never raise it, and anybody of the same user can
// read it. Before each command the helper lowers its own limit by one, so each
// command has a number of its own and its descendants keep it. Inside an
// isolated sandbox the seccomp filter lets only the helper change the limit.
package lineage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	base        = 1 << 62
	sequenceBit = 24
	maxSequence = 1<<sequenceBit - 1
	familyMask  = 1<<36 - 1
)

// ErrExhausted is returned when a sandbox has started 2^24 commands.
var ErrExhausted = errors.New("no more commands can be told apart in this sandbox")

// Family tells the sandboxes apart that see one another's processes.
type Family uint64

// NewFamily picks a family at random.
func NewFamily() Family {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, it says
	return Family(binary.LittleEndian.Uint64(b[:]) & familyMask)
}

// Tag is the mark of one command.
type Tag uint64

// Tag is the mark of the family's command number seq; later ones are lower.
func (f Family) Tag(seq uint64) (Tag, error) {
	if seq > maxSequence {
		return 0, ErrExhausted
	}
	return Tag(base | uint64(f)<<sequenceBit | (maxSequence - seq)), nil
}

// Is selects the processes of one command.
func (t Tag) Is(limit uint64) bool { return limit == uint64(t) }

// End kills every process of the family. Those that are left when patience has
// passed are an error; a system without marks has none to be found.
func (f Family) End(patience time.Duration) error {
	left, err := Kill(f.Has, patience)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err == nil && left > 0:
		return fmt.Errorf("%d processes have not ended after SIGKILL within %v", left, patience)
	}
	return err
}

// Has selects the processes of every command of the family.
func (f Family) Has(limit uint64) bool {
	return limit>>sequenceBit == (base|uint64(f)<<sequenceBit)>>sequenceBit
}
