package filelock_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/vivarium-go/vivarium/claude/internal/filelock"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := filelock.Try(path)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("needs file locks: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filelock.Try(path); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("a second time: %v, want ErrLocked", err)
	}
	unlock()
	unlock()
	again, err := filelock.Try(path)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	again()
	if _, err := filelock.Try(filepath.Join(path, "x")); err == nil || errors.Is(err, filelock.ErrLocked) {
		t.Errorf("below a file: %v", err)
	}
	if _, err := filelock.Try(filepath.Join(t.TempDir(), "none", "lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no folder: %v, want fs.ErrNotExist", err)
	}
}
