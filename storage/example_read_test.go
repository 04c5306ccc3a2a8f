package storage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// twoDrafts makes a volume with two versions. Its files were objects of a bucket; Sync
// takes those of a sandbox.
func twoDrafts(ctx context.Context) (v *storage.Volume, first, second string, err error) {
	v = storage.NewVolume(new(storagetest.Memory), "acme/workspace-7", nil)
	plain := new(storagetest.Memory)
	for _, files := range []map[string]string{{"notes": "draft\n", "src/main.go": "package main\n"}, {"notes": "final text\n"}} {
		for key, data := range files {
			if err := plain.Put(ctx, key, strings.NewReader(data), nil); err != nil {
				return nil, "", "", err
			}
		}
		version, err := v.Import(ctx, plain, "")
		if err != nil {
			return nil, "", "", err
		}
		first, second = second, version.ID
	}
	return v, first, second, nil
}

func ExampleVolume_Diff() {
	ctx := context.Background()
	vol, first, second, err := twoDrafts(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for change, err := range vol.Diff(ctx, first, second) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s: %d bytes, then %d\n", change.Kind, change.Path, change.Old.Size, change.New.Size)
	}
	// Output:
	// modified notes: 6 bytes, then 11
}

func ExampleVolume_ExportTar() {
	ctx := context.Background()
	vol, _, second, err := twoDrafts(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := os.CreateTemp("", "example-*.tar")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.Remove(file.Name()) }()
	err = vol.ExportTar(ctx, second, file)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	fmt.Println(err) // tar -tf FILE lists ./, ./notes, ./src/ and ./src/main.go
	// Output:
	// <nil>
}

func ExampleVolume_Import() {
	ctx := context.Background()
	plain := new(storagetest.Memory)
	for _, key := range []string{"site/index.html", "site/css/main.css"} {
		if err := plain.Put(ctx, key, strings.NewReader("…"), nil); err != nil {
			fmt.Println(err)
			return
		}
	}
	vol := storage.NewVolume(new(storagetest.Memory), "acme/site", &storage.Options{Note: "as it was in the old bucket"})
	version, err := vol.Import(ctx, plain, "site/")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(version.Files, "files,", version.Dirs, "directory:", version.Note)
	// Output:
	// 2 files, 1 directory: as it was in the old bucket
}

func ExampleVolume_Verify() {
	ctx := context.Background()
	vol, _, _, err := twoDrafts(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	found, err := vol.Verify(ctx)
	if err != nil {
		fmt.Println(err) // something could not be looked at
		return
	}
	for _, p := range found.Problems {
		fmt.Println(p.Object, p.Versions, p.Err)
	}
	fmt.Println(found.Versions, "versions,", len(found.Problems), "problems")
	// Output:
	// 2 versions, 0 problems
}

func ExampleVolume_Delete() {
	ctx := context.Background()
	vol, _, _, err := twoDrafts(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := vol.Delete(ctx); err != nil {
		fmt.Println(err)
		return
	}
	for version := range vol.Versions(ctx) {
		fmt.Println(version.ID)
	}
	// Output:
}

// Local stands for this machine where there is no sandbox.
func ExampleLocal() {
	ctx := context.Background()
	parent, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(parent) }()
	dir := filepath.Join(parent, "project")
	vol, first, _, err := twoDrafts(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := vol.Restore(ctx, storage.Local{}, dir, first); err != nil {
		fmt.Println(err)
		return
	}
	if err := os.Remove(filepath.Join(dir, "notes")); err != nil {
		fmt.Println(err)
		return
	}
	version, err := vol.Sync(ctx, storage.Local{}, dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(version.Files, "file")
	// Output:
	// 1 file
}

// Progress is told of each phase.
func ExampleOptions_progress() {
	ctx := context.Background()
	last := storage.Phase("")
	vol := storage.NewVolume(new(storagetest.Memory), "acme/workspace-7", &storage.Options{
		Author: "somebody@example.com",
		Progress: func(p storage.Progress) {
			if p.Phase != last {
				last = p.Phase
				fmt.Printf("%s: %d files, %d bytes\n", p.Phase, p.TotalFiles, p.TotalBytes)
			}
		},
	})
	plain := new(storagetest.Memory)
	if err := plain.Put(ctx, "notes", strings.NewReader("draft\n"), nil); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := vol.Import(ctx, plain, ""); err != nil {
		fmt.Println(err)
	}
	// Output:
	// list: 0 files, 0 bytes
	// read: 1 files, 6 bytes
	// commit: 0 files, 0 bytes
}
