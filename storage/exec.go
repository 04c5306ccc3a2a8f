package storage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

// streamBuffer is the size of the buffers between this process and a sandbox's, in
// bytes.
const streamBuffer = 256 << 10

// sandboxed is a place in a sandbox, reached by commands alone.
type sandboxed struct {
	v   *Volume
	sb  Runner
	dir string
}

// errStopped is what a stage of a pipeline sees when the one after it gave up.
var errStopped = errors.New("stopped reading")

// run runs a script, and parse on its output. parse reads to the output's end, or
// its error is the result.
func (s *sandboxed) run(ctx context.Context, stdin io.Reader, parse func(*bufio.Reader) error, script string, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	parsed := make(chan error, 1)
	go func() {
		err := parse(bufio.NewReaderSize(r, streamBuffer))
		if err != nil {
			cancel(err)
		}
		_ = r.CloseWithError(errStopped) // never fails
		parsed <- err
	}()
	err := s.sb.Run(ctx, stdin, w, "sh", append([]string{"-c", script, "sh", s.dir}, args...)...)
	if err == nil {
		_ = w.Close()
	} else {
		_ = w.CloseWithError(err)
	}
	parseErr := <-parsed
	if parseErr != nil && (err == nil || !errors.Is(parseErr, err)) {
		return parseErr
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
