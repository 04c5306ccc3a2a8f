//go:build linux

package rootfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// owner is who owns what is made for somebody else's namespace. nil is this
// process's user.
type owner struct{ uid, gid int }

// option is the mount option of a tmpfs.
func (o *owner) option() string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf(",uid=%d,gid=%d", o.uid, o.gid)
}

// do runs make so that what it makes belongs to the owner.
func (o *owner) do(make func() error) error {
	if o == nil {
		return make()
	}
	if err := setFSUser(o.uid, o.gid); err != nil {
		return err
	}
	err := make()
	return errors.Join(err, setFSUser(os.Geteuid(), os.Getegid()))
}

// setFSUser sets whom this thread is to file systems.
func setFSUser(uid, gid int) error {
	_, _ = unix.SetfsgidRetGid(gid)
	_, _ = unix.SetfsuidRetUid(uid)
	// They fail in silence; asking with an id that is none tells.
	nowUID, _ := unix.SetfsuidRetUid(-1)
	nowGID, _ := unix.SetfsgidRetGid(-1)
	if nowUID != uid || nowGID != gid {
		return os.NewSyscallError("setfsuid", unix.EPERM)
	}
	return nil
}

// Tree makes the files of an image, or with nil an empty directory, as a mount
// that is attached nowhere yet, for a namespace in which root is uid and gid
// here. What is written there is in memory, disk bytes at the most. It changes
// the mounts of the calling thread, which must be locked and good for nothing
// else afterwards. The layers must have descriptors.
func Tree(img *Image, disk int64, uid, gid int) (fd int, err error) {
	b := &builder{spec: &Spec{Lower: "/", Disk: disk, Image: img}, owner: &owner{uid, gid}}
	steps := []buildStep{
		{"leave the mounts", func() error { return os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNS)) }},
		{"make mounts private", private},
		{"mount a root", b.root},
		{"mount the disk", b.mountDisk},
	}
	top := diskDir
	if img != nil {
		steps = append(steps, b.treeSteps()...)
		top = "."
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return -1, &StepError{Step: s.name, Err: err}
		}
	}
	fd, err = unix.OpenTree(unix.AT_FDCWD, top, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, &StepError{Step: "detach it", Err: os.NewSyscallError("open_tree", err)}
	}
	return fd, nil
}

func (b *builder) treeSteps() []buildStep {
	steps := []buildStep{
		{"attach the layers", b.attachLayers},
		{"mount the layers", b.overlays},
	}
	if b.spec.Image.Host || len(b.spec.Image.Layers) == 0 {
		blank := b.blank
		if !b.spec.Image.Host {
			blank = func() error { return os.Mkdir(blankDir, 0o755) }
		}
		steps = append([]buildStep{{"make the lowest layer", func() error { return b.owner.do(blank) }}}, steps...)
	}
	return steps
}

// Attach puts a detached mount over an open directory, and closes neither.
func Attach(fd, dir int) error {
	err := unix.MoveMount(fd, "", dir, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// Detach takes off the mount whose root an open directory is. It changes the
// current directory of the calling thread.
func Detach(dir int) error {
	if err := unix.Fchdir(dir); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
}

// MountID identifies the mount that an open file is in.
func MountID(fd int) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, os.NewSyscallError("statx", err)
	}
	return st.Mnt_id, nil
}
