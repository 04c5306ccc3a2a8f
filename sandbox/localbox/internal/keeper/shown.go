//go:build unix

package keeper

import (
	"os"
	"sync"
)

// shown are the images that were mounted in a running sandbox. The zero value
// has none.
type shown struct {
	mu     sync.Mutex          // held during a change
	mounts map[uint64]*os.File // by mount, what keeps the layers; nil where nothing has to
	ended  bool
}

// letGo lets go of the layers. The mounts are gone with the sandbox.
func (s *shown) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, f := range s.mounts {
		if f != nil {
			f.Close()
		}
	}
	s.mounts = nil
}
