//go:build unix

package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
)

// TestScratch: a scratch directory is kept while its maker lives, and not longer.
func TestScratch(t *testing.T) {
	d := openDir(t)
	path, held, err := d.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, "closed"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("swept under its maker: %v", err)
	}
	held.Close() // as when its maker is killed
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	path, held, err = d.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	if err := state.RemoveScratch(path, held); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}
