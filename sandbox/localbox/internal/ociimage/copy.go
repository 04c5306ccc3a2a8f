//go:build linux

package ociimage

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Copy is files of one image that go into another.
type Copy struct {
	From    *View
	Sources []string // patterns of package path
	Texts   []Text   // instead of Sources
	On      *View
	Dest    string // absolute; with a slash at its end it is a directory
	UID     int
	GID     int
	Mode    int64 // of files; negative means as they are
}

// Text is a file that is written out where it is needed.
type Text struct{ Name, Body string }

// WriteTar writes the archive that makes the copy, for AddLayer. A source that is
// not there matches driver.ErrNotFound.
func (c *Copy) WriteTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	var sources []*node
	for _, pattern := range c.Sources {
		found, err := c.From.glob(c.From.root(), strings.Split(strings.Trim(path.Clean("/"+pattern), "/"), "/"))
		if err != nil {
			return fmt.Errorf("%s: %w", pattern, err)
		}
		if len(found) == 0 {
			return fmt.Errorf("%s: %w in the image it is to be copied from", pattern, driver.ErrNotFound)
		}
		sources = append(sources, found...)
	}
	dest, isDir, err := c.dest(len(sources) + len(c.Texts))
	if err != nil {
		return err
	}
	for _, n := range sources {
		if err := c.source(tw, n, dest, isDir); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	for _, t := range c.Texts {
		name := dest
		if isDir {
			name = path.Join(dest, t.Name)
		}
		if err := c.text(tw, name, t.Body); err != nil {
			return err
		}
	}
	return tw.Close()
}

// dest is where the copies go, and whether into it.
func (c *Copy) dest(sources int) (name string, isDir bool, err error) {
	if name, err = c.On.Resolve(c.Dest); err != nil {
		return "", false, err
	}
	n, err := c.On.find(name, true)
	switch {
	case err == nil && n.isDir():
		return name, true, nil
	case err == nil && (sources > 1 || strings.HasSuffix(c.Dest, "/")):
		return "", false, fmt.Errorf("%w: %s is not a directory", driver.ErrInvalid, c.Dest)
	case sources > 1 && !strings.HasSuffix(c.Dest, "/"):
		return "", false, fmt.Errorf("%w: several files go into a directory only: end %s with /", driver.ErrInvalid, c.Dest)
	}
	return name, strings.HasSuffix(c.Dest, "/"), nil
}

// glob finds what a pattern, split at slashes, matches below n. A link that it
// leads over, or ends in, is followed.
func (v *View) glob(n *node, pattern []string) ([]*node, error) {
	if len(pattern) == 0 || len(pattern) == 1 && pattern[0] == "" {
		return []*node{n}, nil
	}
	names := []string{pattern[0]}
	if strings.ContainsAny(pattern[0], `*?[\`) {
		all, err := n.names()
		if err != nil {
			return nil, err
		}
		names = names[:0]
		for _, name := range all {
			if ok, err := path.Match(pattern[0], name); err != nil {
				return nil, fmt.Errorf("%w: %w", driver.ErrInvalid, err)
			} else if ok {
				names = append(names, name)
			}
		}
	}
	var found []*node
	for _, name := range names {
		child, err := v.find(path.Join(n.path, name), true)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(pattern) > 1 && !child.isDir() {
			continue
		}
		if err != nil {
			return nil, err
		}
		more, err := v.glob(child, pattern[1:])
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// source copies one file, or what is in one directory.
func (c *Copy) source(tw *tar.Writer, n *node, dest string, isDir bool) error {
	switch {
	case n.isDir():
		return c.dir(tw, n, dest, meta{mode: 0o755})
	case isDir:
		dest = path.Join(dest, path.Base(n.path))
	}
	return c.file(tw, n, dest)
}

// dir copies what is in a directory. One that is there keeps what it says of itself.
func (c *Copy) dir(tw *tar.Writer, n *node, dest string, m meta) error {
	dest, err := c.On.Resolve(dest)
	if err != nil {
		return err
	}
	there, err := c.On.find(dest, true)
	switch {
	case err == nil && !there.isDir():
		return fmt.Errorf("%w: %s is not a directory", driver.ErrInvalid, dest)
	case err != nil:
		hdr := c.header(dest+"/", m)
		hdr.Typeflag = tar.TypeDir
		if err := tw.WriteHeader(hdr); err != nil {
			return err
		}
	}
	names, err := n.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		child, err := n.child(name)
		if err != nil {
			return err
		}
		if target := path.Join(dest, name); child.isDir() {
			err = c.dir(tw, child, target, child.meta())
		} else {
			err = c.file(tw, child, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Copy) header(name string, m meta) *tar.Header {
	return &tar.Header{Name: name, Mode: int64(m.mode), Uid: c.UID, Gid: c.GID, ModTime: m.mtime, Format: tar.FormatPAX}
}

// file copies a file or a link. Devices, FIFOs and sockets are left out.
func (c *Copy) file(tw *tar.Writer, n *node, dest string) error {
	hdr := c.header(dest, n.meta())
	switch mode := n.info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		link, err := n.readlink()
		if err != nil {
			return err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, link
		return tw.WriteHeader(hdr)
	case !mode.IsRegular():
		return nil
	}
	f, err := n.open()
	if err != nil {
		return err
	}
	defer f.Close()
	hdr.Typeflag, hdr.Size = tar.TypeReg, n.info.Size()
	if c.Mode >= 0 {
		hdr.Mode = c.Mode
	}
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	_, err = io.CopyN(tw, f, hdr.Size)
	return err
}

func (c *Copy) text(tw *tar.Writer, name, body string) error {
	hdr := c.header(name, meta{mode: 0o644})
	hdr.Typeflag, hdr.Size = tar.TypeReg, int64(len(body))
	if c.Mode >= 0 {
		hdr.Mode = c.Mode
	}
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	_, err := io.WriteString(tw, body)
	return err
}

// IsDir reports whether name, links followed, is a directory.
func (v *View) IsDir(name string) bool {
	n, err := v.find(name, true)
	return err == nil && n.isDir()
}

// WriteDir writes the archive that makes a directory, for AddLayer.
func WriteDir(w io.Writer, name string) error {
	tw := tar.NewWriter(w)
	hdr := &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, Format: tar.FormatPAX}
	if err := tw.WriteHeader(hdr); err != nil {
		return err
	}
	return tw.Close()
}

// Owner finds the numbers of "user", "user:group" and the like. The group of a
// user without one has the user's own number.
func (v *View) Owner(spec string) (uid, gid int, err error) {
	user, group, both := strings.Cut(spec, ":")
	if uid, err = v.number("etc/passwd", user); err != nil {
		return 0, 0, err
	}
	if !both || group == "" {
		return uid, uid, nil
	}
	gid, err = v.number("etc/group", group)
	return uid, gid, err
}

// number finds a name in a file like /etc/passwd.
func (v *View) number(file, name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 65_535 {
		return n, nil
	}
	none := fmt.Errorf("%w: /%s has no %q", driver.ErrInvalid, file, name)
	n, err := v.find(file, true)
	if err != nil || n.isDir() {
		return 0, none
	}
	f, err := n.open()
	if err != nil {
		return 0, none
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if f := strings.Split(s.Text(), ":"); len(f) > 2 && f[0] == name {
			return strconv.Atoi(f[2])
		}
	}
	return 0, none
}
