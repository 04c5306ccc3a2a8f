// Package runlog keeps runs as append-only logs of numbered lines, which any number
// of followers read from any line on, while a run goes on and after, and after the
// process that wrote it was killed.
//
// The lines are those of the journal that a [sandbox.Job] keeps inside its sandbox:
// [Record] copies them from where the log stands, so that a process that takes a run
// over adds what was missed, once and in order. How far a log is, is told by the log
// alone: the number of its lines, and of their bytes, which is the place in the
// journal.
//
// A [Store] keeps the logs: [Memory] or a directory ([Open]). runlogtest checks
// others.
package runlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/vivarium-go/vivarium/claude"
)

// Line is one line of a run.
type Line struct {
	// N is its number, from 1.
	N int64
	// Data is the line with its newline; only the last one of a run may have none.
	// It is the receiver's to keep.
	Data []byte
}

// End is how a run ended.
type End struct {
	Reason claude.End `json:"reason"`
	// Detail is for people.
	Detail string    `json:"detail,omitempty"`
	Time   time.Time `json:"time"`
}

// Info describes a log.
type Info struct {
	Run string
	// Lines and Bytes are how much there is.
	Lines, Bytes int64
	// End is nil while the run has not ended.
	End *End
}

// Store keeps logs by the names of their runs: 1 to 100 letters, digits, '.', '_' and
// '-', the first a letter or a digit; another name matches fs.ErrInvalid. All methods
// are safe for concurrent use. A log that is not there matches fs.ErrNotExist, and one
// that is damaged ErrCorrupt.
type Store interface {
	// Write opens a log to append to, and makes it if it is not there. That is a
	// lease: while one has it, in this process or another, others get ErrBusy. It
	// ends with Close, and with the process. The caller closes the Writer.
	Write(ctx context.Context, run string) (Writer, error)

	// Read gives what there is from line from on, and ends without an error where
	// the log ends at present. Numbers below 1 mean 1.
	Read(ctx context.Context, run string, from int64) iter.Seq2[Line, error]

	// Stat describes a log.
	Stat(ctx context.Context, run string) (*Info, error)

	// Follow gives the lines from line from on, those that are there and those that
	// come, each once and in order, and ends without an error when the run has ended
	// and all were given. A follower reads at its own pace: a slow one holds up nobody
	// and loses nothing. What it was given last, plus one, is where it can go on after
	// an error, such as the cause of ctx's end. A log that is deleted meanwhile matches
	// fs.ErrNotExist.
	Follow(ctx context.Context, run string, from int64) iter.Seq2[Line, error]

	// List gives all logs, by name. The first error ends it.
	List(ctx context.Context) iter.Seq2[*Info, error]

	// Delete removes a log. One that is being written matches ErrBusy; one that is
	// not there is no error.
	Delete(ctx context.Context, run string) error
}

// Writer appends to one log. It is for one goroutine.
type Writer interface {
	// Info describes the log as it stands.
	Info() Info

	// Append adds lines, all or none, which have the next numbers; where the process is
	// killed meanwhile a first part of them may be there. Each but the last
	// one of a run ends in a newline. It does not keep them. A run that has ended
	// matches ErrEnded.
	Append(ctx context.Context, lines [][]byte) error

	// Finish ends the run: nothing comes after. A zero Time means now. After an error
	// the run may have ended or not, which the next Writer tells.
	Finish(ctx context.Context, end End) error

	// Close lets go of the log. Closing again is no error.
	Close() error
}

// Errors to match with errors.Is.
var (
	// ErrBusy: somebody else writes that log.
	ErrBusy = errors.New("runlog: somebody else writes this log")
	// ErrEnded: the run has ended, and its log takes no more.
	ErrEnded = errors.New("runlog: the run has ended")
	// ErrCorrupt: the log is not what was written. Nothing of it is changed.
	ErrCorrupt = errors.New("runlog: the log is damaged")
)

// maxName bounds the name of a run, in bytes.
const maxName = 100

// CheckRun returns nil when a run can have that name, and otherwise an error that
// matches fs.ErrInvalid.
func CheckRun(run string) error {
	ok := run != "" && len(run) <= maxName
	for i := range len(run) {
		c := run[i]
		alnum := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && (c == '.' || c == '_' || c == '-'))
	}
	if !ok {
		return fmt.Errorf("runlog: %.120q is no name of a run: use 1 to %d letters, digits, '.', '_' and '-': %w", run, maxName, fs.ErrInvalid)
	}
	return nil
}
