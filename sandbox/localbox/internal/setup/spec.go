//go:build linux && (amd64 || arm64)

package setup

import (
	"io/fs"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// passed hands out the descriptors that came with a message, in their order.
type passed []int

func (p *passed) next(there bool) (int, error) {
	if !there {
		return -1, nil
	}
	if len(*p) == 0 {
		return -1, fs.ErrInvalid
	}
	fd := (*p)[0]
	*p = (*p)[1:]
	return fd, nil
}

// newSpec says what to build in terms of package rootfs.
func newSpec(s *wire.Setup, fds []int) (*rootfs.Spec, error) {
	spec := &rootfs.Spec{Lower: "/", Hostname: s.Hostname, Disk: s.Disk}
	rest := passed(fds)
	for _, m := range s.Mounts {
		fd, err := rest.next(m.Passed)
		if err != nil {
			return nil, step("open mounts", err)
		}
		spec.Mounts = append(spec.Mounts, rootfs.Mount{FD: fd, Path: m.Source, Target: m.Target, Writable: m.Writable})
	}
	if s.Root == nil {
		return spec, nil
	}
	img := &rootfs.Image{Host: s.Root.Host, Skeleton: s.Root.Skeleton}
	for _, l := range []struct {
		to    *[]rootfs.Layer
		paths []string
	}{{&img.Layers, s.Root.Layers}, {&img.Programs, s.Root.Programs}} {
		for _, path := range l.paths {
			fd, err := rest.next(s.Root.Passed)
			if err != nil {
				return nil, step("open layers", err)
			}
			*l.to = append(*l.to, rootfs.Layer{FD: fd, Path: path})
		}
	}
	// A loader and libraries that an image brings are for its commands, not for
	// process 1.
	img.Later = (!img.Host || s.Root.Built) && dynamic()
	spec.Image = img
	return spec, nil
}

// handOut gives the keeper the directories in which changes are gathered; this
// process keeps none of them.
func handOut(conn *wire.Conn, img *rootfs.Image) error {
	st := wire.Status{Entering: img.Later}
	var fds []int
	for _, u := range img.Uppers {
		st.Uppers = append(st.Uppers, u.Path)
		fds = append(fds, u.FD)
	}
	defer wire.CloseFDs(fds)
	return step("hand out the disk", conn.Send(&st, fds...))
}
