package sandbox_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"testing/fstest"

	"go.uber.org/mock/gomock"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/drivermock"
)

// files gives a sandbox's FS over a mock.
func files(t *testing.T) (*sandbox.FS, *drivermock.MockFileSystem) {
	t.Helper()
	m := drivermock.NewMockFileSystem(gomock.NewController(t))
	sb, d := fake(t, untilKilled)
	d.files = m
	return sb.FS(t.Context()), m
}

func TestFSErrorsNameOperationAndPath(t *testing.T) {
	for _, reason := range []error{
		fs.ErrNotExist, &fs.PathError{Op: "openat", Path: "/host/path", Err: fs.ErrNotExist},
		&os.LinkError{Op: "renameat", Old: "/host/a", New: "/host/b", Err: fs.ErrNotExist}, &fs.PathError{Err: syscall.ENOENT},
	} {
		fsys, m := files(t)
		m.EXPECT().OpenFile(gomock.Any(), "/workspace/a", os.O_RDONLY, fs.FileMode(0)).Return(nil, reason)
		m.EXPECT().Rename(gomock.Any(), "/workspace/a", "/workspace/b").Return(reason)
		_, err := fsys.Open("a")
		for op, err := range map[string]error{"open": err, "rename": fsys.Rename("a", "b")} {
			pe, ok := errors.AsType[*fs.PathError](err)
			if !ok || pe.Op != op || pe.Path != "a" || !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: got %#v", op, err)
			}
		}
	}
}

func TestFSPassesAbsoluteNames(t *testing.T) {
	fsys, m := files(t)
	m.EXPECT().Remove(gomock.Any(), "/workspace")
	m.EXPECT().Remove(gomock.Any(), "/workspace/d/f")
	m.EXPECT().Remove(gomock.Any(), "/workspace/d/e/f")
	m.EXPECT().Symlink(gomock.Any(), "../any thing/", "/workspace/l")
	sub, err := fs.Sub(fsys, "d")
	if err != nil {
		t.Fatal(err)
	}
	deep, err := fs.Sub(sub, "e")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{fsys.Remove("."), sub.(*sandbox.FS).Remove("f"), deep.(*sandbox.FS).Remove("f"), fsys.Symlink("../any thing/", "l")} {
		if err != nil {
			t.Error(err)
		}
	}
}

func FuzzFSNames(f *testing.F) {
	for _, name := range []string{"a", ".", "", "..", "../x", "/x", "a/../../b", "a//b", "a/", "\x00", "a\x00", "\xff", `a\..\b`} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := ""
		sb, d := fake(t, untilKilled)
		d.files = recordingFiles{name: &got}
		err := sb.FS(t.Context()).Remove(name)
		if got == "" {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Remove(%q): %v", name, err)
			}
			return
		}
		if got != "/workspace" && (len(got) < 11 || got[:11] != "/workspace/" || !fs.ValidPath(got[1:])) {
			t.Errorf("Remove(%q) reached the driver as %q", name, got)
		}
	})
}

type recordingFiles struct {
	driver.FileSystem
	name *string
}

func (r recordingFiles) Remove(_ context.Context, name string) error { *r.name = name; return nil }

func TestFileEndsAsItShould(t *testing.T) {
	fsys, m := files(t)
	mem := fstest.MapFS{"f": {Data: []byte("data")}}
	f, err := mem.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	m.EXPECT().OpenFile(gomock.Any(), "/workspace/f", gomock.Any(), gomock.Any()).Return(memFile{f}, nil)
	file, err := fsys.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(file)
	if err != nil || string(data) != "data" {
		t.Errorf("got %q, %v", data, err)
	}
	if n, err := file.Read(make([]byte, 1)); n != 0 || err != io.EOF { // not wrapped
		t.Errorf("at the end: %d, %v", n, err)
	}
	_, err = file.(*sandbox.File).Write([]byte("x"))
	if pe, ok := errors.AsType[*fs.PathError](err); !ok || pe.Op != "write" || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %#v", err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

// memFile is a file on a full disk.
type memFile struct{ fs.File }

func (memFile) Write([]byte) (int, error)                 { return 0, syscall.ENOSPC }
func (m memFile) Seek(off int64, w int) (int64, error)    { return m.File.(io.Seeker).Seek(off, w) }
func (m memFile) ReadAt(p []byte, off int64) (int, error) { return m.File.(io.ReaderAt).ReadAt(p, off) }
