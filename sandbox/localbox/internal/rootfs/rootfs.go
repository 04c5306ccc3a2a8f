//go:build linux

// Package rootfs makes the file system that a sandbox sees, in a mount
// namespace of its own: a read-only root of a few directories of this machine,
// an /etc written for the purpose, its own /proc and /dev, and one tmpfs of
// bounded size behind everything that can be written.
package rootfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Places inside.
const (
	Workspace = "/workspace"
	Home      = "/home/user"
	User      = "user"
	UID       = 1000
)

// Spec is what to build.
type Spec struct {
	// Lower is the directory whose /usr, /bin and so on are shown; "/" is this
	// machine's.
	Lower    string
	Hostname string
	Disk     int64 // bytes in all writable directories together
	Mounts   []Mount
	// Image makes the root of layers, instead of showing Lower's directories.
	Image *Image
}

// Mount is one more file or directory to show.
type Mount struct {
	FD       int // from Source or WritableSource, or -1 to open Path
	Path     string
	Target   string
	Writable bool // otherwise read-only
}

// programs are the directories that hold programs and their libraries. Where
// they are links into /usr they stay links.
var programs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// devices are the device nodes of the inside.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// StepError says which step of the set-up failed.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns the step's error.
func (e *StepError) Unwrap() error { return e.Err }

// builder carries what the steps share.
type builder struct {
	spec    *Spec
	sources map[string]source
	mounts  []source
	uppers  []string // the directories that have an overlay of their own
	owner   *owner   // nil: this process's user
}

type buildStep struct {
	name string
	do   func() error
}

// Build makes the file system and leaves the calling process in it, at its
// root; the machine's own is gone. The process must be alone in a mount
// namespace and a process namespace that its user namespace owns.
func Build(spec *Spec) error {
	b := &builder{spec: spec, sources: make(map[string]source)}
	steps := b.steps()
	if spec.Image != nil {
		steps = b.imageSteps()
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return &StepError{Step: s.name, Err: err}
		}
	}
	return nil
}

func private() error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

func (b *builder) steps() []buildStep {
	return []buildStep{
		{"make mounts private", private},
		{"open what is shown", b.open},
		{"mount a root", b.root},
		{"mount the disk", b.disk},
		{"mount proc", b.proc},
		{"make /dev", b.dev},
		{"show programs", b.programs},
		{"write /etc", b.etc},
		{"mount what was asked for", b.extra},
		{"seal the root", b.seal},
		{"change the root", pivot},
	}
}

func (b *builder) open() error {
	for _, list := range [][]string{programs, etcShown} {
		for _, path := range list {
			s, ok, err := openSource(b.spec.Lower, path)
			if err != nil {
				return err
			}
			if ok {
				b.sources[path] = s
			}
		}
	}
	if err := b.openMounts(); err != nil {
		return err
	}
	return b.openDevices()
}

func (b *builder) openMounts() error {
	for _, m := range b.spec.Mounts {
		s, err := m.open()
		if err != nil {
			return err
		}
		b.mounts = append(b.mounts, s)
	}
	return nil
}

func (m *Mount) open() (source, error) {
	fd := m.FD
	if fd < 0 {
		var err error
		if m.Writable {
			fd, err = WritableSource(m.Path)
		} else {
			fd, err = Source(m.Path)
		}
		if err != nil {
			return source{}, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return source{}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
		return source{fd: fd, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}, nil
	}
	return source{}, fmt.Errorf("%s is neither a file nor a directory", m.Path)
}

// openDevices clones the nodes without MOUNT_ATTR_NODEV, which would make them
// useless. They are always this machine's, whatever the lower directory.
func (b *builder) openDevices() error {
	for _, path := range devices {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open_tree %s: %w", path, err)
		}
		if err := restrict(fd, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0); err != nil {
			return fmt.Errorf("mount_setattr %s: %w", path, err)
		}
		b.sources[path] = source{fd: fd}
	}
	return nil
}

// root mounts the tmpfs that becomes the root, over a directory that exists on
// every machine, and makes it the current directory.
func (b *builder) root() error {
	data := "size=4m,nr_inodes=4096,mode=755"
	if b.spec.Image != nil { // it holds a copy of parts of /etc
		data = "size=16m,nr_inodes=16384,mode=755"
	}
	for _, dir := range []string{"/tmp", "/run", "/mnt", "/home", "/usr"} {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		if err := mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data+b.owner.option()); err != nil {
			return err
		}
		return os.Chdir(dir)
	}
	return fmt.Errorf("no directory to mount it on: %w", unix.ENOENT)
}

// writable maps directories of the one writable file system to where they are
// seen. One file system makes one limit for all.
var writable = []struct {
	name, target string
	mode         os.FileMode
}{
	{"workspace", Workspace, 0o755},
	{"home", Home, 0o755},
	{"tmp", "/tmp", 0o777 | os.ModeSticky},
	{"vartmp", "/var/tmp", 0o777 | os.ModeSticky},
	{"shm", "/dev/shm", 0o777 | os.ModeSticky},
}

func (b *builder) disk() error {
	if err := b.mountDisk(); err != nil {
		return err
	}
	for _, w := range writable {
		if err := b.writable(diskDir+"/"+w.name, w.target, w.mode); err != nil {
			return err
		}
	}
	if err := unix.Unmount(diskDir, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(diskDir)
}

// mountDisk mounts the one writable file system.
func (b *builder) mountDisk() error {
	if err := os.Mkdir(diskDir, 0o700); err != nil {
		return err
	}
	// An inode costs the kernel about a kilobyte that size= does not count.
	inodes := max(b.spec.Disk/4096, 1024)
	data := fmt.Sprintf("size=%d,nr_inodes=%d,mode=755", b.spec.Disk, inodes) + b.owner.option()
	return mount("tmpfs", diskDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data)
}

func (b *builder) writable(dir, target string, mode os.FileMode) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	if target == "/dev/shm" { // /dev is mounted later, over this
		return b.keep(dir, target)
	}
	if err := os.MkdirAll(target[1:], 0o755); err != nil {
		return err
	}
	return mount(dir, target[1:], "", unix.MS_BIND, "")
}

// keep opens a directory of the disk for a later step.
func (b *builder) keep(dir, target string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", dir, err)
	}
	b.sources[target] = source{fd: fd, dir: true}
	return nil
}

func (b *builder) programs() error {
	for _, path := range programs {
		if err := show(b.sources, path); err != nil {
			return err
		}
	}
	// Directories that programs expect to be there, empty.
	for _, dir := range []string{"run", "opt", "srv", "mnt", "media", "var/lib", "var/cache", "var/log"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) extra() error {
	for i, m := range b.spec.Mounts {
		if err := makePoint(m.Target, b.mounts[i].dir); err != nil {
			return err
		}
		if err := attach(b.mounts[i].fd, m.Target); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) seal() error {
	return unix.MountSetattr(unix.AT_FDCWD, ".", 0, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
	})
}

// pivot makes the current directory the root and lets go of the old one
// (pivot_root(2), "pivot_root(".", ".")").
func pivot() error {
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return os.Chdir("/")
}
