package sandbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"
)

// Output follows what the command writes to stdout, from byte from on: Read gives
// what there is, waits for more, and returns io.EOF when the job has ended and all
// was read. It costs a watch and an open file of the sandbox until Close, which also
// ends a Read that waits; the end of ctx does likewise. Its Read is for one goroutine.
//
// A job that is lost gives all that it wrote and then an error that matches
// ErrJobLost in the place of io.EOF.
func (j *Job) Output(ctx context.Context, from int64) (io.ReadCloser, error) {
	return j.follow(ctx, "out", from)
}

// Stderr follows stderr as Output follows stdout.
func (j *Job) Stderr(ctx context.Context, from int64) (io.ReadCloser, error) {
	return j.follow(ctx, "err", from)
}

func (j *Job) follow(ctx context.Context, name string, from int64) (io.ReadCloser, error) {
	if from < 0 {
		return nil, j.fail("follow job", errors.Join(ErrInvalid, errors.New("the first byte is number 0")))
	}
	ctx, stop := context.WithCancelCause(ctx)
	return &jobReader{job: j, ctx: ctx, stop: stop, name: name, at: from, watch: j.watch(ctx)}, nil
}

// jobReader follows a file that grows.
type jobReader struct {
	job   *Job
	ctx   context.Context
	stop  context.CancelCauseFunc
	name  string
	watch *jobWatch

	reading sync.Mutex // held by Read, which ends with ctx
	at      int64
	file    *File // nil until it is there
	end     error // what to return when all was read; nil while the job runs
}

// Read implements io.Reader.
func (r *jobReader) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	n, err := r.read(p)
	if err != nil && err != io.EOF {
		if cause := context.Cause(r.ctx); cause != nil {
			err = cause
		}
		err = r.job.fail("follow job", err)
	}
	return n, err
}

func (r *jobReader) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := context.Cause(r.ctx); err != nil { // closed
		return 0, err
	}
	for {
		if n, err := r.more(p); n > 0 || err != nil {
			return n, err
		}
		if r.end != nil {
			return 0, r.end
		}
		exit, err := r.watch.next(r.ctx)
		switch {
		case exit != nil:
			r.end = io.EOF // what it wrote is there by now
		case errors.Is(err, ErrJobLost):
			r.end = err
		case err != nil:
			return 0, err
		}
	}
}

// more reads what there is.
func (r *jobReader) more(p []byte) (int, error) {
	if r.file == nil {
		file, err := r.job.sb.FSAt(r.ctx, r.job.dir).Open(r.name)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil // yet
		}
		if err != nil {
			return 0, err
		}
		r.file, _ = file.(*File)
		if r.file == nil {
			return 0, errors.Join(fs.ErrInvalid, file.Close())
		}
		if _, err := r.file.Seek(r.at, io.SeekStart); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(p)
	r.at += int64(n)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// Close implements io.Closer.
func (r *jobReader) Close() error {
	r.stop(fs.ErrClosed)
	r.watch.stop()
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.file == nil {
		return nil
	}
	file := r.file
	r.file = nil
	return file.Close()
}

// How often the job's files are looked at where nobody tells of changes, and how
// often it is looked whether a silent job is still there.
const (
	pollAtFirst = 5 * time.Millisecond
	pollAtMost  = 250 * time.Millisecond
	lookAfter   = 5 * time.Second
)

// jobWatch waits for changes of a job's files.
type jobWatch struct {
	job    *Job
	cancel context.CancelFunc
	done   chan struct{} // closed when the watch has ended
	wake   chan struct{}
	ended  atomic.Bool // the exit may have been told; it has at the start

	poll  time.Duration // since the last change
	quiet time.Duration // how long nothing was heard
	since time.Time     // when it began
}

// watch begins to watch. What happens from then on wakes next.
func (j *Job) watch(ctx context.Context) *jobWatch {
	ctx, cancel := context.WithCancel(ctx)
	w := &jobWatch{job: j, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1), poll: pollAtFirst, since: time.Now()}
	w.ended.Store(true)
	seq, err := j.sb.FSAt(ctx, j.dir).Watch(".", false)
	if err != nil {
		close(w.done) // next looks by itself
		return w
	}
	go func() {
		defer close(w.done)
		for change, err := range seq {
			if err != nil {
				return
			}
			if change.Op == ChangeAccess {
				continue // as by those who read
			}
			w.notice(change)
		}
	}()
	return w
}

func (w *jobWatch) notice(change Change) {
	for _, name := range change.Names {
		if path.Base(name) == "exit" {
			w.ended.Store(true)
		}
	}
	if change.Op == ChangeOverflow {
		w.ended.Store(true)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *jobWatch) stop() {
	w.cancel()
	<-w.done
}

// next waits for a change, or until it is time to look without one. It returns the
// exit when that is told, and an error that matches ErrJobLost when it never will be.
func (w *jobWatch) next(ctx context.Context) (*Exit, error) {
	if w.ended.Swap(false) {
		if exit, err := w.job.exit(ctx); exit != nil || err != nil {
			return exit, err
		}
	}
	pause, polls := lookAfter, false
	select {
	case <-w.done:
		pause, polls = w.poll, true
	default:
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	done := w.done
	if polls {
		done = nil
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-w.wake:
		w.quiet, w.poll = 0, pollAtFirst
		return nil, nil
	case <-done:
		w.ended.Store(true)
		return nil, nil
	case <-timer.C:
	}
	if polls {
		w.ended.Store(true)
		w.poll = min(2*w.poll, pollAtMost)
	}
	if w.quiet += pause; w.quiet < lookAfter {
		return nil, nil
	}
	w.quiet = 0
	return w.look(ctx)
}

// look asks whether a job of which nothing is heard is still there.
func (w *jobWatch) look(ctx context.Context) (*Exit, error) {
	st, starting, err := w.job.status(ctx)
	switch {
	case err != nil:
		return nil, err
	case st.Lost, starting && time.Since(w.since) > startGrace:
		return nil, ErrJobLost
	}
	return st.Exit, nil
}
