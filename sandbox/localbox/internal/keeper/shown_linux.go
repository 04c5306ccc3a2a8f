//go:build linux && (amd64 || arm64)

package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// mountImage shows the files of an image, or with nil none, in a directory of
// the running sandbox.
func (b *box) mountImage(ctx context.Context, path string, root *wire.Root) (err error) {
	s, err := b.mounter(path)
	if err != nil {
		return err
	}
	b.shown.mu.Lock()
	defer b.shown.mu.Unlock()
	if b.shown.ended {
		return driver.ErrEnded
	}
	if _, _, err := b.client.Call(ctx, &wire.Request{Op: wire.OpMkdirAll, Path: path, Mode: 0o755}, nil); err != nil {
		return err
	}
	dir, err := b.openDir(ctx, path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var held *os.File
	if root != nil && root.Record != "" {
		if held, err = hold(root.Record); err != nil {
			return err
		}
	}
	id, err := s.show(b, dir, root)
	if err != nil {
		if held != nil {
			held.Close()
		}
		return fmt.Errorf("mount: %w", err)
	}
	if b.shown.mounts == nil {
		b.shown.mounts = make(map[uint64]*os.File)
	}
	b.shown.mounts[id] = held
	return nil
}

// unmountImage takes off what mountImage has put there last.
func (b *box) unmountImage(ctx context.Context, path string) error {
	if _, err := b.mounter(path); err != nil {
		return err
	}
	b.shown.mu.Lock()
	defer b.shown.mu.Unlock()
	dir, err := b.openDir(ctx, path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	id, err := rootfs.MountID(dir)
	if err != nil {
		return err
	}
	held, ours := b.shown.mounts[id]
	if !ours {
		return fmt.Errorf("no image is mounted on %s: %w", path, driver.ErrInvalid)
	}
	err = b.inside(func() error { return rootfs.Detach(dir) })
	if errors.Is(err, unix.EINVAL) { // a directory below it
		return fmt.Errorf("no image is mounted on %s: %w", path, driver.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	delete(b.shown.mounts, id)
	if held != nil {
		held.Close()
	}
	return nil
}

func (b *box) mounter(path string) (*isolatedSeat, error) {
	s, ok := b.seat.(*isolatedSeat)
	if !ok {
		return nil, &driver.UnsupportedError{Setting: "MountImage", Reason: "plain processes have this machine's files"}
	}
	if !s.place.privileged {
		return nil, &driver.UnsupportedError{Setting: "MountImage",
			Reason: "only root may mount something in a sandbox that runs; start one from the image (Config.Image), or run as root"}
	}
	if path == "/" {
		return nil, fmt.Errorf("mount on /: %w", driver.ErrInvalid)
	}
	return s, nil
}

// openDir has the helper open a directory: so it is one that commands could use.
func (b *box) openDir(ctx context.Context, path string) (int, error) {
	_, fds, err := b.client.Call(ctx, &wire.Request{Op: wire.OpOpen, Path: path, Num: int64(os.O_RDONLY)}, nil)
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		wire.CloseFDs(fds)
		return -1, errors.New("the helper did not open the directory")
	}
	return fds[0], nil
}

// show mounts root's files over an open directory of the sandbox.
func (s *isolatedSeat) show(b *box, dir int, root *wire.Root) (id uint64, err error) {
	var img *rootfs.Image
	if root != nil {
		if img, err = s.layers(b, root); err != nil {
			return 0, err
		}
		defer closeLayers(img)
	}
	var tree int
	err = onThread(func() (err error) {
		tree, err = rootfs.Tree(img, s.setup.Disk, s.uid, s.gid)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer unix.Close(tree)
	if id, err = rootfs.MountID(tree); err != nil {
		return 0, err
	}
	return id, b.inside(func() error { return rootfs.Attach(tree, dir) })
}

// layers opens what an image is made of for the users of the sandbox.
func (s *isolatedSeat) layers(b *box, root *wire.Root) (*rootfs.Image, error) {
	ns, err := s.rootNamespace(b)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	layers := root.Layers
	var programs []string
	var skeleton bool
	if root.Host {
		programs = rootfs.ProgramDirs()
		if path := s.place.skeleton.get(b.dir); path != "" && s.place.skeleton.maps(ns) {
			layers, skeleton = append([]string{path}, layers...), true
		}
	}
	img, err := openLayers(ns, layers, programs)
	if err != nil {
		return nil, err
	}
	img.Host, img.Skeleton = root.Host, skeleton
	return img, nil
}

// rootNamespace gives a user namespace in which root is the sandbox's user.
func (s *isolatedSeat) rootNamespace(b *box) (*os.File, error) {
	if s.setup.Root != nil {
		return userNamespace(b.pid)
	}
	return s.newNamespace(b, 0, 0)
}

// onThread runs do on a thread of its own that ends with it.
func onThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: what do has made of it is for nobody else
		done <- do()
	}()
	return <-done
}

// inside runs do on a thread that has the sandbox's mounts.
func (b *box) inside(do func() error) error {
	return onThread(func() error {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", b.pid))
		if err != nil {
			return driver.ErrEnded
		}
		defer ns.Close()
		// Its number is another's only after it has been waited for.
		if err := b.k.reaper.Signal(b.pid, 0); err != nil {
			return driver.ErrEnded
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return do()
	})
}
