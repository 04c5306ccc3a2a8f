//go:build linux && (amd64 || arm64)

package keeper

import (
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
)

// skeleton is the layer that all sandboxes with this machine's programs and an
// image share (rootfs.Skeleton), made for the first of them. Where it cannot be
// had each makes its own.
type skeleton struct {
	mu     sync.Mutex
	path   string
	held   *os.File
	failed bool
	mapped bool // its owners can be mapped
}

// get gives the directory, or "".
func (s *skeleton) get(dir *state.Dir) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil && !s.failed {
		s.failed = s.make(dir) != nil
	}
	if s.failed {
		return ""
	}
	return filepath.Join(s.path, "tree")
}

func (s *skeleton) make(dir *state.Dir) (err error) {
	if s.path, s.held, err = dir.Scratch(); err != nil {
		return err
	}
	return rootfs.Skeleton(filepath.Join(s.path, "tree"))
}

// maps reports whether the file system it is on can map owners.
func (s *skeleton) maps(ns *os.File) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed || s.mapped {
		return s.mapped
	}
	path := filepath.Join(s.path, "tree")
	fd, err := rootfs.LayerSource(path)
	if err == nil {
		err = mapUsers(fd, ns, path)
		unix.Close(fd)
	}
	s.mapped, s.failed = err == nil, err != nil
	return s.mapped
}

// close removes it.
func (s *skeleton) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
	if s.held != nil {
		_ = state.RemoveScratch(s.path, s.held) // what is left the next sweep removes
	}
}
