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
