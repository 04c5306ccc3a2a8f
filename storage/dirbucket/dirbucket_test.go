package dirbucket_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string, opts *dirbucket.Options) *dirbucket.Bucket {
	t.Helper()
	b, err := dirbucket.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestConformance(t *testing.T) {
	storagetest.Exercise(t, func(t *testing.T) storage.Bucket {
		return open(t, filepath.Join(t.TempDir(), "new", "bucket"), &dirbucket.Options{NoSync: true})
	})
}

func TestSyncedPut(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	for _, opts := range []*storage.PutOptions{nil, {IfAbsent: true}} {
		if err := b.Put(t.Context(), "acme/deep/key", strings.NewReader("text"), opts); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), "acme/deep/key"); err != nil {
			t.Fatal(err)
		}
	}
}

// A file and a directory of one name can both be, unlike in a plain mapping.
func TestKeyBelowKey(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	for _, key := range []string{"a/b/c", "a", "a/b", "a+/b"} {
		if err := b.Put(t.Context(), key, strings.NewReader(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for object, err := range b.List(t.Context(), "a") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, object.Key)
	}
	if strings.Join(got, " ") != "a a+/b a/b a/b/c" {
		t.Fatalf("List: %q", got)
	}
}

func TestObjectsOutliveTheBucket(t *testing.T) {
	dir := t.TempDir()
	first, err := dirbucket.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Put(t.Context(), "key", strings.NewReader("text"), nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := open(t, dir, nil).Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || string(data) != "text" {
		t.Fatalf("%q, %v", data, err)
	}
}

func TestPlantedFiles(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := open(t, dir, nil)
	for name, target := range map[string]string{"link": filepath.Join(outside, "secret"), "dir+": outside} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"link", "dir/secret", "fifo"} {
		if r, err := b.Get(t.Context(), key, 0, -1); err == nil {
			_ = r.Close()
			t.Errorf("Get %q opened something", key)
		}
	}
	if err := b.Put(t.Context(), "dir/new", strings.NewReader("x"), nil); err == nil {
		t.Error("Put through a symbolic link that leads out succeeded")
	}
	for object, err := range b.List(t.Context(), "") {
		t.Errorf("List gives %+v, %v", object, err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside now holds %v", entries)
	}
}

func TestStaleScratchIsRemoved(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".put"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"stale": 25 * time.Hour, "fresh": time.Hour} {
		file := filepath.Join(dir, ".put", name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir, nil)
	entries, err := os.ReadDir(filepath.Join(dir, ".put"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "fresh" {
		t.Fatalf("scratch holds %v, %v", entries, err)
	}
}

func TestNothingStaysInScratch(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_ = b.Put(ctx, "a", strings.NewReader("x"), nil)
	_ = b.Put(ctx, "a", strings.NewReader("x"), &storage.PutOptions{IfAbsent: true})
	_ = b.Put(ctx, "b", strings.NewReader("x"), &storage.PutOptions{IfAbsent: true})
	cancel()
	_ = b.Put(ctx, "c", strings.NewReader("x"), nil)
	if entries, err := os.ReadDir(filepath.Join(dir, ".put")); err != nil || len(entries) != 0 {
		t.Fatalf("scratch holds %v, %v", entries, err)
	}
}

func TestOpenOfAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dirbucket.Open(file, nil); err == nil {
		t.Fatal("Open of a regular file succeeded")
	}
}

func TestErrorsNameTheKey(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	_, err := b.Stat(t.Context(), "Acme/x")
	var path *fs.PathError
	if !errors.As(err, &path) || path.Path != "Acme/x" {
		t.Fatalf("%v", err)
	}
}
