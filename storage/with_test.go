package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// A program that gets its volumes from elsewhere says what differs from call to call.
func ExampleVolume_With() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	vol := storage.NewVolume(new(storagetest.Memory), "acme/workspace-7", nil)

	version, err := vol.With(func(o *storage.Options) {
		o.Author, o.Note = "Ann", "before the move"
	}).Sync(context.Background(), storage.Local{}, dir)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(version.Author, "-", version.Note)
	// Output: Ann - before the move
}

func TestWithChangesACopy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "w")
	write(t, dir, map[string]string{"a.txt": "a", "b.log": "b"})
	vol := storage.NewVolume(new(storagetest.Memory), "w", &storage.Options{Exclude: []string{"*.log"}})
	other := vol.With(func(o *storage.Options) { o.Note, o.Exclude = "all", append([]string{}, o.Exclude[:0]...) })
	for _, tt := range []struct {
		vol   *storage.Volume
		note  string
		files int64
	}{{other, "all", 2}, {vol, "", 1}} {
		v, err := tt.vol.Sync(t.Context(), storage.Local{}, dir)
		if err != nil || v.Note != tt.note || v.Files != tt.files {
			t.Errorf("%+v, %v; want the note %q and %d files", v, err, tt.note, tt.files)
		}
	}
	if _, err := vol.With(func(o *storage.Options) { o.Compression = 99 }).Sync(t.Context(), storage.Local{}, dir); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("an option out of its bounds: %v", err)
	}
}

func TestIsVersionID(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "w")
	write(t, dir, map[string]string{"a.txt": "a"})
	v := mustSync(t, storage.NewVolume(new(storagetest.Memory), "w", nil), dir)
	if !storage.IsVersionID(v.ID) {
		t.Errorf("%s is none", v.ID)
	}
	for _, id := range []string{"", "../x", v.ID + "x", "20060102-150405.000000000-1-AAAAAAAA", "20069999-150405.000000000-1-aaaaaaaa"} {
		if storage.IsVersionID(id) {
			t.Errorf("%q is one", id)
		}
	}
}
