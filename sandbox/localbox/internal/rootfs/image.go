//go:build linux

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Image is a root file system made of layers, which the inside may change: all
// changes are in memory, on the one writable file system.
type Image struct {
	// Host shows this machine's programs below the layers. They belong to
	// nobody inside, so that the root there can read of them what everybody here
	// can, and no more. Files can be put beside them, and replaced or removed,
	// in the directories that Skeleton makes for it.
	Host bool
	// Skeleton says that the lowest of the layers is one that Skeleton has made.
	// Otherwise Build makes it.
	Skeleton bool
	// Layers are directories in overlayfs' own form, lowest first.
	Layers []Layer
	// Programs are this machine's own, with Host; see ProgramDirs. Path says
	// where they are seen.
	Programs []Layer
	// Later leaves the machine's root where it is: the new one is the current
	// directory, until Enter is called in a process that shares both.
	Later bool
	// Uppers is set by Build: the directories in which changes are gathered.
	Uppers []Upper
}

// Layer is a directory to show.
type Layer struct {
	FD   int // from LayerSource, or -1 to open Path
	Path string
}

// Upper is where changes below the directory Path are gathered. The caller
// closes it.
type Upper struct {
	Path string
	FD   int
}

// ProgramDirs are the directories of programs that this machine has; those that
// are links into /usr are not among them.
func ProgramDirs() (dirs []string) {
	for _, path := range programs {
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			dirs = append(dirs, path)
		}
	}
	return dirs
}

// LayerSource opens a directory as a detached mount that can be attached once.
// What is mounted below it is left out: overlayfs shows only one file system.
func LayerSource(path string) (fd int, err error) {
	fd, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, &fs.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return fd, nil
}

// Places in the first root, beside the one that is built.
const (
	diskDir     = ".disk"
	blankDir    = ".blank"  // the lowest layer
	skeletonDir = ".host"   // the next, unless it is one of the layers
	layersDir   = "l"       // short: a mount has a page for all its layers' names
	rootDir     = "root"    // where the new root is built
	ownDir      = "own"     // on the disk: files that are this sandbox's and no image's
	shmDir      = "shm"     // on the disk
	upperName   = "upper"   // on the disk
	workName    = "work"    // on the disk
	hostLayer   = "machine" // in layersDir, followed by a number
)

// imageSteps make a root of layers.
func (b *builder) imageSteps() []buildStep {
	return []buildStep{
		{"make mounts private", private},
		{"open what is shown", b.openImage},
		{"mount a root", b.root},
		{"mount the disk", b.imageDisk},
		{"make the lowest layer", b.blank},
		{"attach the layers", b.attachLayers},
		{"mount the layers", b.overlays},
		{"mount proc", b.proc},
		{"make /dev", b.dev},
		{"write names", b.ownFiles},
		{"mount what was asked for", b.extra},
		{"keep the changes at hand", b.keepUppers},
		{"change the root", b.enter},
	}
}

func (b *builder) enter() error {
	if b.spec.Image.Later {
		return nil
	}
	return Enter()
}

// Enter makes the current directory the root, for all processes that share the
// mount namespace, and lets go of the old one.
func Enter() error { return pivot() }

// MakeDir makes a directory, and those above it, below the current directory as
// the root.
func MakeDir(path string) error { return makePoint(path, true) }

func (b *builder) openImage() error {
	img := b.spec.Image
	for _, list := range [][]Layer{img.Layers, img.Programs} {
		for i := range list {
			if list[i].FD >= 0 {
				continue
			}
			var err error
			if list[i].FD, err = LayerSource(list[i].Path); err != nil {
				return err
			}
		}
	}
	if err := b.openMounts(); err != nil {
		return err
	}
	return b.openDevices()
}

func (b *builder) imageDisk() error {
	if err := b.mountDisk(); err != nil {
		return err
	}
	if err := checkAttributes(diskDir); err != nil {
		return err
	}
	for _, name := range []string{ownDir, shmDir} {
		if err := os.Mkdir(filepath.Join(diskDir, name), 0o755); err != nil {
			return err
		}
	}
	shm := filepath.Join(diskDir, shmDir)
	if err := os.Chmod(shm, 0o777|os.ModeSticky); err != nil {
		return err
	}
	return b.keep(shm, "/dev/shm")
}

// checkAttributes: overlayfs notes in attributes what was removed.
func checkAttributes(dir string) error {
	const name = "user.vivarium"
	err := unix.Setxattr(dir, name, []byte("y"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("a root that can be changed needs Linux 6.6 or newer, whose tmpfs has user attributes (CONFIG_TMPFS_XATTR): %w", errors.ErrUnsupported)
	}
	if err != nil {
		return os.NewSyscallError("setxattr", err)
	}
	return os.NewSyscallError("removexattr", unix.Removexattr(dir, name))
}

// attachLayers mounts the layers under short names.
func (b *builder) attachLayers() error {
	if err := os.Mkdir(layersDir, 0o755); err != nil {
		return err
	}
	put := func(l *Layer, name string) error {
		if err := os.Mkdir(filepath.Join(layersDir, name), 0o700); err != nil {
			return err
		}
		fd := l.FD
		l.FD = -1 // attach closes it
		return attach(fd, "/"+layersDir+"/"+name)
	}
	img := b.spec.Image
	for i := range img.Layers {
		if err := put(&img.Layers[i], strconv.Itoa(i)); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	for i := range img.Programs {
		if err := put(&img.Programs[i], hostLayer+strconv.Itoa(i)); err != nil {
			return fmt.Errorf("%s: %w", img.Programs[i].Path, err)
		}
	}
	return nil
}

// overlays mounts the new root and goes there.
func (b *builder) overlays() error {
	img := b.spec.Image
	var layers []string
	if img.Host && !img.Skeleton {
		layers = append(layers, skeletonDir)
	}
	for i := range img.Layers {
		layers = append(layers, layersDir+"/"+strconv.Itoa(i))
	}
	if err := os.Mkdir(rootDir, 0o755); err != nil {
		return err
	}
	lowers := layers
	if _, err := os.Lstat(blankDir); err == nil {
		lowers = append([]string{blankDir}, layers...)
	}
	if err := b.overlay("/", lowers); err != nil {
		return err
	}
	for i, l := range img.Programs {
		lowers := []string{layersDir + "/" + hostLayer + strconv.Itoa(i)}
		for _, layer := range layers {
			dir := filepath.Join(layer, l.Path)
			if info, err := os.Lstat(dir); err == nil && info.IsDir() {
				lowers = append(lowers, dir)
			}
		}
		if err := b.overlay(l.Path, lowers); err != nil {
			return err
		}
	}
	return os.Chdir(rootDir)
}

func upperDir(n int) string { return filepath.Join(diskDir, upperName+strconv.Itoa(n)) }

// maxOptions is what mount(2) takes: a page with its final zero.
const maxOptions = 4095

// overlay shows lowers, the lowest first, at target of the new root.
func (b *builder) overlay(target string, lowers []string) error {
	n := len(b.uppers)
	upper, work := upperDir(n), filepath.Join(diskDir, workName+strconv.Itoa(n))
	at := filepath.Join(rootDir, target)
	top := lowers[len(lowers)-1]
	if target == "/" {
		top = lowers[0] // a layer that says nothing of the root has a mode all the same
	}
	if err := b.owner.do(func() error { return makeUpper(upper, work, top) }); err != nil {
		return err
	}
	var option strings.Builder
	option.WriteString("userxattr,upperdir=" + upper + ",workdir=" + work + ",lowerdir=")
	for i := len(lowers) - 1; i >= 0; i-- {
		option.WriteString(lowers[i])
		if i > 0 {
			option.WriteByte(':')
		}
	}
	if option.Len() > maxOptions {
		return fmt.Errorf("%d layers are more than one mount takes: %w", len(lowers), unix.E2BIG)
	}
	info, err := os.Lstat(at)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "mount", Path: target, Err: unix.ENOTDIR}
	}
	if err != nil {
		return err
	}
	b.uppers = append(b.uppers, target)
	return mount("overlay", at, "overlay", unix.MS_NOSUID|unix.MS_NODEV, option.String())
}

// makeUpper makes the directories of an overlay; the one that is seen has the
// mode of top.
func makeUpper(upper, work, top string) error {
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	info, err := os.Stat(top)
	if err != nil {
		return err
	}
	return os.Chmod(upper, info.Mode().Perm()|info.Mode()&os.ModeSticky)
}

// keepUppers opens the directories in which changes are gathered, before they
// are out of sight.
func (b *builder) keepUppers() error {
	for i, path := range b.uppers {
		dir := filepath.Join("..", upperDir(i))
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		b.spec.Image.Uppers = append(b.spec.Image.Uppers, Upper{Path: path, FD: fd})
	}
	return nil
}

// ownFiles puts files over those of the image that are about this sandbox, so
// that they are in no snapshot.
func (b *builder) ownFiles() error {
	host := b.spec.Hostname
	for name, text := range map[string]string{
		"hostname": host + "\n",
		"hosts":    hostsFile(host), "resolv.conf": resolvConf,
	} {
		own := filepath.Join("..", diskDir, ownDir, name)
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			return err
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, own, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return &fs.PathError{Op: "open_tree", Path: name, Err: err}
		}
		target := "/etc/" + name
		if err := makePoint(target, false); err != nil {
			unix.Close(fd)
			if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				continue // the image has something else there; it is the image's
			}
			return err
		}
		if err := attach(fd, target); err != nil {
			return err
		}
	}
	return nil
}
