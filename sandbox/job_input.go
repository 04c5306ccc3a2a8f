package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
)

// WriteStdin sends data to the command's standard input and returns when it is in
// the pipe there: it waits while the command does not read. Nothing is sent before
// all of data has arrived in the sandbox, so that a process that dies here leaves no
// half line; when it has, it is sent whatever becomes of ctx and of this process, and
// Input tells. One WriteStdin follows the other, those of other processes too. An input
// that was ended, by CloseStdin or the command's end, matches os.ErrClosed, a full disk
// syscall.ENOSPC.
func (j *Job) WriteStdin(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	said, err := j.ask(ctx, bytes.NewReader(data), jobWrite, rand.Text(), strconv.Itoa(len(data)))
	return j.fail("write to job", stdinError(said, err))
}

// CloseStdin ends the command's standard input after what was written. Doing it
// again is no error.
func (j *Job) CloseStdin(ctx context.Context) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	said, err := j.ask(ctx, nil, jobWrite, rand.Text(), "-")
	if said == "gone" { // or the command has ended
		said = "sent"
	}
	return j.fail("close input of job", stdinError(said, err))
}

func stdinError(said string, err error) error {
	switch {
	case err != nil:
		return err
	case said == "sent":
		return nil
	case said == "gone":
		return os.ErrClosed
	case said == "no stdin":
		return fmt.Errorf("%w: it was started without Stdin, or was removed", ErrInvalid)
	}
	return unexpected(said)
}

// Input gives all that was taken for the command's standard input so far, the first byte
// first: whole WriteStdins, each once, also one whose answer nobody got. It is what a
// process that takes the job over knows the conversation by.
func (j *Job) Input(ctx context.Context) ([]byte, error) {
	data, err := j.read(ctx, "sent")
	return data, j.fail("read input of job", err)
}

// Note gives JobConfig.Note; nothing where there was none.
func (j *Job) Note(ctx context.Context) ([]byte, error) {
	data, err := j.read(ctx, "note")
	return data, j.fail("read note of job", err)
}

// read gives one of the job's files that need not be there.
func (j *Job) read(ctx context.Context, name string) ([]byte, error) {
	files := j.sb.FSAt(ctx, j.dir)
	data, err := fs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = files.Stat(".") // the job, or only the file
	}
	return data, err
}
