package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// openRegular opens the regular file that st was made of, and nothing else that
// may have taken its name since, and tells its stamp as it is now.
func openRegular(root *os.Root, name string, st stamp) (*os.File, stamp, error) {
	const flag = os.O_RDONLY | syscall.O_NONBLOCK // a FIFO would block
	f, err := root.OpenFile(name, flag, 0)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		if err := root.Chmod(name, st.mode|0o400); err != nil {
			return nil, stamp{}, err
		}
		f, err = root.OpenFile(name, flag, 0)
	}
	if err != nil {
		return nil, stamp{}, err
	}
	now, err := stampOfFile(f)
	if err == nil && (now.kind != regular || now.inode != st.inode) {
		err = errChanged
	}
	if err != nil {
		f.Close()
		return nil, stamp{}, err
	}
	return f, now, nil
}

func stampOfFile(f *os.File) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	return stampOf(nil, "", info) // a link cannot be open
}

// stampAt is the stamp of what has that name; the zero stamp where nothing has.
func stampAt(root *os.Root, name string) (stamp, error) {
	info, err := root.Lstat(name)
	if gone(err) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	return stampOf(root, name, info)
}

// own gives a file the owner, mode and time of st. Only root may give files to
// others.
func own(root *os.Root, name string, st stamp) error {
	if os.Geteuid() == 0 {
		if err := root.Lchown(name, st.uid, st.gid); err != nil {
			return err
		}
	}
	if st.kind == link {
		return nil
	}
	mode := st.mode
	if st.kind == directory && os.Geteuid() != 0 {
		mode |= 0o700 // or nothing could be put into it, or taken from it
	}
	if err := root.Chmod(name, mode); err != nil || st.kind == directory {
		return err
	}
	mtime := time.Unix(0, int64(st.mtime))
	return root.Chtimes(name, mtime, mtime)
}

// copyIn copies src, of which st is, to a new file of root that is like it.
func copyIn(ctx context.Context, root *os.Root, name string, src *os.File, st stamp) error {
	dst, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = copyContent(ctx, dst, src, st.size)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = own(root, name, st)
	}
	if err != nil {
		_ = root.Remove(name) // the first error is the one to tell
	}
	return err
}
