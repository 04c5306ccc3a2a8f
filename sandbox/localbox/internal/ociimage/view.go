//go:build linux

package ociimage

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/rootfs"
)

// View reads the files of an image as a sandbox would see them, without mounting
// anything. It is for layers that nobody changes meanwhile. Links are followed
// within the image.
type View struct {
	layers []string // highest first
	etc    bool     // also what sandboxes are shown of this machine's /etc
}

// machine are the directories of this machine that an image on top of it shows.
var machine = map[string]bool{"usr": true, "bin": true, "sbin": true, "lib": true, "lib32": true, "lib64": true, "libx32": true}

// skeleton are the modes of the directories that such an image has beside them.
var skeleton = map[string]uint32{"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}

// hostLayer stands for this machine's programs in View.layers.
const hostLayer = "/"

// NewView shows the files of root.
func NewView(root *Root) *View {
	v := &View{layers: slices.Clone(root.Layers)}
	slices.Reverse(v.layers)
	if root.Host {
		v.layers = append(v.layers, hostLayer)
	}
	return v
}

// NewSource is NewView with what sandboxes are shown of this machine's /etc too,
// for files to be copied from: sandboxes get them when they start, not by layers.
func NewSource(root *Root) *View {
	v := NewView(root)
	v.etc = root.Host
	return v
}

// onMachine reports whether the view shows that path of this machine.
func (v *View) onMachine(name string) bool {
	first, _, deeper := strings.Cut(name, "/")
	if machine[first] || !v.etc {
		return machine[first]
	}
	return first == "etc" && (!deeper || rootfs.ShownOfEtc("/"+name))
}

// node is a file of a view.
type node struct {
	view *View
	path string // clean, below the root; "" is the root
	info fs.FileInfo
	at   string   // the layer that info is from
	dirs []string // the layers in which it is a directory, highest first
}

func (n *node) real(layer string) string { return filepath.Join(layer, n.path) }

// meta is what the file says of owner, mode and time.
func (n *node) meta() meta {
	if n.info == nil {
		return meta{mode: 0o755}
	}
	m := meta{mode: unixMode(n.info.Mode()), mtime: n.info.ModTime()}
	if st, ok := n.info.Sys().(*syscall.Stat_t); ok {
		m.uid, m.gid = ownID(int(st.Uid)), ownID(int(st.Gid))
	}
	if n.view != nil && slices.Equal(n.dirs, []string{hostLayer}) {
		m.uid, m.gid, m.mtime = 0, 0, time.Time{}
	}
	return m
}

// isOpen reports whether everybody may read a file, or look into a directory.
func isOpen(info fs.FileInfo) bool {
	const read, enter = 0o004, 0o001
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return true
	case info.IsDir():
		return info.Mode()&(read|enter) == read|enter
	}
	return info.Mode()&read != 0
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unixBit := range map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX} {
		if m&bit != 0 {
			mode |= unixBit
		}
	}
	return mode
}

// open opens a regular file.
func (n *node) open() (*os.File, error) {
	f, err := os.OpenFile(n.real(n.at), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", n.path)
	}
	return f, nil
}

func (v *View) root() *node {
	n := &node{view: v, dirs: v.layers}
	if len(v.layers) > 0 && v.layers[0] != hostLayer {
		n.info, _ = os.Lstat(v.layers[0])
	}
	return n
}

// child finds a name in a directory. Every directory in dirs is real, so that no
// link can be on the way.
func (n *node) child(name string) (*node, error) {
	c := &node{view: n.view, path: path.Join(n.path, name)}
	for _, layer := range n.dirs {
		if layer == hostLayer && !n.view.onMachine(c.path) {
			continue
		}
		info, err := os.Lstat(c.real(layer))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if layer == hostLayer && !isOpen(info) {
			continue // this process may read more of the machine than an image is to show
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0 {
			break
		}
		if layer == hostLayer && !isPublic(info) {
			break
		}
		if c.info == nil {
			c.info, c.at = info, layer
		}
		if !info.IsDir() {
			break
		}
		c.dirs = append(c.dirs, layer)
		if !c.info.IsDir() || isOpaque(c.real(layer)) {
			break
		}
	}
	if c.info == nil {
		return nil, fmt.Errorf("%s: %w", c.path, fs.ErrNotExist)
	}
	return c, nil
}

// isPublic reports whether everybody on this machine may read a file: others a
// sandbox does not see, whoever runs this.
func isPublic(info fs.FileInfo) bool {
	want := fs.FileMode(0o004)
	if info.IsDir() {
		want = 0o005
	}
	return info.Mode()&fs.ModeSymlink != 0 || info.Mode().Perm()&want == want
}

func isOpaque(dir string) bool {
	var buf [1]byte
	n, err := unix.Lgetxattr(dir, opaque, buf[:])
	return err == nil && n == 1 && buf[0] == 'y'
}

// names lists a directory, sorted.
func (n *node) names() ([]string, error) {
	set := make(map[string]bool)
	for _, layer := range n.dirs {
		entries, err := os.ReadDir(n.real(layer))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			set[e.Name()] = true
		}
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if _, err := n.child(name); err == nil {
			names = append(names, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return names, nil
}

// lookup finds a file; a link as the last element is not followed.
func (v *View) lookup(name string) (*node, error) { return v.find(name, false) }

// lookupDir finds a directory at exactly this path, for what it says of itself.
func (v *View) lookupDir(name string) (*node, error) {
	n, err := v.find(name, false)
	if err == nil && n.path == "" && n.info == nil {
		return nil, fs.ErrNotExist
	}
	if err == nil && !n.isDir() {
		return nil, fs.ErrNotExist
	}
	if mode, ok := skeleton[name]; ok && err != nil && slices.Contains(v.layers, hostLayer) {
		return &node{info: bareDir(mode)}, nil
	}
	return n, err
}

func (n *node) isDir() bool { return n.path == "" || n.info.IsDir() }

// find finds a file, following the link that it may be if follow says so.
func (v *View) find(name string, follow bool) (*node, error) {
	n := v.root()
	trail := []*node{}
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		base := todo[0]
		todo = todo[1:]
		switch base {
		case "", ".":
			continue
		case "..":
			if len(trail) > 0 {
				n, trail = trail[len(trail)-1], trail[:len(trail)-1]
			}
			continue
		}
		if !n.isDir() {
			return nil, fmt.Errorf("%s: %w", n.path, unix.ENOTDIR)
		}
		c, err := n.child(base)
		if err != nil {
			return nil, err
		}
		last := strings.Trim(strings.Join(todo, ""), "/") == ""
		if c.info.Mode()&fs.ModeSymlink == 0 || last && !follow {
			trail, n = append(trail, n), c
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%s: %w", name, unix.ELOOP)
		}
		link, err := c.readlink()
		if err != nil {
			return nil, err
		}
		if path.IsAbs(link) {
			n, trail = v.root(), nil
		}
		todo = append(strings.Split(link, "/"), todo...)
	}
	return n, nil
}

func (n *node) readlink() (string, error) { return os.Readlink(n.real(n.at)) }

// Resolve gives the path below the root that name means when links are followed,
// whether or not there is something. It is where a new file of that name goes.
func (v *View) Resolve(name string) (string, error) {
	todo := strings.Split(path.Clean("/" + name)[1:], "/")
	done := ""
	for i := range todo {
		n, err := v.find(path.Join(done, todo[i]), true)
		if errors.Is(err, fs.ErrNotExist) {
			if real, ok := v.dangling(path.Join(done, todo[i])); ok {
				done = real
				continue
			}
			return path.Join(done, path.Join(todo[i:]...)), nil
		}
		if err != nil {
			return "", err
		}
		done = n.path
	}
	return done, nil
}

// dangling gives where a link leads that leads to nothing.
func (v *View) dangling(name string) (string, bool) {
	n, err := v.find(name, false)
	if err != nil || n.path == "" || n.info.Mode()&fs.ModeSymlink == 0 {
		return "", false
	}
	link, err := n.readlink()
	if err != nil {
		return "", false
	}
	if !path.IsAbs(link) {
		link = path.Join(path.Dir("/"+n.path), link)
	}
	return path.Clean(link)[1:], true
}

// bareDir is the description of a directory that is not there.
type bareDir uint32

func (bareDir) Name() string { return "" }
func (bareDir) Size() int64  { return 0 }
func (d bareDir) Mode() fs.FileMode {
	m := fs.ModeDir | fs.FileMode(d&0o777)
	if d&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}
func (bareDir) ModTime() time.Time { return time.Time{} }
func (bareDir) IsDir() bool        { return true }
func (bareDir) Sys() any           { return nil }
