package storage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

func (s *sandboxed) read(ctx context.Context, want []*found, in *intake) (steady bool, err error) {
	var plain, sparse, large []*found
	for _, f := range want {
		if f.Kind == tree.File && s.v.goesDirect(f.Size, f.sparse) {
			large = append(large, f)
		} else if f.sparse {
			sparse = append(sparse, f)
		} else {
			plain = append(plain, f)
		}
	}
	steady, err = s.readSome(ctx, plain, in, "plain")
	if err != nil {
		return false, err
	}
	alsoSteady, err := s.readSome(ctx, sparse, in, "sparse")
	steady = steady && alsoSteady
	if len(large) > 0 && err == nil {
		_, err = PresignerOf(s.v.bucket)
	}
	for _, f := range large {
		if err != nil {
			return false, err
		}
		alsoSteady, err = s.readDirect(ctx, f, in)
		steady = steady && alsoSteady
	}
	return steady, err
}

// readSome reads files of which all have holes, or none.
func (s *sandboxed) readSome(ctx context.Context, want []*found, in *intake, kind string) (steady bool, err error) {
	if len(want) == 0 {
		return true, nil
	}
	var names bytes.Buffer
	byName := make(map[string]*found, len(want))
	for _, f := range want {
		names.WriteString("./" + f.Path + "\x00")
		byName[f.Path] = f
	}
	err = s.run(ctx, &names, func(r *bufio.Reader) error {
		same, parseErr := takeArchive(r, byName, in)
		if parseErr != nil && in.ctx.Err() != nil {
			return parseErr
		}
		said, last, err := status(r)
		switch {
		case err != nil:
			return reason(parseErr, err)
		case last == "failed":
			return errors.New(clipTail(said))
		case parseErr != nil:
			return withWords(parseErr, said)
		}
		// GNU tar says with 1 that something changed. With more it could not read
		// something, which matters if that is still there at the next listing.
		steady = same && last == "gnu 0"
		if !steady && !strings.HasPrefix(last, "gnu ") && !strings.HasPrefix(last, "other ") {
			return fmt.Errorf("tar: %s", clipTail(said))
		}
		in.said = clipTail(said)
		return nil
	}, readScript, kind)
	if err != nil {
		return false, fmt.Errorf("read files in %s: %w", s.dir, err)
	}
	return steady, nil
}

// takeArchive hands the members of a stream of archives to in. What was not asked
// for is passed over. It reports whether all came, as they were listed.
func takeArchive(r *bufio.Reader, byName map[string]*found, in *intake) (same bool, err error) {
	tr := tarstream.NewReader(r, statusMark)
	left, same := len(byName), true
	for {
		m, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return same && left == 0, nil
		}
		if err != nil {
			return false, err
		}
		f := byName[strings.TrimPrefix(m.Name, "./")]
		if f == nil || f.read != nil {
			continue
		}
		left--
		switch {
		case m.Kind == tarstream.Symlink && f.Kind == tree.Symlink:
			in.link(f, m.Link)
		case m.Kind == tarstream.Regular && f.Kind == tree.File:
			if err := takeFile(tr, m, f, in); err != nil {
				return false, err
			}
			same = same && f.read.size == f.Size
		default:
			same = false // it is something else by now
		}
	}
}

func takeFile(tr *tarstream.Reader, m *tarstream.Member, f *found, in *intake) error {
	in.begin(f)
	defer in.end()
	if !m.Sparse {
		return in.data(tr, m.Size)
	}
	runs, err := tr.Runs(m)
	if err != nil {
		return err
	}
	at := int64(0)
	for _, run := range runs {
		in.hole(run.Off - at)
		if err := in.data(tr, run.Len); err != nil {
			return err
		}
		at = run.Off + run.Len
	}
	in.hole(m.Real - at)
	return nil
}
