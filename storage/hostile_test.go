package storage_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// TestHostileListing has a sandbox list what no directory holds. Nothing becomes a
// version, and no output without end is read to it.
func TestHostileListing(t *testing.T) {
	root := pretended{kind: 'd', mode: 0o755}
	rec := func(all ...pretended) string {
		var b strings.Builder
		b.WriteString(pretendHead)
		for _, f := range all {
			b.WriteString(f.record())
		}
		return b.String()
	}
	text := func(s string) func(io.Writer) error {
		return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
	}
	endless := func(part func(i int) string) func(io.Writer) error {
		return func(w io.Writer) error {
			out := bufio.NewWriterSize(w, 64<<10)
			for i := 0; ; i++ {
				if _, err := out.WriteString(part(i)); err != nil {
					return err
				}
			}
		}
	}
	for name, list := range map[string]func(io.Writer) error{
		"up":             text(rec(root, pretended{path: "../x"}) + "\x00"),
		"up later":       text(rec(root, pretended{path: "a/../../x"}) + "\x00"),
		"absolute":       text(rec(root, pretended{path: "/etc/passwd"}) + "\x00"),
		"twice":          text(rec(root, pretended{path: "a"}, pretended{path: "a"}) + "\x00"),
		"no root":        text(rec(pretended{path: "a"}) + "\x00"),
		"a file as root": text(rec(pretended{path: ""}) + "\x00"),
		"nothing":        text(""),
		"noise":          text(strings.Repeat("\xff\x00 ", 10_000)),
		"cut":            text(rec(root, pretended{path: "a"})),
		"a long record":  text(rec(root) + "f " + strings.Repeat("7", 3<<20) + "\x00"),
		"too many": endless(func(i int) string {
			f := pretended{path: fmt.Sprint("f", i)}
			if i == 0 {
				return rec(root)
			}
			return f.record()
		}),
		"one endless": endless(func(i int) string {
			if i == 0 {
				return rec(root) + "f "
			}
			return "77777777"
		}),
		"endless plain": endless(func(i int) string {
			if i == 0 {
				return "plain 1.5 boot\n"
			}
			return "41ed 0 1 a.5 +\n"
		}),
	} {
		b := new(storagetest.Memory)
		v := storage.NewVolume(b, "acme", &storage.Options{MaxFiles: 1000})
		if version, err := v.Sync(t.Context(), &pretend{list: list}, "/work"); err == nil {
			t.Errorf("%s: Sync made %+v", name, version)
		}
		if left := keysOf(t, b, ""); len(left) > 0 {
			t.Errorf("%s: %q were stored", name, left)
		}
	}
}

// Below a link nothing can be, so what is said to be there is left out.
func TestListedBelowALink(t *testing.T) {
	sb := &pretend{files: []pretended{{kind: 'd', mode: 0o755}, {path: "l", kind: 'l', mode: 0o777, link: "/etc"}, {path: "l/passwd", data: "evil", mode: 0o644}}}
	version, err := storage.NewVolume(new(storagetest.Memory), "acme", nil).Sync(t.Context(), sb, "/work")
	if err != nil || version.Files != 0 || version.Links != 1 {
		t.Errorf("%+v, %v", version, err)
	}
}

// TestHostileArchive has a sandbox send other members than it was asked for.
func TestHostileArchive(t *testing.T) {
	files := []pretended{{kind: 'd', mode: 0o755}, {path: "a", data: "12345", mode: 0o644}}
	member := func(m *tarstream.Member, data string) func(io.Writer, []string) error {
		return func(w io.Writer, _ []string) error {
			tw := tarstream.NewWriter(w, tarstream.Posix)
			m.Size = int64(len(data))
			if err := tw.Begin(m, []tarstream.Run{{Off: 0, Len: int64(len(data))}}); err != nil {
				return err
			}
			_, err := io.WriteString(tw, data)
			return errors.Join(err, tw.Close())
		}
	}
	for name, test := range map[string]struct {
		read func(io.Writer, []string) error
		want int64 // files in the version; -1: an error
	}{
		"longer":   {member(&tarstream.Member{Kind: tarstream.Regular, Name: "./a"}, "123456789"), 1},
		"a link":   {member(&tarstream.Member{Kind: tarstream.Symlink, Name: "./a", Link: "/etc/passwd"}, ""), -1},
		"another":  {member(&tarstream.Member{Kind: tarstream.Regular, Name: "./../../x"}, "evil"), -1},
		"a device": {member(&tarstream.Member{Kind: '3', Name: "./a"}, ""), -1},
		"noise": {func(w io.Writer, _ []string) error {
			_, err := io.WriteString(w, strings.Repeat("noise", 1000))
			return err
		}, -1},
		"a huge sparse": {member(&tarstream.Member{Kind: tarstream.Regular, Name: "./a", Sparse: true, Real: 1 << 60}, "12345"), 1},
		"a size and end": {func(w io.Writer, _ []string) error {
			return tarstream.NewWriter(w, tarstream.Posix).Begin(&tarstream.Member{Kind: tarstream.Regular, Name: "./a", Size: 1 << 50}, nil)
		}, -1},
	} {
		b := new(storagetest.Memory)
		v := storage.NewVolume(b, "acme", nil)
		version, err := v.Sync(t.Context(), &pretend{files: files, read: test.read}, "/work")
		if (err != nil) != (test.want < 0) || err == nil && version.Files != test.want {
			t.Errorf("%s: %+v, %v", name, version, err)
		}
		if err != nil && len(keysOf(t, b, "acme/_versions/")) > 0 {
			t.Errorf("%s: a version was made", name)
		}
	}
}
