package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// goldenFirst makes a volume with one version of everything that there is.
func goldenFirst(t *testing.T) (*storage.Volume, *storagetest.Memory, string) {
	t.Helper()
	b := new(storagetest.Memory)
	v := storage.NewVolume(b, golden, nil)
	version, err := v.Sync(t.Context(), &pretend{files: goldenStates()[0]}, "/work")
	if err != nil {
		t.Fatal(err)
	}
	return v, b, version.ID
}

func TestFS(t *testing.T) {
	b := new(storagetest.Memory)
	v := storage.NewVolume(b, "acme", nil)
	version, err := v.Import(t.Context(), shelf(t, files(1)), "")
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := v.FS(t.Context(), version.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(fsys, slices.Collect(maps.Keys(files(1)))...); err != nil {
		t.Error(err)
	}
}

func TestFSOfEverything(t *testing.T) {
	v, b, id := goldenFirst(t)
	counted := &storagetest.Faulty{Bucket: b}
	fsys, err := storage.NewVolume(counted, v.Name(), nil).FS(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	before := counted.Count()
	for name, want := range map[string]string{"link": "#!/bin/sh\n", "hard2": "two names\n", "empty": "", "sparse": strings.Repeat("\x00", 1<<20) + "the end"} {
		got, err := fs.ReadFile(fsys, name)
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if n := counted.Count() - before; n > 4 {
		t.Errorf("%d requests for four small files", n)
	}
	if info, err := fs.Lstat(fsys, "link"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("%v, %v", info, err)
	}
	if to, err := fs.ReadLink(fsys, "link"); err != nil || to != "bin/run" {
		t.Errorf("%q, %v", to, err)
	}
	info, err := fs.Stat(fsys, "bin/run")
	if err != nil || info.Mode() != 0o755 || info.Sys().(*storage.Entry).UID != 1000 || info.ModTime().Nanosecond() != 123456789 {
		t.Errorf("%v, %v", info, err)
	}
	for _, name := range []string{"absent", "bin/run/x", "link/x", "not\xffutf8\n"} {
		if _, err := fs.ReadFile(fsys, name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	f, err := fsys.Open("large")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	part := make([]byte, 28)
	if _, err := f.(io.ReaderAt).ReadAt(part, 28*90_000); err != nil || string(part) != "a line that compresses well\n" {
		t.Errorf("%q, %v", part, err)
	}
}

// The links of a version lead nowhere outside of it, and in no circle.
func TestFSLinks(t *testing.T) {
	link := func(path, to string) pretended { return pretended{path: path, kind: 'l', mode: 0o777, link: to} }
	sb := &pretend{files: []pretended{
		{kind: 'd', mode: 0o755}, link("absolute", "/etc/passwd"), link("circle", "circle"), {path: "d", kind: 'd', mode: 0o755},
		link("d/in", "../file"), link("d/out", "../../file"), link("dir", "d"), {path: "file", data: "x", mode: 0o644},
		link("self", "d/../dir/in"),
	}}
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	version, err := v.Sync(t.Context(), sb, "/work")
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := v.FS(t.Context(), version.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"absolute": false, "circle": false, "d/out": false, "dir/in": true, "self": true, "d/in": true} {
		if data, err := fs.ReadFile(fsys, name); (err == nil) != want || want && string(data) != "x" || !want && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

func TestDiff(t *testing.T) {
	b := new(storagetest.Memory)
	v := storage.NewVolume(b, "acme", nil)
	var all []string
	for _, state := range goldenStates() {
		version, err := v.Sync(t.Context(), &pretend{files: state}, "/work")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, version.ID)
	}
	touched := goldenStates()[3]
	touched[0].mode = 0o700
	version, err := v.Sync(t.Context(), &pretend{files: touched}, "/work")
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, version.ID)
	for i, want := range []string{"", "modified empty, modified link", "removed bin, removed bin/run", "added bin", "touched "} {
		if i == 0 {
			continue
		}
		var got []string
		for c, err := range v.Diff(t.Context(), all[i-1], all[i]) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(c.Kind, " ", c.Path))
			if (c.Old == nil) != (c.Kind == storage.Added) || (c.New == nil) != (c.Kind == storage.Removed) {
				t.Errorf("%+v", c)
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("to version %d: %q, want %q", i, got, want)
		}
	}
	for _, err := range v.Diff(t.Context(), all[0], "unknown") {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

// TestExportTar has the machine's own tar unpack a version.
func TestExportTar(t *testing.T) {
	requireGNUTar(t)
	v, _, id := goldenFirst(t)
	dir := workdir(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-x", "-p", "-o", "-C", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(v.ExportTar(t.Context(), id, in), in.Close(), cmd.Wait())
	if err != nil {
		t.Fatalf("%v: %s", err, words.Bytes())
	}
	other := workdir(t)
	if err := v.Restore(t.Context(), storage.Local{}, other, id); err != nil {
		t.Fatal(err)
	}
	state := func(dir string) string {
		out, err := exec.Command("sh", "-c", `cd "$1"; find . -printf '%p %y %m %n %l %T@\n' | sed 's/^\(.* l .*\) [^ ]*$/\1/' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum`, "sh", dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if diff := cmp.Diff(strings.Split(state(other), "\n"), strings.Split(state(dir), "\n")); diff != "" {
		t.Errorf("tar does not make what Restore does (-want +got):\n%s", diff)
	}
	if err := v.ExportTar(t.Context(), "unknown", io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	broken := errors.New("no room")
	if err := v.ExportTar(t.Context(), id, failingWriter{broken}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestExportAndImport(t *testing.T) {
	v, _, id := goldenFirst(t)
	plain := new(storagetest.Memory)
	done, err := v.Export(t.Context(), id, plain, "copy/")
	if err != nil || done.Files != 48 || strings.Join(done.Skipped, "|") != "link|not\xffutf8\n" || done.Bytes < 3_000_000 {
		t.Fatalf("%+v, %v", done, err)
	}
	counted := &storagetest.Faulty{Bucket: plain}
	into := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	first, err := into.Import(t.Context(), counted, "copy/")
	if err != nil || first.Files != done.Files || first.Size != done.Bytes {
		t.Fatalf("%+v, %v", first, err)
	}
	reads := counted.Count(storagetest.OpGet)
	second, err := into.Import(t.Context(), counted, "copy/")
	if err != nil || counted.Count(storagetest.OpGet) != reads || second.Added != 0 {
		t.Errorf("an Import of nothing new read %d objects: %+v, %v", counted.Count(storagetest.OpGet)-reads, second, err)
	}
	for c, err := range into.Diff(t.Context(), first.ID, second.ID) {
		t.Errorf("%+v, %v", c, err)
	}
	got, err := into.FS(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	want, err := v.FS(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range readAll(t, got) {
		if was, err := fs.ReadFile(want, name); err != nil || string(was) != data {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestImportOfOddKeys(t *testing.T) {
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	for _, all := range []map[string]string{{"a": "x", "a/b": "y"}, {"a/..b": "fine"}} {
		_, err := v.Import(t.Context(), shelf(t, all), "")
		if want := len(all) == 1; (err == nil) != want || !want && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v: %v", all, err)
		}
	}
	if version, err := v.Import(t.Context(), new(storagetest.Memory), "nothing/"); err != nil || version.Files != 0 {
		t.Errorf("an empty prefix: %+v, %v", version, err)
	}
}

func TestConflicts(t *testing.T) {
	h := newHistory(t)
	first, second := h.must(0), h.must(1)
	_, err := h.sync(h.memory, 2, storage.Options{Parent: first.ID})
	var conflict *storage.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, storage.ErrConflict) || conflict.Head != second.ID || conflict.Kept != nil {
		t.Fatalf("%v", err)
	}
	kept, err := h.sync(h.memory, 3, storage.Options{Parent: first.ID, KeepConflict: true})
	if !errors.As(err, &conflict) || conflict.Kept == nil || kept == nil || kept.ID != conflict.Kept.ID || !kept.Conflict || kept.Parent != first.ID {
		t.Fatalf("%+v, %v", kept, err)
	}
	if got := h.check("conflict"); !slices.Equal(got, []string{"version 3", "version 1", "version 0"}) {
		t.Errorf("versions %q", got)
	}
	dir := workdir(t)
	newest, err := storage.NewVolume(h.memory, "acme", nil).InitVersion(t.Context(), storage.Local{}, dir)
	if err != nil || newest.ID != second.ID {
		t.Errorf("Init took %+v, %v", newest, err)
	}
	if next, err := h.sync(h.memory, 4, storage.Options{Parent: second.ID}); err != nil || next.Parent != second.ID {
		t.Errorf("%+v, %v", next, err)
	}
}

func TestOptions(t *testing.T) {
	for _, opts := range []storage.Options{
		{Compression: -1}, {Compression: 23}, {Memory: 1 << 20}, {Memory: -1}, {MaxFiles: -1}, {Note: strings.Repeat("x", 65<<10)},
		{Parent: "not an id"}, {Exclude: []string{`a\`}},
	} {
		v := storage.NewVolume(new(storagetest.Memory), "acme", &opts)
		if _, err := v.Sync(t.Context(), &pretend{}, "/work"); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%.60v: Sync: %v", opts, err)
		}
		if err := v.Delete(t.Context()); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%.60v: Delete: %v", opts, err)
		}
	}
	few := storage.NewVolume(new(storagetest.Memory), "acme", &storage.Options{MaxFiles: 10})
	if _, err := few.Sync(t.Context(), &pretend{files: goldenStates()[0]}, "/work"); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "MaxFiles") {
		t.Errorf("MaxFiles: %v", err)
	}
	for level := range 23 {
		v := storage.NewVolume(new(storagetest.Memory), "acme", &storage.Options{Compression: level})
		version, err := v.Import(t.Context(), shelf(t, files(level)), "")
		if err != nil {
			t.Fatal(err)
		}
		fsys, err := v.FS(t.Context(), version.ID)
		if err != nil || !maps.Equal(readAll(t, fsys), files(level)) {
			t.Errorf("level %d: %v", level, err)
		}
	}
}

// TestProgress checks what a callback is told of a Sync and of a Restore.
func TestProgress(t *testing.T) {
	var told []storage.Progress
	var busy atomic.Int32
	opts := &storage.Options{Progress: func(p storage.Progress) {
		if busy.Add(1) != 1 {
			t.Error("two calls at once")
		}
		told = append(told, p)
		busy.Add(-1)
	}}
	v := storage.NewVolume(new(storagetest.Memory), "acme", opts)
	version, err := v.Sync(t.Context(), &pretend{files: goldenStates()[0]}, "/work")
	if err != nil {
		t.Fatal(err)
	}
	checkProgress(t, told, []storage.Phase{storage.PhaseList, storage.PhaseRead, storage.PhaseCommit})
	told = nil
	if err := v.Restore(t.Context(), storage.Local{}, workdir(t), version.ID); err != nil {
		t.Fatal(err)
	}
	checkProgress(t, told, []storage.Phase{storage.PhaseList, storage.PhaseWrite, storage.PhaseApply})
}

func checkProgress(t *testing.T, told []storage.Progress, want []storage.Phase) {
	t.Helper()
	var phases []storage.Phase
	last := map[storage.Phase]storage.Progress{}
	for _, p := range told {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		if was := last[p.Phase]; p.Files < was.Files || p.Bytes < was.Bytes {
			t.Errorf("%+v after %+v", p, was)
		}
		last[p.Phase] = p
	}
	if !slices.Equal(phases, want) {
		t.Errorf("phases %q, want %q", phases, want)
	}
	if p := last[want[1]]; p.Files != p.TotalFiles || p.Bytes != p.TotalBytes || p.Files == 0 || p.Bytes == 0 {
		t.Errorf("the end of phase %s is %+v", want[1], p)
	}
}

// cancelling cancels a context at the nth request.
type cancelling struct {
	storage.Bucket
	n      atomic.Int32
	cancel context.CancelFunc
}

func (c *cancelling) tick() {
	if c.n.Add(-1) == 0 {
		c.cancel()
	}
}

func (c *cancelling) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.tick()
	return c.Bucket.Get(ctx, key, offset, length)
}

func (c *cancelling) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	c.tick()
	return c.Bucket.Put(ctx, key, r, opts)
}

// TestCancel cancels at each request. What a Restore was to change is as it was, and
// goleak finds no goroutine.
func TestCancel(t *testing.T) {
	v, b, id := goldenFirst(t)
	dir := workdir(t)
	for n := 1; n < 12; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		c := &cancelling{Bucket: b, cancel: cancel}
		c.n.Store(int32(n))
		_, err := storage.NewVolume(c, v.Name(), nil).Sync(ctx, &pretend{files: goldenStates()[1]}, "/work")
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Sync, request %d: %v", n, err)
		}
		write(t, dir, map[string]string{"file": "old"})
		ctx, cancel2 := context.WithCancel(t.Context())
		c = &cancelling{Bucket: b, cancel: cancel2}
		c.n.Store(int32(n))
		err = storage.NewVolume(c, v.Name(), nil).Restore(ctx, storage.Local{}, dir, id)
		if err != nil && (!errors.Is(err, context.Canceled) || content(t, dir) != "file=old;") {
			t.Errorf("Restore, request %d: %v; the directory holds %s", n, err, content(t, dir))
		}
		cancel()
		cancel2()
	}
	found, err := v.Verify(t.Context())
	if err != nil || len(found.Problems) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestRequests bounds what a working directory of 10,000 small files costs.
func TestRequests(t *testing.T) {
	dir := workdir(t)
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < 10_000; i += 4 {
				sub := filepath.Join(dir, fmt.Sprint("dir", i%500))
				if err := errors.Join(os.MkdirAll(sub, 0o755), os.WriteFile(filepath.Join(sub, fmt.Sprint("file", i)), noiseOf(i), 0o644)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	old := time.Now().Add(-time.Hour)
	b := new(storagetest.Memory)
	requests := func(work func(v *storage.Volume) error) int {
		counted := &storagetest.Faulty{Bucket: b}
		if err := work(storage.NewVolume(counted, "acme", nil)); err != nil {
			t.Fatal(err)
		}
		return counted.Count()
	}
	sync := func(v *storage.Volume) error {
		_, err := v.Sync(t.Context(), storage.Local{}, dir)
		return err
	}
	if n := requests(sync); n >= 40 {
		t.Errorf("the first sync takes %d requests, want less than 40", n)
	}
	requests(sync) // what had been written just before is read again
	if n := requests(sync); n > 6 {
		t.Errorf("a sync of nothing new takes %d requests, want 6 at most", n)
	}
	name := filepath.Join(dir, "dir7", "file7")
	if err := errors.Join(os.WriteFile(name, []byte("other"), 0o644), os.Chtimes(name, old, old)); err != nil {
		t.Fatal(err)
	}
	if n := requests(sync); n > 8 {
		t.Errorf("a sync of one file takes %d requests, want 8 at most", n)
	}
	id := ids(t, storage.NewVolume(b, "acme", nil))[0]
	n := requests(func(v *storage.Volume) error { return v.Restore(t.Context(), storage.Local{}, workdir(t), id) })
	if n > 40 {
		t.Errorf("a restore takes %d requests, want 40 at most", n)
	}
}

// noiseOf makes 1 to 16 KiB of which half compresses.
func noiseOf(i int) []byte {
	data := make([]byte, 1024*(1+i%16))
	x := uint64(i)*0x9e3779b97f4a7c15 + 1
	for at := 0; at < len(data); at += 16 {
		for k := range 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			data[at+k] = byte(x)
		}
	}
	return data
}
