//go:build linux

package ociimage

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

// What is copied from this machine's programs may be what sandboxes see of /etc
// too, and nothing more.
func TestSourceShowsOfEtc(t *testing.T) {
	if _, err := os.Stat("/etc/os-release"); err != nil {
		t.Skip("this machine has no /etc/os-release")
	}
	v := NewSource(&Root{Host: true})
	if _, err := v.find("etc/os-release", true); err != nil {
		t.Error(err)
	}
	for _, hidden := range []string{"etc/passwd", "etc/shadow", "etc/hostname", "etc/ssl/private", "root", "home"} {
		if _, err := v.find(hidden, true); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", hidden, err)
		}
	}
	etc, err := v.find("etc", true)
	if err != nil {
		t.Fatal(err)
	}
	names, err := etc.names()
	if err != nil || len(names) == 0 {
		t.Fatalf("names: %v, %v", names, err)
	}
	for _, name := range names {
		if name == "passwd" || name == "hosts" {
			t.Errorf("%s is shown", name)
		}
	}
	if _, err := NewView(&Root{Host: true}).find("etc", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("layers are put on /etc of the machine: %v", err)
	}
	if _, err := NewSource(&Root{}).find("etc", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image of its own shows the machine's: %v", err)
	}
}

// What only root can read of this machine is not copied, whoever copies.
func TestSourceIsPublic(t *testing.T) {
	for mode, want := range map[fs.FileMode]bool{0o644: true, 0o640: false, 0o4711: false, fs.ModeDir | 0o755: true,
		fs.ModeDir | 0o711: false, fs.ModeDir | 0o700: false, fs.ModeSymlink | 0o700: true} {
		if got := isPublic(modeOnly(mode)); got != want {
			t.Errorf("%v: %v", mode, got)
		}
	}
}

type modeOnly fs.FileMode

func (modeOnly) Name() string        { return "" }
func (modeOnly) Size() int64         { return 0 }
func (m modeOnly) Mode() fs.FileMode { return fs.FileMode(m) }
func (modeOnly) ModTime() time.Time  { return time.Time{} }
func (m modeOnly) IsDir() bool       { return m.Mode().IsDir() }
func (modeOnly) Sys() any            { return nil }
