package storage_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// drafts makes a volume of two versions of a directory of this machine.
func drafts(ctx context.Context, bucket storage.Bucket) (vol *storage.Volume, first, second *storage.Version, err error) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	vol = storage.NewVolume(bucket, "acme/notes", nil)
	for _, text := range []string{"draft", "final"} {
		if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte(text), 0o644); err != nil {
			return nil, nil, nil, err
		}
		version, err := vol.Sync(ctx, storage.Local{}, dir)
		if err != nil {
			return nil, nil, nil, err
		}
		first, second = second, version
	}
	return vol, first, second, nil
}

// A version is read without a sandbox, and compared with another.
func ExampleVolume_FS() {
	ctx := context.Background()
	vol, first, second, err := drafts(ctx, new(storagetest.Memory))
	if err != nil {
		fmt.Println(err)
		return
	}
	fsys, err := vol.FS(ctx, first.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := fs.ReadFile(fsys, "notes.txt")
	fmt.Println(string(text), err)
	for change, err := range vol.Diff(ctx, first.ID, second.ID) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if change.Kind == storage.Modified {
			fmt.Println(change.Kind, change.Path)
		}
	}
	// Output:
	// draft <nil>
	// modified notes.txt
}

// The newest version is kept, others for a while, and what is left is checked.
func ExampleVolume_Prune() {
	ctx := context.Background()
	vol, _, _, err := drafts(ctx, new(storagetest.Memory))
	if err != nil {
		fmt.Println(err)
		return
	}
	pruned, err := vol.Prune(ctx, storage.Keep{Last: 1, Daily: 7, Weekly: 4, Grace: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(pruned.Kept, "kept,", len(pruned.Forgotten), "forgotten")
	found, err := vol.Verify(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(found.Versions, "version,", len(found.Problems), "problems")
	// Output:
	// 1 kept, 1 forgotten
	// 1 version, 0 problems
}

// Versions leave as plain objects, and come from them.
func ExampleVolume_Export() {
	ctx := context.Background()
	bucket := new(storagetest.Memory)
	vol, _, second, err := drafts(ctx, bucket)
	if err != nil {
		fmt.Println(err)
		return
	}
	done, err := vol.Export(ctx, second.ID, bucket, "plain/")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(done.Files, "object")
	imported, err := storage.NewVolume(bucket, "acme/imported", nil).Import(ctx, bucket, "plain/")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(imported.Files, "file of", imported.Size, "bytes")
	// Output:
	// 1 object
	// 1 file of 5 bytes
}
