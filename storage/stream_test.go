package storage_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// sandboxSays is a Runner whose every command prints the same bytes.
type sandboxSays string

func (s sandboxSays) Run(_ context.Context, _ io.Reader, stdout io.Writer, _ string, _ ...string) error {
	_, err := io.WriteString(stdout, string(s))
	return err
}

const allIsWell = "vivarium-tar-says\ngnu 0"

func tarOf(t testing.TB, headers ...*tar.Header) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		h.Mode |= 0o644
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// syncStream syncs what a sandbox printed, and reads back what was stored.
func syncStream(t testing.TB, printed string) ([]*tar.Header, error) {
	t.Helper()
	memory := new(storagetest.Memory)
	version, err := storage.NewVolume(memory, "acme", nil).Sync(t.Context(), sandboxSays(printed), "/work")
	if err != nil {
		for object := range memory.List(t.Context(), "") {
			t.Fatalf("a failed Sync left %s", object.Key)
		}
		return nil, err
	}
	r, err := memory.Get(t.Context(), "acme/_archives/"+version.ID+".tar.zst", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	zr, err := zstd.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	var all []*tar.Header
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			t.Fatalf("the stored archive is not readable: %v", err)
		}
		all = append(all, h)
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	link := func(name, target string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	hard := func(name, target string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
	}
	file := func(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3} }
	long := strings.Repeat("d/", 80)
	for name, headers := range map[string][]*tar.Header{
		"absolute":               {file("/etc/passwd")},
		"parent":                 {file("../x")},
		"parent within":          {file("a/../../x")},
		"parent in a long name":  {file(long + "../" + long + "x")},
		"through a link":         {link("./d", "/etc"), file("./d/passwd")},
		"over a link":            {link("f", "/etc/passwd"), file("./f")},
		"through a deep link":    {link("a/b", "/etc"), file("a//b/c/d")},
		"through a hard link":    {link("l", "/etc"), hard("h", "l"), file("h/passwd")},
		"over a hard link":       {link("l", "/etc/passwd"), hard("h", "./l"), file("h")},
		"hard link to absolute":  {hard("h", "/etc/passwd")},
		"hard link to parent":    {hard("h", "../../etc/passwd")},
		"hard link through link": {link("l", "/etc"), hard("h", "l/passwd")},
		"link as the root":       {link(".", "/etc")},
		"file as the root":       {file("./.")},
	} {
		if got, err := syncStream(t, tarOf(t, headers...)+allIsWell); err == nil || !strings.Contains(err.Error(), "unsafe archive") {
			t.Errorf("%s: stored %+v, %v", name, got, err)
		}
	}
}

func TestStoredArchiveIsCleaned(t *testing.T) {
	long := strings.Repeat("long/", 60)
	when := time.Unix(1_600_000_000, 123456789)
	got, err := syncStream(t, tarOf(t,
		&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o3755},
		&tar.Header{Typeflag: tar.TypeReg, Name: "prog", Mode: 0o6755, Size: 700, Uid: 1000, Uname: "me", ModTime: when, AccessTime: when,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y", "VENDOR.thing": "z"}},
		&tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3},
		&tar.Header{Typeflag: tar.TypeReg, Name: "./.vivarium-restore-x/new/y", Size: 10},
		&tar.Header{Typeflag: tar.TypeReg, Name: long + "f", Size: 1},
		&tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../" + long},
	)+strings.Repeat("\x00", 9*512)+allIsWell)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range got {
		names = append(names, h.Name)
		if h.Mode&0o6000 != 0 || h.Uid != 0 || h.Uname != "" || !h.AccessTime.IsZero() || strings.Contains(strings.Join(keysOf(h.PAXRecords), " "), ".") {
			t.Errorf("stored %+v", h)
		}
	}
	if want := "././ ./prog ./" + long + "f ./l"; strings.Join(names, " ") != want && strings.Join(names, " ") != strings.Replace(want, "././", "./", 1) {
		t.Errorf("stored %q", names)
	}
	if !got[1].ModTime.Equal(when) || got[1].Size != 700 || got[3].Linkname != "../"+long {
		t.Errorf("stored %+v and %+v", got[1], got[3])
	}
}

func keysOf(m map[string]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

func TestBrokenStreamsAreRefused(t *testing.T) {
	whole := tarOf(t, &tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 5000})
	for name, printed := range map[string]string{
		"nothing":             "",
		"no archive":          allIsWell,
		"no word after":       whole,
		"cut in a file":       whole[:2000] + allIsWell,
		"cut before the end":  whole[:len(whole)-1024] + allIsWell,
		"cut in the end mark": whole[:len(whole)-300],
		"tar failed":          whole + "vivarium-tar-says\ntar: oh\ngnu 2",
		"busybox failed":      whole + "vivarium-tar-says\ntar: oh\nother 1",
		"noise after":         whole + "noise",
		"wrong checksum":      "x" + whole[1:] + allIsWell,
	} {
		if got, err := syncStream(t, printed); err == nil {
			t.Errorf("%s: stored %+v", name, got)
		}
	}
	if _, err := syncStream(t, whole+allIsWell); err != nil {
		t.Error(err)
	}
	if _, err := syncStream(t, "vivarium-tar-says\nabsent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// TestRestoreRefusesHostileArchive has an archive in the bucket that its manifest
// agrees with, as one who can write to the bucket would make it.
func TestRestoreRefusesHostileArchive(t *testing.T) {
	requireGNUTar(t)
	dir := workdir(t)
	write(t, dir, map[string]string{"file": "old"})
	memory := new(storagetest.Memory)
	v := storage.NewVolume(memory, "acme", nil)
	id := mustSync(t, v, dir).ID
	outside := filepath.Join(filepath.Dir(dir), "outside")
	write(t, outside, map[string]string{"file": "safe"})
	evil := tarOf(t, &tar.Header{Typeflag: tar.TypeSymlink, Name: "d", Linkname: outside}, &tar.Header{Typeflag: tar.TypeReg, Name: "d/file", Size: 4})
	var packed bytes.Buffer
	zw, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(zw, evil); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	key := "acme/_versions/" + id + ".json"
	var manifest map[string]any
	r, err := memory.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(r).Decode(&manifest); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(packed.Bytes())
	manifest["archive"] = map[string]any{"size": packed.Len(), "tar_size": len(evil), "sha256": hex.EncodeToString(sum[:])}
	data, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for k, d := range map[string][]byte{key: data, "acme/_archives/" + id + ".tar.zst": packed.Bytes()} {
		if err := memory.Put(t.Context(), k, bytes.NewReader(d), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Restore(t.Context(), host{}, dir, id); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("Restore: %v", err)
	}
	if content(t, dir) != "file=old;" || content(t, outside) != "file=safe;" {
		t.Errorf("now %q and %q", content(t, dir), content(t, outside))
	}
}

// FuzzArchive holds that whatever a sandbox prints is refused, or stored as an
// archive that cannot lead out of the directory it is unpacked in.
func FuzzArchive(f *testing.F) {
	f.Add([]byte(tarOf(f, &tar.Header{Typeflag: tar.TypeReg, Name: "a/b", Size: 10}, &tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "a"})))
	f.Add([]byte(tarOf(f, &tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 40) + "f", ModTime: time.Unix(5, 5)})))
	f.Add([]byte(tarOf(f, &tar.Header{Typeflag: tar.TypeSymlink, Name: "d", Linkname: "/"}, &tar.Header{Typeflag: tar.TypeReg, Name: "d/x"})))
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := syncStream(t, string(data)+allIsWell)
		if err != nil {
			return
		}
		links := map[string]bool{}
		for _, h := range got {
			name := filepath.Clean(h.Name)
			if !filepath.IsLocal(name) || h.Mode&0o6000 != 0 || h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
				t.Fatalf("stored %+v", h)
			}
			for at := name; at != "."; at = filepath.Dir(at) {
				if links[at] {
					t.Fatalf("stored %q behind a link", h.Name)
				}
			}
			switch h.Typeflag {
			case tar.TypeSymlink:
				links[name] = true
			case tar.TypeLink:
				if !filepath.IsLocal(filepath.Clean(h.Linkname)) {
					t.Fatalf("stored %+v", h)
				}
			}
		}
	})
}

// FuzzManifest holds that a manifest is refused, or gives a version that is sane.
func FuzzManifest(f *testing.F) {
	const id = "20260102-030405.000000006-abcdefghijklm"
	whole := `{"format":1,"id":"` + id + `","time":"2026-01-02T03:04:05.000000006Z","files":1,"size":2,"changed":["x"],"archive":{"size":3,"tar_size":4,"sha256":"` + strings.Repeat("ab", 32) + `"}}`
	for _, data := range []string{whole, "", "{", "null", "[]", whole + whole, strings.Replace(whole, `:1,"id`, `:2,"id`, 1), strings.Replace(whole, `"size":3`, `"size":-3`, 1), strings.Replace(whole, "02T", "03T", 1)} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		memory := new(storagetest.Memory)
		if err := memory.Put(t.Context(), "acme/_versions/"+id+".json", bytes.NewReader(data), nil); err != nil {
			t.Fatal(err)
		}
		results := 0
		for v, err := range storage.NewVolume(memory, "acme", nil).Versions(t.Context()) {
			results++
			if string(data) == whole && err != nil {
				t.Fatal(err)
			}
			if err == nil && (v.ID != id || v.Time.Location() != time.UTC || v.Time.Nanosecond() != 6 || v.Files < 0 || v.Size < 0 || v.Stored < 0) {
				t.Fatalf("%q gives %+v", data, v)
			}
		}
		if results != 1 {
			t.Fatalf("%d results", results)
		}
	})
}
