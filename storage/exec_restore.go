package storage

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

func (s *sandboxed) begin(ctx context.Context) (stage, error) {
	id := strings.ToLower(rand.Text())
	kind, err := runScript(ctx, s.sb, nil, prepareScript, s.dir, id)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", s.dir, err)
	}
	st := &sandboxStage{sandboxed: s, id: id, dialect: tarstream.Posix}
	if kind != "gnu" {
		st.dialect = tarstream.Busybox
	}
	return st, nil
}

// sandboxStage is a restore that is being prepared in a sandbox.
type sandboxStage struct {
	*sandboxed
	id      string
	dialect tarstream.Dialect
}

// feed runs a script on the archive that write makes. When the script fails, stop is
// to make write return.
func (s *sandboxStage) feed(ctx context.Context, write func(*tarstream.Writer) error, stop func(error), script string, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		out := bufio.NewWriterSize(w, streamBuffer)
		tw := tarstream.NewWriter(out, s.dialect)
		err := write(tw)
		if err == nil {
			err = errors.Join(tw.Close(), out.Flush())
		}
		if err != nil && !errors.Is(err, errStopped) {
			// A command may take a broken stdin for its end, so end it too.
			cancel(err)
		}
		_ = w.CloseWithError(err) // never fails
		written <- err
	}()
	text, runErr := runScript(ctx, s.sb, r, script, append([]string{s.dir, s.id}, args...)...)
	_ = r.CloseWithError(errStopped)
	if runErr != nil {
		stop(errStopped) // frees a writer that waits for the bucket
	}
	err := <-written
	switch {
	case err != nil && !errors.Is(err, errStopped) && (runErr == nil || errors.Is(context.Cause(ctx), err)):
		return err
	case runErr != nil:
		return runErr
	case err != nil:
		return withWords(err, text)
	}
	return nil
}

func (s *sandboxStage) fill(ctx context.Context, entries []*tree.Entry, out *outlet) error {
	owners := "no"
	if s.v.opts.Owners {
		owners = "owners"
	}
	for _, e := range entries { // first, as hard links may lead to them
		if s.direct(e) {
			if err := s.fetchDirect(ctx, e, out.meter); err != nil {
				return fmt.Errorf("write files to %s: %w", s.dir, err)
			}
			out.done(e)
		}
	}
	err := s.feed(ctx, func(w *tarstream.Writer) error {
		for _, e := range entries {
			if s.direct(e) {
				continue
			}
			if err := s.write(w, e, out); err != nil {
				return err
			}
		}
		return nil
	}, out.stop, fillScript, owners)
	if err != nil {
		return fmt.Errorf("write files to %s: %w", s.dir, err)
	}
	return nil
}

func (s *sandboxStage) direct(e *tree.Entry) bool { return s.v.directly(e) }

// memberOf gives the header for an entry.
func memberOf(e *tree.Entry) *tarstream.Member {
	m := &tarstream.Member{Name: "./" + e.Path, Link: e.Link, Mode: int64(e.Mode), UID: e.UID, GID: e.GID, Mtime: e.Mtime}
	switch e.Kind {
	case tree.Dir:
		m.Kind = tarstream.Dir
		if e.Path != "" {
			m.Name += "/"
		}
	case tree.Symlink:
		m.Kind = tarstream.Symlink
	case tree.Hardlink:
		m.Kind, m.Link = tarstream.Hard, "./"+e.Link
	case tree.File:
		m.Kind, m.Size, m.Real = tarstream.Regular, e.Size, e.Size
	}
	return m
}

func (s *sandboxStage) write(w *tarstream.Writer, e *tree.Entry, out *outlet) error {
	m := memberOf(e)
	if e.Kind == tree.Dir {
		m.Mode |= 0o700 // its own comes when nothing in it will change
	}
	return writeEntry(w, m, e, out)
}

// writeEntry writes an entry as m, with its contents.
func writeEntry(w *tarstream.Writer, m *tarstream.Member, e *tree.Entry, out *outlet) error {
	var runs []tarstream.Run
	at := int64(0)
	for _, c := range e.Chunks {
		switch {
		case c.Blob == nil:
			m.Sparse = true
		case len(runs) > 0 && runs[len(runs)-1].Off+runs[len(runs)-1].Len == at:
			runs[len(runs)-1].Len += c.Size
		default:
			runs = append(runs, tarstream.Run{Off: at, Len: c.Size})
		}
		at += c.Size
	}
	if m.Sparse && (len(runs) == 0 || runs[len(runs)-1].Off+runs[len(runs)-1].Len < e.Size) {
		runs = append(runs, tarstream.Run{Off: e.Size}) // as GNU tar marks the end
	}
	if err := w.Begin(m, runs); err != nil {
		return err
	}
	for _, c := range e.Chunks {
		if c.Blob == nil {
			if err := w.Hole(c.Size); err != nil {
				return err
			}
			continue
		}
		data, err := out.next(c.Blob)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	out.done(e)
	return nil
}

func (s *sandboxStage) apply(ctx context.Context, p *plan) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
	defer cancel()
	err := s.feed(ctx, func(w *tarstream.Writer) error {
		for _, f := range p.files(s.dialect) {
			m := &tarstream.Member{Kind: tarstream.Regular, Name: "./" + f.name, Mode: 0o600, Size: int64(len(f.data))}
			if err := w.Begin(m, nil); err != nil {
				return err
			}
			if _, err := w.Write(f.data); err != nil {
				return err
			}
		}
		return nil
	}, func(error) {}, applyScript)
	if err != nil {
		return fmt.Errorf("exchange files in %s: %w", s.dir, err)
	}
	return nil
}

func (s *sandboxStage) drop(ctx context.Context) (finished bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTime)
	defer cancel()
	end, err := runScript(ctx, s.sb, nil, cleanScript, s.dir, s.id)
	if err != nil {
		return false, fmt.Errorf("clean up %s: %w", s.dir, err)
	}
	return end == "finished", nil
}
