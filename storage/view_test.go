package storage_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

// oddDir makes a directory with one of most things.
func oddDir(t *testing.T) string {
	t.Helper()
	dir := workdir(t)
	write(t, dir, map[string]string{"a": "1", "b.txt": strings.Repeat("text ", 1000), ".hidden": "h"})
	for _, sub := range []string{"sub/deep", "sub-sibling", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range map[string]string{"sub/deep/f": "deep", "sub-sibling/g": "g", "sub/z": "z"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	makeNoise(t, filepath.Join(dir, "large"), 5<<20)
	for link, to := range map[string]string{"link": "sub/z", "sub/up": "../a", "linkdir": "sub", "out": "../../etc", "abs": "/etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "sub/hard")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFS(t *testing.T) {
	dir := oddDir(t)
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	version := mustLocal(t, v, dir)
	fsys, err := v.FS(t.Context(), version.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "out")); err != nil { // links that lead out break fstest, too
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "abs")); err != nil {
		t.Fatal(err)
	}
	inside, err := v.FS(t.Context(), mustLocal(t, v, dir).ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(inside, "a", "sub/deep/f", "large", "link", "empty", "sub/hard", "linkdir"); err != nil {
		t.Error(err)
	}
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if got, err := fs.ReadFile(fsys, rel); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", rel, len(got), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if got, err := fs.ReadFile(fsys, "linkdir/up"); err != nil || string(got) != "1" {
		t.Errorf("through two links: %q, %v", got, err)
	}
	for _, name := range []string{"out", "abs", "nothing", "a/b", "out/passwd"} {
		if _, err := fs.ReadFile(fsys, name); err == nil || !strings.Contains(err.Error(), "not exist") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustLocal(t *testing.T, v *storage.Volume, dir string) *storage.Version {
	t.Helper()
	return mustSyncIn(t, v, storage.Local{}, dir)
}

func TestDiff(t *testing.T) {
	dir := oddDir(t)
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	first := mustLocal(t, v, dir)
	for name, data := range map[string]string{"new": "n", "sub/z": "changed"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "b.txt"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "sub-sibling")); err != nil {
		t.Fatal(err)
	}
	second := mustLocal(t, v, dir)
	var got []string
	for c, err := range v.Diff(t.Context(), first.ID, second.ID) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s", c.Kind, c.Path))
	}
	want := []string{"touched ", "touched b.txt", "added new", "modified sub/z", "removed sub-sibling", "removed sub-sibling/g"}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	n := 0
	for c, err := range v.Diff(t.Context(), "", first.ID) {
		if n++; err != nil || c.Kind != storage.Added {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	if int64(n) != first.Files+first.Dirs+first.Links+1 {
		t.Errorf("%d changes from nothing to %+v", n, first)
	}
}

func TestExportAndImport(t *testing.T) {
	requireGNUTar(t)
	dir := oddDir(t)
	memory := new(storagetest.Memory)
	v := storage.NewVolume(memory, "acme", nil)
	version := mustLocal(t, v, dir)
	var archive bytes.Buffer
	if err := v.ExportTar(t.Context(), version.ID, &archive); err != nil {
		t.Fatal(err)
	}
	out := workdir(t)
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-x", "-C", out, "-f", "-")
	cmd.Stdin = &archive
	if words, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, words)
	}
	again := storage.NewVolume(memory, "unpacked", nil)
	if got := mustLocal(t, again, out); got.Files != version.Files || got.Links != version.Links || got.Size != version.Size {
		t.Errorf("unpacked: %+v, want what is in %+v", got, version)
	}
	plain := new(storagetest.Memory)
	done, err := v.Export(t.Context(), version.ID, plain, "copy/")
	slices.Sort(done.Skipped)
	if err != nil || done.Files != version.Files || !slices.Equal(done.Skipped, []string{"abs", "link", "linkdir", "out", "sub/up"}) {
		t.Fatalf("Export: %+v, %v", done, err)
	}
	imported := storage.NewVolume(new(storagetest.Memory), "imported", nil)
	first, err := imported.Import(t.Context(), plain, "copy/")
	if err != nil || first.Files != version.Files {
		t.Fatalf("Import: %+v, %v", first, err)
	}
	counted := &storagetest.Faulty{Bucket: plain}
	second, err := imported.Import(t.Context(), counted, "copy/")
	if err != nil || second.Added != 0 || counted.Count(storagetest.OpGet) != 0 {
		t.Errorf("a second Import: %+v, %v, with %d objects read", second, err, counted.Count(storagetest.OpGet))
	}
	back, err := imported.FS(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fs.ReadFile(back, "large"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("large: %d bytes, %v", len(got), err)
	}
	if err := plain.Put(t.Context(), "copy/a/below", strings.NewReader("x"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := imported.Import(t.Context(), plain, "copy/"); err == nil || !strings.Contains(err.Error(), `"copy/a"`) {
		t.Errorf("an object above others: %v", err)
	}
}
