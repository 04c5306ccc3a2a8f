//go:build linux && (amd64 || arm64)

package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// takeImage holds the image's layers and says what is to be made of them.
func (s *isolatedSeat) takeImage(dir *state.Dir, root *wire.Root, boot *wire.Boot) (err error) {
	if root.Record != "" {
		if s.hold, err = hold(root.Record); err != nil {
			return err
		}
	}
	s.setup.Root = &wire.SetupRoot{Host: root.Host, Layers: root.Layers, Passed: s.place.privileged, Built: len(root.Layers) > 0}
	if root.Host {
		s.setup.Root.Programs = rootfs.ProgramDirs()
		if path := s.place.skeleton.get(dir); path != "" {
			s.setup.Root.Layers = append([]string{path}, root.Layers...)
			s.setup.Root.Skeleton = true
		}
	}
	if n := len(root.Layers) + len(s.setup.Root.Programs) + len(s.setup.Mounts); n > wire.MaxFDs {
		return fmt.Errorf("%d layers are too many: %w", len(root.Layers), driver.ErrInvalid)
	}
	boot.Image, boot.User = true, root.User
	return nil
}

// hold takes the shared lock that keeps an image's layers.
func hold(record string) (*os.File, error) {
	f, err := os.Open(record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image: %w", driver.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		mine, merr := f.Stat()
		there, terr := os.Stat(record)
		if merr == nil && terr == nil && os.SameFile(mine, there) {
			return f, nil
		}
	}
	f.Close() // it is just being removed
	return nil, fmt.Errorf("image: %w", driver.ErrNotFound)
}

// openImage opens, where this process has more rights than the sandbox's users,
// what the image is made of: mapped to the users of the process pid, so that
// the root inside owns what root owns here.
func (s *isolatedSeat) openImage(pid int) error {
	root := s.setup.Root
	if root == nil || !root.Passed {
		return nil
	}
	ns, err := userNamespace(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	if root.Skeleton && !s.place.skeleton.maps(ns) {
		root.Layers, root.Skeleton = root.Layers[1:], false
	}
	img, err := openLayers(ns, root.Layers, root.Programs)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	for _, list := range [][]rootfs.Layer{img.Layers, img.Programs} {
		for _, l := range list {
			s.mounts = append(s.mounts, l.FD)
		}
	}
	return nil
}

// openLayers opens layers mapped to the users of a namespace, and directories
// of this machine's programs, whose owners are nobody there.
func openLayers(ns *os.File, layers, programs []string) (img *rootfs.Image, err error) {
	img = new(rootfs.Image)
	defer func() {
		if err != nil {
			closeLayers(img)
		}
	}()
	for _, path := range programs {
		fd, err := rootfs.LayerSource(path)
		if err != nil {
			return nil, err
		}
		img.Programs = append(img.Programs, rootfs.Layer{FD: fd, Path: path})
	}
	for _, path := range layers {
		fd, err := rootfs.LayerSource(path)
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, rootfs.Layer{FD: fd, Path: path})
		if err := mapUsers(fd, ns, path); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// closeLayers closes what nobody has taken.
func closeLayers(img *rootfs.Image) {
	for _, list := range [][]rootfs.Layer{img.Layers, img.Programs} {
		for _, l := range list {
			if l.FD >= 0 {
				unix.Close(l.FD)
			}
		}
	}
}

// mapUsers shows the files of a detached mount with the users of a namespace.
func mapUsers(fd int, ns *os.File, path string) error {
	err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd()),
	})
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%w: the owners of the files in %s cannot be mapped (mount_setattr: %w): "+
			"they must be on a file system that can, such as ext4, xfs or btrfs on Linux 5.12 and later, or a tmpfs on 6.3, "+
			"and not on the overlay of a container; choose another Options.Dir, or mount a volume there", driver.ErrNoIsolation, path, err)
	}
	if err != nil {
		return &fs.PathError{Op: "mount_setattr", Path: path, Err: err}
	}
	return nil
}
