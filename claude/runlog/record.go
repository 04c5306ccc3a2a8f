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
	err = appendLines(ctx, w, out)
	if err = errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	return job.Wait(ctx)
}

// appendLines appends what r gives. A line without a newline is added only where no
// more can come: at r's end, or that of a job that is lost.
func appendLines(ctx context.Context, w Writer, r io.Reader) error {
	var rest []byte // the begin of a line
	var lines [][]byte
	buf := make([]byte, readSize)
	for {
		n, readErr := r.Read(buf)
		rest = append(rest, buf[:n]...)
		lines = lines[:0]
		at := len(rest) - n // there is no newline before
		for begin := 0; ; {
			i := bytes.IndexByte(rest[at:], '\n')
			if i < 0 {
				rest = rest[begin:]
				break
			}
			at += i + 1
			lines = append(lines, rest[begin:at])
			begin = at
		}
		over := errors.Is(readErr, io.EOF) || errors.Is(readErr, sandbox.ErrJobLost)
		if over && len(rest) > 0 {
			lines = append(lines, rest)
		}
		if len(lines) > 0 {
			if err := w.Append(ctx, lines); err != nil {
				return err
			}
			rest = append([]byte(nil), rest...)
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}
