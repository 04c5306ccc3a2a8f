package storage_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// pretended is a file of a sandbox that does not exist.
type pretended struct {
	path, data, link string
	kind             byte // find's letter; 0: a file
	mode             int
	mtime            string // seconds; "": 1,000,000,000
	links, ino       int
	uid, gid         int
	hole             int64 // in front of the data
}

// pretend is a Runner that is no sandbox, and answers a Sync as one would: with what
// it likes.
type pretend struct {
	files  []pretended
	list   func(w io.Writer) error             // in place of a listing of files
	read   func(w io.Writer, n []string) error // in place of an archive of them
	status string                              // in place of "gnu 0"
}

func (p *pretend) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	script := args[1]
	switch {
	case strings.Contains(script, "-printf '%y"):
		list := p.list
		if list == nil {
			list = p.writeList
		}
		if err := list(stdout); err != nil {
			return err
		}
		_, err := io.WriteString(stdout, "vivarium-status\nfind 0")
		return err
	case strings.Contains(script, "--no-recursion"):
		names, err := io.ReadAll(stdin)
		if err != nil {
			return err
		}
		read := p.read
		if read == nil {
			read = p.writeArchive
		}
		if err := read(stdout, strings.Split(strings.TrimSuffix(string(names), "\x00"), "\x00")); err != nil {
			return err
		}
		status := p.status
		if status == "" {
			status = "gnu 0"
		}
		_, err = io.WriteString(stdout, "vivarium-status\n"+status)
		return err
	}
	return fmt.Errorf("an unexpected script: %s", script)
}

const pretendHead = "gnu 1700000000.5 00000000-0000-4000-8000-000000000000\n"

func (p *pretend) writeList(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(pretendHead)
	for _, f := range p.files {
		b.WriteString(f.record())
	}
	b.WriteByte(0)
	_, err := w.Write(b.Bytes())
	return err
}

// record is what find prints of f.
func (f *pretended) record() string {
	kind, mtime, links, ino := f.kind, f.mtime, f.links, f.ino
	if kind == 0 {
		kind = 'f'
	}
	if mtime == "" {
		mtime = "1000000000"
	}
	if links == 0 {
		links = 1
	}
	if ino == 0 {
		ino = len(f.path) + 1000
	}
	size := f.hole + int64(len(f.data))
	blocks := (len(f.data) + 511) / 512
	return fmt.Sprintf("%c %o %d %s 1000000000.25 %d %d 7 %d %d %d %s\x00%s\x00", kind, f.mode, size, mtime, links, ino, f.uid, f.gid, blocks, f.path, f.link)
}

func (p *pretend) writeArchive(w io.Writer, names []string) error {
	tw := tarstream.NewWriter(w, tarstream.Posix)
	for _, name := range names {
		for _, f := range p.files {
			if "./"+f.path != name {
				continue
			}
			m := &tarstream.Member{Kind: tarstream.Regular, Name: name, Mode: 0o644, Size: int64(len(f.data)), Mtime: tree.Time{Sec: 1}}
			var runs []tarstream.Run
			if f.hole > 0 {
				m.Sparse, m.Real = true, f.hole+int64(len(f.data))
				runs = []tarstream.Run{{Off: f.hole, Len: int64(len(f.data))}}
			}
			if err := tw.Begin(m, runs); err != nil {
				return err
			}
			if _, err := io.WriteString(tw, f.data); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}
