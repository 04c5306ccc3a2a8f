package dirbucket

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/vivarium-go/vivarium/storage"
)

// A key's last segment is the name of its file and the others are directories
// with a "+" behind them, so that "a" and "a/b" can both be objects. In a segment,
// lower-case letters, digits, '_', '-' and any '.' but the first byte stand for
// themselves; every other byte is "%" and two hex digits, so that names are safe,
// and distinct even where a file system folds case or normalises Unicode.

const dirMark = "+"

// fileName gives the path of a key's file. The key has passed CheckKey.
func fileName(key string) string {
	segments := strings.Split(key, "/")
	for i, segment := range segments {
		segments[i] = escape(segment)
		if i < len(segments)-1 {
			segments[i] += dirMark
		}
	}
	return path.Join(segments...)
}

func escape(segment string) string {
	var b strings.Builder
	for i := range len(segment) {
		c := segment[i]
		if plain(c) && (c != '.' || i > 0) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteString(hex.EncodeToString([]byte{c}))
	}
	return b.String()
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// unescape inverts escape; false means that escape did not make name.
func unescape(name string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			b.WriteByte(name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false
		}
		c, err := hex.DecodeString(name[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		i += 2
	}
	segment := b.String()
	return segment, segment != "" && escape(segment) == name
}

var errStop = errors.New("no more wanted")

// walk yields the objects in dir, whose keys start with base, in order. Of the
// error it returns, the caller has been told.
func (b *Bucket) walk(ctx context.Context, dir, base, prefix string, yield func(storage.Object, error) bool) error {
	tell := func(err error) error {
		yield(storage.Object{}, err)
		return err
	}
	entries, err := b.entries(dir, base)
	if err != nil {
		return tell(named("list", prefix, err))
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return tell(err)
		}
		isDir := strings.HasSuffix(e.key, "/")
		switch {
		case isDir && (strings.HasPrefix(e.key, prefix) || strings.HasPrefix(prefix, e.key)):
			if err := b.walk(ctx, path.Join(dir, e.Name()), e.key, prefix, yield); err != nil {
				return err
			}
		case !isDir && strings.HasPrefix(e.key, prefix):
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return tell(named("list", prefix, err))
			}
			if !yield(object(e.key, info), nil) {
				return errStop
			}
		}
	}
	return nil
}

// entry is a file, or a directory, whose key then ends in a slash.
type entry struct {
	fs.DirEntry
	key string
}

// entries reads a directory in the order of keys. What is not named like an
// object is passed over. A directory that is gone is empty.
func (b *Bucket) entries(dir, base string) ([]entry, error) {
	all, err := fs.ReadDir(b.root.FS(), dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []entry
	for _, e := range all {
		name, isDir := strings.CutSuffix(e.Name(), dirMark)
		segment, ok := unescape(name)
		if !ok || isDir != e.IsDir() || !isDir && !e.Type().IsRegular() {
			continue
		}
		key := base + segment
		if isDir {
			key += "/"
		}
		out = append(out, entry{e, key})
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return out, nil
}
