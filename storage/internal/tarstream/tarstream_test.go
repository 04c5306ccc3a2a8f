package tarstream

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

const mark = "the-end\n"

func reader(data []byte) *Reader {
	return NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(data), strings.NewReader(mark))), mark)
}

// members are one of everything.
func members() []*Member {
	long := strings.Repeat("directory-of-thirty-characters/", 5)
	return []*Member{
		{Kind: Dir, Name: "./", Mode: 0o755, Mtime: tree.Time{Sec: 1_000_000_000}},
		{Kind: Dir, Name: "./d/", Mode: 0o1777, Mtime: tree.Time{Sec: 1_000_000_000, Nsec: 5}},
		{Kind: Regular, Name: "./d/file", Mode: 0o644, Size: 700, Mtime: tree.Time{Sec: 1_700_000_000, Nsec: 123456789}},
		{Kind: Regular, Name: "./empty", Mode: 0o400},
		{Kind: Regular, Name: "./old", Mode: 0o600, Size: 1, Mtime: tree.Time{Sec: -2, Nsec: 500_000_000}},
		{Kind: Symlink, Name: "./link", Link: "../" + long + "x", Mode: 0o777},
		{Kind: Dir, Name: "./" + long, Mode: 0o755},
		{Kind: Regular, Name: "./" + long + "deep", Mode: 0o644, Size: 3},
		{Kind: Hard, Name: "./hard", Link: "./d/file", Mode: 0o644},
		{Kind: Regular, Name: "./new\nline and\xff", Mode: 0o644, Size: 512},
		{Kind: Regular, Name: "./sparse", Mode: 0o644, Sparse: true, Real: 100_000, Size: 10},
	}
}

var runs = []Run{{Off: 50_000, Len: 10}, {Off: 100_000}}

func archive(t testing.TB, d Dialect) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out, d)
	for _, m := range members() {
		if err := w.Begin(m, runs); err != nil {
			t.Fatal(err)
		}
		if m.Sparse {
			if err := w.Hole(50_000); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(m.Size))); err != nil {
			t.Fatal(err)
		}
		if m.Sparse {
			if err := w.Hole(m.Real - 50_010); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadsWhatItWrites(t *testing.T) {
	for _, d := range []Dialect{Posix, Busybox} {
		r := reader(archive(t, d))
		for _, want := range members() {
			m, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if d == Busybox {
				want.Mtime.Nsec = 0
				want.Mtime.Sec = max(want.Mtime.Sec, 0)
			}
			if m.Name != want.Name || m.Link != want.Link || m.Kind != want.Kind || m.Mode != want.Mode || m.Mtime != want.Mtime {
				t.Errorf("%+v, want %+v", m, want)
			}
			switch {
			case want.Sparse && d == Posix:
				got, err := r.Runs(m)
				if err != nil || len(got) != 1 || got[0] != runs[0] || m.Real != want.Real || !m.Sparse {
					t.Errorf("%+v, %v, %v", m, got, err)
				}
			case want.Sparse && m.Size != want.Real, !want.Sparse && m.Size != want.Size:
				t.Errorf("%+v has another size", m)
			}
			if data, err := io.ReadAll(r); err != nil || want.Size > 0 && !bytes.Contains(data, []byte("x")) {
				t.Errorf("%s: %v", m.Name, err)
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("the end: %v", err)
		}
	}
}

func TestAgainstArchiveTar(t *testing.T) {
	tr := tar.NewReader(bytes.NewReader(archive(t, Posix)))
	for _, want := range members() {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		size := want.Size
		if want.Sparse {
			size = want.Real
		}
		if h.Name != want.Name || h.Linkname != want.Link || h.Size != size || h.Mode != want.Mode || !h.ModTime.Equal(time.Unix(want.Mtime.Sec, int64(want.Mtime.Nsec))) {
			t.Errorf("archive/tar reads %+v, want %+v", h, want)
		}
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Error(err)
	}
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU} {
		var out bytes.Buffer
		tw := tar.NewWriter(&out)
		h := &tar.Header{Name: strings.Repeat("n/", 80) + "f", Size: 5, Mode: 0o640, ModTime: time.Unix(1_700_000_000, 0), Format: format, Typeflag: tar.TypeReg}
		if format == tar.FormatPAX {
			h.ModTime = time.Unix(1_700_000_000, 250)
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, "12345"); err != nil {
			t.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		r := reader(out.Bytes())
		m, err := r.Next()
		if err != nil || m.Name != h.Name || m.Size != 5 || m.Mode != 0o640 || m.Mtime.Sec != h.ModTime.Unix() || int(m.Mtime.Nsec) != h.ModTime.Nanosecond() {
			t.Errorf("%v: %+v, %v", format, m, err)
		}
		if data, err := io.ReadAll(r); err != nil || string(data) != "12345" {
			t.Errorf("%v: %q, %v", format, data, err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%v: %v", format, err)
		}
	}
}

// TestRealTars has the programs themselves unpack an archive, and reads what they
// make of that.
func TestRealTars(t *testing.T) {
	for name, test := range map[string]struct {
		command []string
		dialect Dialect
		pack    []string
	}{
		"GNU":     {[]string{"tar", "-x", "-p", "--delay-directory-restore"}, Posix, []string{"tar", "-c", "--format=posix", "--sparse", "."}},
		"GNU old": {[]string{"tar", "-x", "-p"}, Busybox, []string{"tar", "-c", "--format=gnu", "."}},
		"busybox": {[]string{"busybox", "tar", "-x"}, Busybox, []string{"busybox", "tar", "-c", "."}},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := exec.Command(test.command[0], "--help").CombinedOutput(); err != nil || test.command[0] == "tar" && !bytes.Contains(out, []byte("GNU")) {
				t.Skip(test.command[0], " is absent")
			}
			dir := t.TempDir()
			run := func(in []byte, args ...string) []byte {
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
				var words bytes.Buffer
				cmd.Stderr = &words
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%q: %v: %s", args, err, words.Bytes())
				}
				return out
			}
			run(archive(t, test.dialect), test.command...)
			for _, m := range members() {
				info, err := os.Lstat(filepath.Join(dir, m.Name))
				if err != nil {
					t.Error(err)
					continue
				}
				if size := max(m.Size, m.Real); m.Kind == Regular && info.Size() != size {
					t.Errorf("%s has %d bytes, want %d", m.Name, info.Size(), size)
				}
			}
			r := reader(run(nil, test.pack...))
			seen := map[string]bool{}
			for {
				m, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				seen[m.Name] = true
				if m.Sparse {
					if _, err := r.Runs(m); err != nil {
						t.Fatal(err)
					}
				}
				if data, err := io.ReadAll(r); err != nil || len(bytes.Trim(data, "x\x00")) > 0 {
					t.Errorf("%s: %v", m.Name, err)
				}
			}
			for _, m := range members() {
				if !seen[m.Name] {
					t.Errorf("%q is not in its archive", m.Name)
				}
			}
			_ = os.Chmod(filepath.Join(dir, "d"), 0o755)
		})
	}
}

// header makes a block for a member.
func header(m *Member, edit func([]byte)) []byte {
	b := m.appendHeader(nil, Posix)
	if edit != nil {
		edit(b)
		putOctal(b[148:155], headerSum(b))
	}
	return b
}

func TestRefuses(t *testing.T) {
	file := &Member{Kind: Regular, Name: "./x", Size: 4}
	pax := func(records string) []byte {
		b := header(&Member{Kind: paxNext, Size: int64(len(records))}, nil)
		b = append(b, records...)
		b = append(b, make([]byte, padding(int64(len(records))))...)
		return append(b, header(file, nil)...)
	}
	for name, data := range map[string][]byte{
		"noise":                bytes.Repeat([]byte("noise"), 200),
		"a wrong sum":          func() []byte { b := header(file, nil); b[0] ^= 1; return b }(),
		"a bad size":           header(file, func(b []byte) { copy(b[124:136], "99999999999\x00") }),
		"a negative size":      header(file, func(b []byte) { copy(b[124:136], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }),
		"a huge pax header":    header(&Member{Kind: paxNext, Size: 1 << 40}, nil),
		"a huge name":          header(&Member{Kind: gnuName, Size: 1 << 30}, nil),
		"cut in a pax header":  header(&Member{Kind: paxNext, Size: 5000}, nil),
		"a pax length of 0":    pax("0 path=x\n"),
		"a pax length beyond":  pax("99 path=x\n"),
		"a pax without equals": pax("8 pathx\n"),
		"a negative pax size":  pax("11 size=-1\n"),
		"a bad pax time":       pax("13 mtime=x.y\n"),
		"an old sparse format": pax("22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n"),
		"sparse without name":  pax("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
	} {
		r := reader(data)
		if m, err := r.Next(); err == nil || !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, text := range map[string]string{
		"many runs": "99999999\n", "no number": "x\n", "out of order": "2\n10\n5\n0\n5\n", "beyond the end": "1\n99\n5\n", "endless digits": strings.Repeat("1", 100),
		"overlap": "2\n0\n10\n5\n10\n", "other sum": "1\n0\n1\n", "negative": "1\n-5\n1\n", "overflow": "1\n4611686018427387903\n4611686018427387903\n",
	} {
		data := text + strings.Repeat("\x00", int(padding(int64(len(text))))) + "12345"
		r := NewReader(bufio.NewReader(strings.NewReader(data)), mark)
		r.left = int64(len(data))
		if got, err := r.Runs(&Member{Real: 100}); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]tree.Time{
		"0": {}, "1.5": {Sec: 1, Nsec: 5e8}, "-1": {Sec: -1}, "-1.25": {Sec: -2, Nsec: 75e7}, "-0.5": {Sec: -1, Nsec: 5e8},
		"1.0000000019": {Sec: 1, Nsec: 1}, "9223372036854775807": {Sec: math.MaxInt64},
	} {
		got, err := ParseTime(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if back, err := ParseTime(FormatTime(got)); err != nil || back != got {
			t.Errorf("%s: written as %s", text, FormatTime(got))
		}
	}
	for _, text := range []string{"", ".", "x", "1.x", "1e9", "9223372036854775808"} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	w := NewWriter(io.Discard, Posix)
	m := &Member{Kind: Regular, Name: "./x", Size: 4}
	if err := w.Begin(m, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("12345")); err == nil {
		t.Error("too many bytes are taken")
	}
	if err := w.Begin(m, nil); err == nil {
		t.Error("a member may lack bytes")
	}
	if err := w.Close(); err == nil {
		t.Error("the last member may lack bytes")
	}
}

func FuzzReader(f *testing.F) {
	f.Add(archive(f, Posix))
	f.Add(archive(f, Busybox))
	f.Add(bytes.Repeat([]byte{0}, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := reader(data)
		for n := 0; ; n++ {
			m, err := r.Next()
			if err != nil {
				return
			}
			if n > len(data)/blockSize {
				t.Fatal("more members than blocks")
			}
			if m.Size < 0 || m.Real < 0 || m.Mtime.Nsec < 0 || m.Mtime.Nsec > 999_999_999 {
				t.Fatalf("%+v", m)
			}
			if m.Sparse {
				runs, err := r.Runs(m)
				if err != nil {
					return
				}
				at := int64(0)
				for _, run := range runs {
					if run.Off < at || run.Len <= 0 || run.Len > m.Real-run.Off {
						t.Fatalf("%+v, %v", m, runs)
					}
					at = run.Off + run.Len
				}
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				return
			}
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"1.5", "-1.25", "0", "1700000000.123456789"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseTime(text)
		if err != nil {
			return
		}
		if got.Nsec < 0 || got.Nsec > 999_999_999 {
			t.Fatalf("%q: %+v", text, got)
		}
		if back, err := ParseTime(FormatTime(got)); err != nil || back != got {
			t.Fatalf("%q is %+v, which is written as %s, which is %+v, %v", text, got, FormatTime(got), back, err)
		}
	})
}
