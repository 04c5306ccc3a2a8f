package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// recoverLocal brings whatever state a broken-off restore left to one of its two
// ends, as recover of scriptHead does.
func recoverLocal(root *os.Root) error {
	self, err := root.Open(".")
	if err != nil {
		return err
	}
	names, err := self.Readdirnames(-1)
	if err = errors.Join(err, self.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, stagingPrefix) {
			continue
		}
		if _, err := root.Lstat(name + "/go"); err == nil {
			err = finishLocal(root, name)
			if err != nil {
				return fmt.Errorf("cannot finish the restore in %s: %w", name, err)
			}
		} else if err := eraseLocal(root, name); err != nil {
			return fmt.Errorf("cannot remove %s: %w", name, err)
		}
	}
	return nil
}

// eraseLocal removes a path with all that is below, directories without write
// permission included.
func eraseLocal(root *os.Root, name string) error {
	if err := root.RemoveAll(name); err == nil {
		return nil
	}
	_ = fs.WalkDir(root.FS(), name, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = root.Chmod(p, 0o700)
		}
		return nil
	})
	return root.RemoveAll(name)
}

// finishLocal carries out what a staging directory says, as finish of scriptHead
// does.
func finishLocal(root *os.Root, stage string) error {
	read := func(name string) ([]byte, error) {
		data, err := root.ReadFile(stage + "/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return data, err
	}
	paths := func(name string) ([]string, error) {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		return parseList(data)
	}
	open, err := paths("open")
	if err != nil {
		return err
	}
	for _, p := range open {
		if err := root.Chmod(p, 0o700); err != nil {
			return err
		}
	}
	if _, err := root.Lstat(stage + "/cleared"); err != nil {
		gone, err := paths("rm")
		if err != nil {
			return err
		}
		for _, p := range gone {
			if err := eraseLocal(root, p); err != nil {
				return err
			}
		}
		if err := root.Mkdir(stage+"/cleared", 0o700); err != nil {
			return err
		}
	}
	for i := 0; ; i++ {
		group, err := paths("mv." + strconv.Itoa(i))
		if err != nil {
			return err
		}
		if len(group) == 0 {
			break
		}
		for _, p := range group {
			if err := root.Rename(stage+"/new/"+p, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	archive, err := read("dirs")
	if err != nil {
		return err
	}
	if err := sealDirs(root, archive); err != nil {
		return err
	}
	self, err := read("root")
	if err != nil {
		return err
	}
	if err := eraseLocal(root, stage); err != nil {
		return err
	}
	return sealRoot(root, string(self))
}

// sealDirs gives directories the modes and times that an archive says.
func sealDirs(root *os.Root, archive []byte) error {
	if len(archive) == 0 {
		return nil
	}
	r := tarstream.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(archive), strings.NewReader(statusMark))), statusMark)
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.Trim(strings.TrimPrefix(m.Name, "./"), "/")
		if m.Kind != tarstream.Dir || tree.CheckPath(name) != "" || name == "" {
			return errors.New("the list of directories in the staging directory cannot be read")
		}
		if err := sealDir(root, name, uint16(m.Mode&0o1777), m.Mtime); err != nil {
			return err
		}
	}
}

// sealRoot sets mode and time of the directory itself, where that is allowed.
func sealRoot(root *os.Root, text string) error {
	mode, when, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return nil
	}
	bits, err := strconv.ParseUint(mode, 8, 16)
	if err != nil {
		return fmt.Errorf("mode of the directory: %w", err)
	}
	t, err := tarstream.ParseTime(when)
	if err != nil {
		return err
	}
	if err := sealDir(root, ".", uint16(bits&0o1777), t); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
