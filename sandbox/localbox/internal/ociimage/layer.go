//go:build linux

package ociimage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// AddLayer makes an image of base and what the archive changes in it, and
// returns its id. base may be nil, or an image that is only shown (its ID is not
// used), and must be held. The archive is a tar, in which a removed file is a
// character device 0/0 or a name that begins with .wh., and a directory that
// hides the one below has the attribute user.overlay.opaque, "y", or a file
// .wh..wh..opq in it. Settings are base's.
func (s *Store) AddLayer(ctx context.Context, base *Root, r io.Reader) (id string, err error) {
	end, err := s.begin(ctx)
	if err != nil {
		return "", err
	}
	defer end()
	rec := &Record{}
	if base != nil {
		rec.Host, rec.Parent = base.Host, base.ID
		rec.Config = Config{Env: base.Env, Dir: base.Dir, User: base.User, Entrypoint: base.Entrypoint, Command: base.Command}
		if parent, err := s.Lookup(base.ID); err == nil {
			rec.Config = parent.Clone().Config
		}
		for _, l := range base.Layers {
			rec.Layers = append(rec.Layers, filepath.Base(filepath.Dir(l)))
		}
	}
	l := &limits{bytes: s.opts.MaxBytes, files: s.opts.MaxFiles}
	made, err := s.unpackLayer(ctx, rec, r, l)
	if err != nil {
		return "", err
	}
	if err := s.keepLayer(rec, made); err != nil {
		return "", err
	}
	if err := s.put(rec); err != nil {
		return "", err
	}
	return rec.ID, nil
}

// unpacked is a layer that is not at its place yet.
type unpacked struct {
	tmp    string
	diffID string // sha256 of the archive, in hex
	empty  bool
}

// unpackLayer unpacks an archive on top of rec's layers. It must be called
// between begin and end.
func (s *Store) unpackLayer(ctx context.Context, rec *Record, r io.Reader, l *limits) (*unpacked, error) {
	under := NewView(s.Root(rec))
	tmp := filepath.Join(s.dir, "tmp", "layer-"+rand.Text())
	tree := filepath.Join(tmp, treeName)
	if err := os.MkdirAll(tree, 0o700); err != nil {
		return nil, plain(err, s.dir)
	}
	h := sha256.New()
	empty, err := unpackTar(tree, io.TeeReader(&ctxReader{ctx: ctx, r: r}, h), under, s.owners, l)
	if err == nil {
		err = syncfs(tree)
	}
	if err != nil {
		return nil, errors.Join(plain(err, s.dir), removeAll(tmp))
	}
	return &unpacked{tmp: tmp, diffID: hex.EncodeToString(h.Sum(nil)), empty: empty}, nil
}

// keepLayer moves a layer to its place and adds it to rec. One that changes
// nothing is left out.
func (s *Store) keepLayer(rec *Record, made *unpacked) error {
	if made.empty {
		return removeAll(made.tmp)
	}
	chain := chainID(rec, made.diffID)
	if isOpaque(filepath.Join(made.tmp, treeName)) { // overlayfs does not look for it at a layer's root
		rec.Layers = nil
	}
	rec.Layers = append(rec.Layers, chain)
	err := os.Rename(made.tmp, s.layer(chain))
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return removeAll(made.tmp) // the same was made by somebody else
	}
	return err
}

// haveLayer adds a layer to rec that is there already.
func (s *Store) haveLayer(rec *Record, diffID string) (bool, error) {
	chain := chainID(rec, diffID)
	if _, err := os.Lstat(s.layer(chain)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if isOpaque(s.tree(chain)) {
		rec.Layers = nil
	}
	rec.Layers = append(rec.Layers, chain)
	return true, nil
}

// chainID names a layer on top of rec by its own digest and the name of the one
// below.
func chainID(rec *Record, diffID string) string {
	below := ""
	if rec.Host {
		below = "host"
	}
	if n := len(rec.Layers); n > 0 {
		below = rec.Layers[n-1]
	}
	sum := sha256.Sum256([]byte(below + " " + diffID))
	return hex.EncodeToString(sum[:])
}

// syncfs makes what was unpacked survive a loss of power, since the name it gets
// then says that it is whole.
func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// ctxReader ends with ctx.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, fmt.Errorf("unpacking: %w", err)
	}
	return c.r.Read(p)
}
