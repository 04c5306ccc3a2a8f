//go:build unix && !linux

package state

import "path/filepath"

func (d *Dir) withSocket(id, name string, do func(path string) error) error {
	return do(filepath.Join(d.Box(id), name))
}
