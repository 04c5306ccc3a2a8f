package fstools

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

// readLimit is how large a file the client can read.
const readLimit = 5 << 30

// entry describes a file as the client wants it.
type entry struct {
	Name        string  `json:"name"`
	Path        string  `json:"path"`
	Type        string  `json:"type"`
	Size        int64   `json:"size"`
	Mode        uint32  `json:"mode"`
	Permissions string  `json:"permissions"`
	Owner       string  `json:"owner"`
	Group       string  `json:"group"`
	Modified    float64 `json:"modified_time"`
	Target      *string `json:"symlink_target"`
}

func (t *tool) stat(name string) error {
	info, err := t.fsys.Lstat(t.ctx, name)
	if err != nil {
		return err
	}
	e, err := t.describe(name, info, t.names())
	if err != nil {
		return err
	}
	return json.NewEncoder(t.stdout).Encode(e)
}

func (t *tool) list(name string) error {
	infos, err := t.fsys.ReadDir(t.ctx, name)
	if err != nil {
		f := failureOf(err)
		if info, serr := t.fsys.Stat(t.ctx, name); serr == nil && !info.IsDir() {
			f = fail(kindIsFile)
		}
		return errors.Join(f, err)
	}
	entries, names := make([]*entry, 0, len(infos)), t.names()
	for _, info := range infos {
		e, err := t.describe(path.Join(name, info.Name()), info, names)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b *entry) int { return strings.Compare(a.Name, b.Name) })
	return json.NewEncoder(t.stdout).Encode(entries)
}

func (t *tool) describe(name string, info fs.FileInfo, names *names) (*entry, error) {
	e := &entry{
		Name: path.Base(name), Path: name, Type: "file", Size: info.Size(), Mode: statMode(info.Mode()),
		Modified: float64(info.ModTime().UnixNano()) / 1e9,
	}
	e.Permissions = fmt.Sprintf("%04o", e.Mode&0o7777)
	switch {
	case info.IsDir():
		e.Type = "directory"
	case info.Mode()&fs.ModeSymlink != 0:
		e.Type = "symlink"
		target, err := t.fsys.ReadLink(t.ctx, name)
		if err != nil {
			return nil, err
		}
		e.Target = &target
	}
	uid, gid := ownerOf(info)
	e.Owner, e.Group = names.user(uid), names.group(gid)
	return e, nil
}

// statMode is a mode as stat(2) has it.
func statMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for _, b := range []struct {
		is  fs.FileMode
		bit uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.is != 0 {
			mode |= b.bit
		}
	}
	switch {
	case m.IsDir():
		return mode | 0o040000
	case m&fs.ModeSymlink != 0:
		return mode | 0o120000
	case m&fs.ModeNamedPipe != 0:
		return mode | 0o010000
	case m&fs.ModeSocket != 0:
		return mode | 0o140000
	case m&fs.ModeCharDevice != 0:
		return mode | 0o020000
	case m&fs.ModeDevice != 0:
		return mode | 0o060000
	}
	return mode | 0o100000
}

// pieceSize is what files are copied by.
const pieceSize = 128 << 10

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// adoptFrom is from which size on a file is not copied but left where it is, and
// read when the client asks for its content.
const adoptFrom = 1 << 20

func (t *tool) read(name string) error {
	f, err := t.fsys.OpenFile(t.ctx, name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		switch {
		case info.IsDir():
			err = fail(kindIsDirectory)
		case info.Size() > readLimit:
			err = fail(kindTooLarge)
		}
	}
	if out, ok := t.stdout.(*process.Output); err == nil && ok && info.Size() >= adoptFrom {
		return out.Adopt(f, info.Size())
	}
	if err == nil {
		err = t.copy(f)
	}
	return errors.Join(err, f.Close())
}

// copy copies what is in f now; a file that grows meanwhile no further than the
// limit.
func (t *tool) copy(f io.Reader) error {
	buf := pieces.Get().(*[pieceSize]byte)
	defer pieces.Put(buf)
	n, err := io.CopyBuffer(struct{ io.Writer }{t.stdout}, &untilDone{t, io.LimitReader(f, readLimit+1)}, buf[:])
	if err == nil && n > readLimit {
		return fail(kindTooLarge)
	}
	return err
}

// untilDone reads until the tool is killed.
type untilDone struct {
	t *tool
	r io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.t.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
