package tarstream

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

const mark = "end-of-archives\n"

func reader(data []byte) *Reader {
	return NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(data), strings.NewReader(mark))), mark)
}

var members = []Member{
	{Kind: Dir, Name: "./d/", Mode: 0o755, Mtime: tree.Time{Sec: 1}},
	{Kind: Regular, Name: "./d/file", Mode: 0o600, Size: 5, UID: 7, GID: 1 << 22, Mtime: tree.Time{Sec: 1e9, Nsec: 123456789}},
	{Kind: Regular, Name: "./" + strings.Repeat("long/", 40) + "name", Mode: 0o644, Mtime: tree.Time{Sec: -5, Nsec: 250_000_000}},
	{Kind: Symlink, Name: "./link", Link: strings.Repeat("target/", 30), Mode: 0o777},
	{Kind: Hard, Name: "./hard", Link: "./d/file", Mode: 0o600},
}

func archive(t testing.TB, d Dialect) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, d)
	for _, m := range members {
		if err := w.Begin(&m, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", int(m.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The standard library reads what is written, and what is written is read here.
func TestRoundTrip(t *testing.T) {
	for _, d := range []Dialect{Posix, Busybox} {
		data := archive(t, d)
		std, own := tar.NewReader(bytes.NewReader(data)), reader(append(data, data...))
		for i, want := range members {
			h, err := std.Next()
			if err != nil {
				t.Fatal(err)
			}
			if h.Name != want.Name || h.Linkname != want.Link || h.Size != want.Size || h.Mode != want.Mode || h.Uid != int(want.UID) || h.Gid != int(want.GID) {
				t.Errorf("archive/tar reads %+v, want %+v", h, want)
			}
			if when := time.Unix(want.Mtime.Sec, int64(want.Mtime.Nsec)); d == Posix && !h.ModTime.Equal(when) {
				t.Errorf("member %d: time %v, want %v", i, h.ModTime, when)
			}
			m, err := own.Next()
			if err != nil {
				t.Fatal(err)
			}
			if m.Name != want.Name || m.Link != want.Link || m.Size != want.Size || d == Posix && m.Mtime != want.Mtime {
				t.Errorf("read %+v, want %+v", m, want)
			}
		}
		for n := 0; ; n++ { // the second archive behind the first
			if _, err := own.Next(); errors.Is(err, io.EOF) {
				if n != len(members) {
					t.Errorf("%d members in the second archive", n)
				}
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSparse(t *testing.T) {
	runs := []Run{{Off: 4096, Len: 3}, {Off: 1 << 20, Len: 2}, {Off: 1 << 21, Len: 0}}
	m := Member{Kind: Regular, Name: "./sparse", Mode: 0o600, Sparse: true, Real: 1 << 21}
	var b bytes.Buffer
	w := NewWriter(&b, Posix)
	if err := w.Begin(&m, runs); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "abcde"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	std := tar.NewReader(bytes.NewReader(b.Bytes()))
	h, err := std.Next()
	if err != nil || h.Size != m.Real || h.Name != m.Name {
		t.Fatalf("archive/tar: %+v, %v", h, err)
	}
	all, err := io.ReadAll(std)
	if err != nil || string(all[4096:4099]) != "abc" || string(all[1<<20:1<<20+2]) != "de" {
		t.Fatalf("archive/tar reads %d bytes, %v", len(all), err)
	}
	r := reader(b.Bytes())
	got, err := r.Next()
	if err != nil || !got.Sparse || got.Real != m.Real {
		t.Fatalf("%+v, %v", got, err)
	}
	back, err := r.Runs(got)
	if err != nil || len(back) != 2 || back[1] != runs[1] {
		t.Fatalf("runs %v, %v", back, err)
	}
	if data, err := io.ReadAll(r); err != nil || string(data) != "abcde" {
		t.Errorf("data %q, %v", data, err)
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]tree.Time{
		"0": {}, "1.5": {Sec: 1, Nsec: 5e8}, "-1.25": {Sec: -2, Nsec: 75e7}, "7.0000000019": {Sec: 7, Nsec: 1}, "-0.5": {Sec: -1, Nsec: 5e8},
	} {
		got, err := ParseTime(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseTime(FormatTime(got)); err != nil || again != got {
			t.Errorf("%s: back as %+v, %v", text, again, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(archive(f, Posix))
	f.Add(archive(f, Busybox))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := reader(data)
		for range 1000 {
			m, err := r.Next()
			if err != nil {
				return
			}
			if m.Sparse {
				if _, err := r.Runs(m); err != nil {
					return
				}
			}
			if m.Size < 0 || m.Real < 0 {
				t.Fatalf("%+v", m)
			}
			if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil {
				return
			}
		}
	})
}
