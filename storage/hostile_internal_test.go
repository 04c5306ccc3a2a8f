package storage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tarstream"
	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// shelves is a bucket in memory, as storagetest cannot be used from inside.
type shelves struct {
	mu  sync.Mutex
	all map[string][]byte
}

func (b *shelves) Get(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.all[key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (b *shelves) Put(_ context.Context, key string, r io.Reader, opts *PutOptions) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.all[key]; there && opts != nil && opts.IfAbsent {
		return fs.ErrExist
	}
	if b.all == nil {
		b.all = map[string][]byte{}
	}
	b.all[key] = data
	return nil
}

func (b *shelves) Stat(_ context.Context, key string) (Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.all[key]; !ok {
		return Object{}, fs.ErrNotExist
	}
	return Object{Key: key, Size: int64(len(b.all[key])), Modified: time.Now()}, nil
}

func (b *shelves) List(_ context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		b.mu.Lock()
		keys := slices.Sorted(maps.Keys(b.all))
		b.mu.Unlock()
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) && !yield(Object{Key: key}, nil) {
				return
			}
		}
	}
}

func (b *shelves) Delete(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, key)
	return nil
}

// plant stores a version whose listing is what somebody hostile made.
func plant(t *testing.T, v *Volume, entries []tree.Entry, edit func(*record)) string {
	t.Helper()
	data, st := v.packListing(&tree.Tree{Entries: entries})
	name, err := v.putNamed(t.Context(), v.treeKey, data, "aaaaaaaa")
	if err != nil {
		t.Fatal(err)
	}
	st.Name = name
	r := &record{Time: time.Unix(1_700_000_000, 0).UTC(), Tree: st}
	v.place(&line{}, r, false)
	if edit != nil {
		edit(r)
	}
	raw, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.bucket.Put(t.Context(), v.slotKey(r.Slot), bytes.NewReader(raw), nil); err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// TestHostileBucket has versions that no Sync makes. They are refused before anything
// is written.
func TestHostileBucket(t *testing.T) {
	dir := func(path string) tree.Entry { return tree.Entry{Path: path, Kind: tree.Dir, Mode: 0o755} }
	file := func(path string) tree.Entry { return tree.Entry{Path: path, Kind: tree.File, Mode: 0o644} }
	hold := func(f tree.Frame, pack string, n uint32) tree.Entry {
		f.Pack = &tree.Pack{Name: pack}
		return tree.Entry{Path: "x", Kind: tree.File, Size: int64(n), Chunks: []tree.Chunk{{Size: int64(n), Blob: &tree.Blob{Frame: &f, Len: n}}}}
	}
	pack := strings.Repeat("0", 64) + ".aaaaaaaa"
	for name, test := range map[string]struct {
		entries []tree.Entry
		edit    func(*record)
	}{
		"up":                 {entries: []tree.Entry{dir(""), file("../x")}},
		"up by a directory":  {entries: []tree.Entry{dir(""), dir("d"), file("d/../../x")}},
		"absolute":           {entries: []tree.Entry{dir(""), file("/tmp/x")}},
		"below a link":       {entries: []tree.Entry{dir(""), {Path: "l", Kind: tree.Symlink, Link: ".."}, file("l/x")}},
		"hard link outside":  {entries: []tree.Entry{dir(""), {Path: "h", Kind: tree.Hardlink, Link: "../x"}}},
		"hard link to link":  {entries: []tree.Entry{dir(""), {Path: "h", Kind: tree.Hardlink, Link: "l"}, {Path: "l", Kind: tree.Symlink, Link: "/etc/passwd"}}},
		"no root":            {entries: []tree.Entry{dir("d")}},
		"twice":              {entries: []tree.Entry{dir(""), file("x"), file("x")}},
		"a pack elsewhere":   {entries: []tree.Entry{dir(""), hold(tree.Frame{Stored: 1, Size: 1, Raw: true}, "../../other/_packs/x", 1)}},
		"a missing pack":     {entries: []tree.Entry{dir(""), hold(tree.Frame{Stored: 1, Size: 1, Raw: true}, pack, 1)}},
		"a frame of 4 GiB":   {entries: []tree.Entry{dir(""), hold(tree.Frame{Stored: math.MaxUint32, Size: math.MaxUint32, Raw: true}, pack, math.MaxUint32)}},
		"a zstd of 4 GiB":    {entries: []tree.Entry{dir(""), hold(tree.Frame{Stored: 100, Size: math.MaxUint32}, pack, 1)}},
		"a listing of 2 EiB": {entries: []tree.Entry{dir("")}, edit: func(r *record) { r.Tree.Size = 1 << 61 }},
		"a listing of 2 GiB": {entries: []tree.Entry{dir("")}, edit: func(r *record) { r.Tree.Size = maxTree }},
		"unpacks to 2 GiB":   {entries: []tree.Entry{dir("")}, edit: func(r *record) { r.Tree.Raw = maxTree }},
		"another's tree":     {entries: []tree.Entry{dir("")}, edit: func(r *record) { r.Tree.Name = "../" + r.Tree.Name }},
		"a delta that lacks": {entries: []tree.Entry{dir("")}, edit: func(r *record) { r.Delta = &stored{Size: 5, Raw: 5, SHA256: r.Tree.SHA256} }},
		"another slot":       {entries: []tree.Entry{dir("")}, edit: func(r *record) { r.Head = 7 }},
	} {
		t.Run(name, func(t *testing.T) {
			v := NewVolume(new(shelves), "acme", nil)
			id := plant(t, v, test.entries, test.edit)
			parent := t.TempDir()
			to := filepath.Join(parent, "work")
			if err := os.Mkdir(to, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := v.Restore(t.Context(), Local{}, to, id); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Restore: %v", err)
			}
			if _, err := v.FS(t.Context(), id); err == nil && name != "a missing pack" {
				t.Error("FS accepts it")
			}
			for _, dir := range []string{parent, to} {
				if names, err := os.ReadDir(dir); err != nil || dir == parent && len(names) != 1 || dir == to && len(names) != 0 {
					t.Errorf("%s holds %v, %v", dir, names, err)
				}
			}
			if _, err := v.Sync(t.Context(), Local{}, to); err == nil && name != "a missing pack" {
				t.Error("a Sync builds on it")
			}
		})
	}
}

// TestPlantedStaging has a directory pretend that a restore was broken off in it. What
// that says is about the directory alone.
func TestPlantedStaging(t *testing.T) {
	var archive bytes.Buffer
	w := tarstream.NewWriter(&archive, tarstream.Posix)
	if err := w.Begin(&tarstream.Member{Kind: tarstream.Dir, Name: "./../outside/", Mode: 0}, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string]string{
		"remove":           {"rm": "./../outside\x00"},
		"remove by link":   {"rm": "./link/file\x00"},
		"remove absolute":  {"rm": "./" + os.TempDir() + "\x00"},
		"remove all":       {"rm": "./\x00"},
		"move out":         {"mv.0": "./../outside/file\x00"},
		"move out by link": {"mv.0": "./link/file\x00", "new/link/file": "evil"},
		"open":             {"open": "./../outside\x00"},
		"modes":            {"dirs": archive.String()},
		"a list of noise":  {"rm": "\x00\x00//\xff"},
	} {
		parent := t.TempDir()
		dir, outside := filepath.Join(parent, "work"), filepath.Join(parent, "outside")
		stage := filepath.Join(dir, ".vivarium-restore-planted")
		for _, d := range []string{filepath.Join(stage, "new", "link"), filepath.Join(stage, "go"), outside} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		files["keep"] = ""
		for file, data := range files {
			if err := os.WriteFile(filepath.Join(stage, file), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(filepath.Join(outside, "file"), []byte("safe"), 0o644), os.Symlink("../outside", filepath.Join(dir, "link"))); err != nil {
			t.Fatal(err)
		}
		_, err := NewVolume(new(shelves), "acme", nil).Sync(t.Context(), Local{}, dir)
		t.Logf("%s: %v", name, err)
		info, statErr := os.Stat(outside)
		if data, err := os.ReadFile(filepath.Join(outside, "file")); err != nil || string(data) != "safe" || statErr != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: outside now holds %q, %v, %v", name, data, err, statErr)
		}
	}
}

func FuzzRecord(f *testing.F) {
	r := &record{Time: time.Unix(1, 0).UTC(), Tree: &stored{Name: strings.Repeat("0", 64) + ".aaaaaaaa", SHA256: strings.Repeat("0", 64)}}
	NewVolume(nil, "acme", nil).place(&line{}, r, false)
	seed, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, uint64(1), true)
	f.Add([]byte("vivarium-volume 3 x\n{}\n"), uint64(1), true)
	f.Add([]byte(`{"format":1}`), uint64(1), false)
	for slot := range uint64(6) {
		if data, err := os.ReadFile(fmt.Sprintf("testdata/format2/bucket/demo/golden/_versions/%010d", slot+1)); err == nil {
			f.Add(data, slot+1, true)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, slot uint64, whole bool) {
		r, err := parseRecord(data, slot, whole)
		if err != nil {
			return
		}
		if r.Slot != slot || r.Head > slot || r.Fence >= slot {
			t.Fatalf("%+v", r)
		}
		if !r.isVersion() {
			return
		}
		again, err := r.encode()
		if err != nil {
			return // too long
		}
		if back, err := parseRecord(again, slot, whole && r.Delta != nil); err != nil || back.ID != r.ID {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add("20260102-030405.000000006-7-abcdefgh")
	f.Fuzz(func(t *testing.T, id string) {
		when, slot, ok := parseID(id)
		if !ok {
			return
		}
		if back := newID(when, slot); back[:len(back)-8] != id[:len(id)-8] {
			t.Fatalf("%q reads as %v and %d", id, when, slot)
		}
	})
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("./a\x00./b/c\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		paths, err := parseList(data)
		if err != nil {
			return
		}
		for _, p := range paths {
			if p == "" || tree.CheckPath(p) != "" || !filepath.IsLocal(p) {
				t.Fatalf("path %q", p)
			}
		}
		if back, err := parseList(list(paths)); err != nil || !slices.Equal(back, paths) {
			t.Fatalf("%q became %q, %v", paths, back, err)
		}
	})
}

// FuzzListing reads what a sandbox may say that it has, and makes a version of it.
func FuzzListing(f *testing.F) {
	link := "l 777 1 1 1 1 3 7 0 0 0 l\x00x\x00"
	plainLink := "a1ff 1 1 a|1 a|1 3 7 0 0 0 ./l\n//\n'./l' -> 'x'\n//\n"
	for _, good := range goodListings {
		// A link, before the empty record at the end.
		text, end, more := strings.TrimSuffix(good.text, "\x00"), "\x00", link
		if good.want.cut {
			text, end, more = strings.TrimSuffix(good.text, "//\n"), "//\n", plainLink
		}
		text += more + end
		if l, err := parseListing(text); err != nil || len(l.entries) != 3 {
			f.Fatalf("%q: %v", text, err)
		}
		f.Add(text)
	}
	for _, bad := range badListings {
		f.Add(bad.text)
	}
	f.Add(strings.ReplaceAll("gnu 1700000000.5 boot\n"+gnuRecords, " a\x00", " ../a\x00"))
	f.Fuzz(func(t *testing.T, text string) {
		v := NewVolume(nil, "acme", &Options{MaxFiles: 100})
		l := &lister{v: v}
		if l.parse(bufio.NewReader(strings.NewReader(text))) != nil {
			return
		}
		have, err := l.finish()
		if err != nil {
			return
		}
		for _, e := range have.entries {
			if e.Kind == tree.File {
				e.Size = 0 // nothing was read
			}
			if e.Kind == tree.Symlink && e.Link == "" {
				e.Link = "x"
			}
		}
		for _, e := range have.entries {
			if e.Path != "" && !filepath.IsLocal(e.Path) {
				t.Fatalf("path %q", e.Path)
			}
		}
		s := &syncing{v: v, have: have}
		for _, e := range have.entries {
			if e.Kind == tree.File {
				e.read = &reading{}
			}
		}
		if err := s.tree().Check(); err != nil && !strings.Contains(err.Error(), "mode") && !strings.Contains(err.Error(), "link without") {
			t.Fatalf("%q makes a version that cannot be restored: %v", text, err)
		}
	})
}
