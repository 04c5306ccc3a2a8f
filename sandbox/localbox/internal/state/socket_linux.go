package state

import (
	"fmt"
	"os"
)

// withSocket gives the socket's path through an open directory: a path in an
// address is 107 bytes at the most (unix(7)), a state directory may be deep.
func (d *Dir) withSocket(id, name string, do func(path string) error) error {
	dir, err := os.Open(d.Box(id))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
}
