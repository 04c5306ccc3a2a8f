package runlog

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/vivarium-go/vivarium/sandbox"
)

// readSize is how much is asked for at once, in bytes.
const readSize = 64 << 10

// Record copies what a job writes to stdout into its log, from where the log stands,
// until the job has ended, and returns how it ended. It does not finish the run: who
// calls it knows what the end means. Called for a log that has all of it, it adds
// nothing, so it is what a process does that takes a run over.
//
// A job that is lost matches sandbox.ErrJobLost when all that it wrote is in the log;
// the end of the sandbox matches sandbox.ErrEnded, and then the log has what came
// until then. The caller keeps w, and finishes and closes it.
func Record(ctx context.Context, w Writer, job *sandbox.Job) (*sandbox.Exit, error) {
	out, err := job.Output(ctx, w.Info().Bytes)
	if err != nil {
		return nil, err
	}
	j := NewJournal(ctx, w)
	j.skip = 0 // it is read from where the log stands
	_, err = io.CopyBuffer(j, out, make([]byte, readSize))
	if err == nil || errors.Is(err, sandbox.ErrJobLost) { // no more can come
		err = errors.Join(err, j.Flush())
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	return job.Wait(ctx)
}

// Journal appends to a log the lines of what is written to it: a run's journal from its
// first byte on, of which it passes over what the log has already. So it is what
// claude.Options.Journal takes, for a run that is started as well as for one that is
// taken over. It is for one goroutine. After an error it takes nothing more.
type Journal struct {
	ctx  context.Context
	w    Writer
	skip int64  // bytes that the log has
	rest []byte // the begin of a line
	err  error
}

// NewJournal returns a Journal for a log as it stands. ctx bounds what is appended. The
// caller keeps w, and finishes and closes it.
func NewJournal(ctx context.Context, w Writer) *Journal {
	return &Journal{ctx: ctx, w: w, skip: w.Info().Bytes}
}

// Write implements io.Writer. A line is in the log when its newline was written.
func (j *Journal) Write(p []byte) (int, error) {
	if j.err != nil {
		return 0, j.err
	}
	n := len(p)
	passed := int(min(j.skip, int64(n)))
	j.skip -= int64(passed)
	p = p[passed:]
	end := bytes.LastIndexByte(p, '\n') + 1
	if end == 0 {
		j.rest = append(j.rest, p...)
		return n, nil
	}
	var lines [][]byte
	for line := range bytes.Lines(p[:end]) {
		if len(j.rest) > 0 {
			line = append(j.rest, line...)
			j.rest = nil
		}
		lines = append(lines, line)
	}
	j.rest = append(j.rest, p[end:]...)
	if j.err = j.w.Append(j.ctx, lines); j.err != nil {
		return 0, j.err
	}
	return n, nil
}

// Flush appends a last line that has no newline. It is for the end of a run: what came
// after it would be another line.
func (j *Journal) Flush() error {
	if j.err == nil && len(j.rest) > 0 {
		j.err = j.w.Append(j.ctx, [][]byte{j.rest})
		j.rest = nil
	}
	return j.err
}
