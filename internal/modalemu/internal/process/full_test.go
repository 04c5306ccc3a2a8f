package process

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// What could be kept can be read, and then the reader is told.
func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no /dev/full here: ", err)
	}
	o := &Output{dir: t.TempDir()}
	defer o.free()
	if _, err := o.Write(make([]byte, inMemory+1)); err != nil {
		t.Fatal(err)
	}
	kept := o.file
	o.file = full
	err = o.fill(strings.NewReader("more"))
	if !errors.Is(err, ErrFull) {
		t.Errorf("filling: %v", err)
	}
	o.end(err)
	full.Close()
	o.file = kept
	buf := make([]byte, 2*inMemory)
	n, err := o.ReadAt(context.Background(), buf, 0)
	if n != inMemory+1 || err != nil {
		t.Errorf("what was kept: %d, %v", n, err)
	}
	if _, err := o.ReadAt(context.Background(), buf, int64(n)); !errors.Is(err, ErrFull) || errors.Is(err, io.EOF) {
		t.Errorf("behind it: %v", err)
	}
}

func TestNoPlaceForASpool(t *testing.T) {
	o := &Output{dir: t.TempDir() + "/gone"}
	if _, err := o.Write(make([]byte, inMemory+1)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestAdoptedOutput(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	p := Run(func(_ context.Context, _ *Reader, stdout, _ io.Writer) Exit {
		if err := stdout.(*Output).Adopt(f, 8); err != nil {
			t.Error(err)
		}
		if _, err := stdout.Write([]byte("more")); err == nil {
			t.Error("wrote to a file that is somebody else's")
		}
		return Exit{}
	}, t.TempDir(), nil)
	read := func(off int64) (string, error) {
		buf := make([]byte, 100)
		n, err := p.Stdout.ReadAt(context.Background(), buf, off)
		return string(buf[:n]), err
	}
	for off, want := range map[int64]string{0: "01234567", 5: "567", 8: ""} {
		if got, err := read(off); got != want || (err == io.EOF) != (want == "") {
			t.Errorf("from %d on: %q %v", off, got, err)
		}
	}
	if err := f.Truncate(4); err != nil {
		t.Fatal(err)
	}
	if got, err := read(2); got != "23" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := read(4); err != io.EOF {
		t.Errorf("behind the end of what is shorter now: %v", err)
	}
	if err := p.Stdout.Drop(); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file after Drop: %v", err)
	}
	if _, err := read(0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("reading after Drop: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if n := held.Load(); n != 0 {
		t.Errorf("%d bytes count as held by nobody", n)
	}
}
