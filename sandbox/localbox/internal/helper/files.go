//go:build unix

package helper

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// pageSize is how many files one reply of a directory's holds.
const pageSize = 512

// openFlags are the flags of package os.
const openFlags = os.O_RDONLY | os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREATE | os.O_EXCL | os.O_SYNC | os.O_TRUNC

// tree is the files of a sandbox. Names are absolute and clean, as the inside
// sees them.
type tree interface {
	open(name string, flag int, perm fs.FileMode) (*os.File, error)
	stat(name string, follow bool) (fs.FileInfo, error)
	// readDir lists a directory, sorted.
	readDir(name string) ([]wire.FileInfo, error)
	readLink(name string) (string, error)
	mkdir(name string, perm fs.FileMode) error
	mkdirAll(name string, perm fs.FileMode) error
	rename(from, to string) error
	remove(name string) error
	removeAll(name string) error
	symlink(target, name string) error
	chmod(name string, mode fs.FileMode) error
	chtimes(name string, atime, mtime time.Time) error
	// saved are the directories that an archive holds, by their name in it.
	saved() map[string]string
}

func (b *box) fileOp(s *session, req *wire.Request) (reply wire.Reply, out []int, err error) {
	for _, p := range []string{req.Path, req.Path2} {
		if p == "" || req.Op == wire.OpSymlink {
			continue
		}
		if err := checkPath(p); err != nil {
			return reply, nil, err
		}
	}
	b.files <- struct{}{}
	defer func() { <-b.files }()
	b.asUser(func() { reply, out, err = b.doFileOp(s, req) })
	return reply, out, err
}

// asUser runs do as whom commands run as.
func (b *box) asUser(do func()) {
	if b.work == nil {
		do()
		return
	}
	done := make(chan struct{})
	b.work <- func() {
		defer close(done)
		do()
	}
	<-done
}

func (b *box) doFileOp(s *session, req *wire.Request) (reply wire.Reply, out []int, err error) {
	t := b.tree
	switch req.Op {
	case wire.OpOpen:
		out, err = openFile(t, req)
	case wire.OpStat, wire.OpLstat:
		var info fs.FileInfo
		if info, err = t.stat(req.Path, req.Op == wire.OpStat); err == nil {
			reply.Infos = []wire.FileInfo{wire.NewFileInfo(path.Base(req.Path), info)}
		}
	case wire.OpReadDir:
		reply.Infos, err = b.readDir(s, req)
	case wire.OpReadLink:
		reply.Text, err = t.readLink(req.Path)
	default:
		err = change(t, req)
	}
	return reply, out, err
}

func checkPath(p string) error {
	if !path.IsAbs(p) || path.Clean(p) != p {
		return fmt.Errorf("%q is not an absolute, clean path: %w", p, driver.ErrInvalid)
	}
	return nil
}

func change(t tree, req *wire.Request) error {
	switch req.Op {
	case wire.OpMkdir:
		return t.mkdir(req.Path, req.Mode)
	case wire.OpMkdirAll:
		return t.mkdirAll(req.Path, req.Mode)
	case wire.OpRename:
		return t.rename(req.Path, req.Path2)
	case wire.OpRemove:
		return t.remove(req.Path)
	case wire.OpRemoveAll:
		return t.removeAll(req.Path)
	case wire.OpSymlink:
		return t.symlink(req.Path2, req.Path)
	case wire.OpChmod:
		return t.chmod(req.Path, req.Mode)
	case wire.OpChtimes:
		return t.chtimes(req.Path, time.Unix(0, req.Atime), time.Unix(0, req.Mtime))
	}
	return fmt.Errorf("unknown operation %d: %w", req.Op, driver.ErrInvalid)
}

// openFile opens a regular file or a directory and gives its descriptor.
func openFile(t tree, req *wire.Request) ([]int, error) {
	flag := int(req.Num)
	if flag&^openFlags != 0 {
		return nil, fmt.Errorf("open flags %#x: %w", flag, driver.ErrInvalid)
	}
	f, err := t.open(req.Path, flag|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, req.Mode)
	if err != nil {
		return nil, notPlain(req.Path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return nil, notPlain(req.Path, unix.ENXIO)
	}
	fds, err := descriptor(f, nil)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK was for the opening only.
	if fl, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFL, 0); err == nil {
		_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETFL, fl&^unix.O_NONBLOCK)
	}
	return fds, nil
}

// notPlain says what ENXIO means: a FIFO without a reader, a socket, a device.
func notPlain(name string, err error) error {
	if e := wire.NewError(err); e.Errno != unix.ENXIO {
		return err
	}
	return &fs.PathError{Op: "open", Path: name,
		Err: fmt.Errorf("neither a regular file nor a directory: %w", fs.ErrInvalid)}
}

// readDir answers in pages; the last is the reply.
func (b *box) readDir(s *session, req *wire.Request) ([]wire.FileInfo, error) {
	infos, err := b.tree.readDir(req.Path)
	if err != nil {
		return nil, err
	}
	for len(infos) > pageSize {
		s.pushSlowly(wire.Reply{ID: req.ID, More: true, Infos: infos[:pageSize]})
		infos = infos[pageSize:]
	}
	return infos, nil
}

// chmodBits are what Chmod can set, as chmod(2) wants them.
func chmodBits(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}
