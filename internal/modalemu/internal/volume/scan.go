package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// maxEntries is how many names a volume has room for; Modal's has as many.
	maxEntries = 500_000
	// maxPath is the longest path that a volume keeps: no system call takes more.
	maxPath = 4000
	// maxDepth is how deep the directories of a volume may be.
	maxDepth = 256
	// readBatch is how many names of a directory are read at once.
	readBatch = 1024
)

// scan is one walk through a copy.
type scan struct {
	found   map[string]stamp
	depth   int
	tooLong error // set when something was left out
}

// walk finds everything below root that a volume keeps. The zero scan may be
// used once.
func (s *scan) walk(ctx context.Context, root *os.Root) error {
	s.found = make(map[string]stamp)
	return s.dir(ctx, root, "")
}

// dir looks through an open directory, whose path is prefix.
func (s *scan) dir(ctx context.Context, dir *os.Root, prefix string) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := f.Readdirnames(readBatch)
		if errors.Is(err, io.EOF) || gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := s.add(ctx, dir, name, path.Join(prefix, name)); err != nil {
				return err
			}
		}
	}
}

// add notes the file name of dir, and what is in it.
func (s *scan) add(ctx context.Context, dir *os.Root, name, full string) error {
	if len(full) > maxPath || s.depth > maxDepth {
		if s.tooLong == nil {
			s.tooLong = fmt.Errorf("%w: a volume keeps no path of more than %d bytes or %d directories, such as %.60q...", driver.ErrInvalid, maxPath, maxDepth, full)
		}
		return nil
	}
	info, err := dir.Lstat(name)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := stampOf(dir, name, info)
	if err != nil || st.kind == other {
		return err
	}
	if len(s.found) >= maxEntries {
		return fmt.Errorf("%w: a volume has room for %d files", driver.ErrExhausted, maxEntries)
	}
	s.found[full] = st
	if st.kind != directory {
		return nil
	}
	sub, err := openDir(dir, name, info)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	s.depth++
	defer func() { s.depth-- }()
	return s.dir(ctx, sub, full)
}

// stampOf is the stamp of the file name of dir, which info is of.
func stampOf(dir *os.Root, name string, info fs.FileInfo) (stamp, error) {
	s := stamp{kind: kindOf(info.Mode()), mode: info.Mode() & permissions}
	s.owned(info)
	switch s.kind {
	case regular:
		s.size = info.Size()
	case link:
		s.mode = 0
		target, err := dir.Readlink(name)
		if gone(err) {
			return stamp{}, nil
		}
		if err != nil {
			return stamp{}, err
		}
		s.target = target
	}
	return s, nil
}

// openDir opens the directory that info is of, and nothing else that may have
// taken its name since. One that this process's user may not use, which root
// never meets, is made usable.
func openDir(dir *os.Root, name string, info fs.FileInfo) (*os.Root, error) {
	if os.Geteuid() != 0 && info.Mode()&0o700 != 0o700 {
		if err := dir.Chmod(name, info.Mode()&permissions|0o700); err != nil {
			return nil, err
		}
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	now, err := sub.Stat(".")
	if err == nil && !os.SameFile(info, now) {
		err = fs.ErrNotExist
	}
	if err != nil {
		sub.Close()
		return nil, err
	}
	return sub, nil
}
