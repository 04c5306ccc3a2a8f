package storage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// A *sandbox.Sandbox is a Runner; this example uses plain processes in its place,
// and a bucket in memory.
func Example() {
	parent, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(parent) }()
	if err := story(context.Background(), host{}, filepath.Join(parent, "workspace")); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 file, 6 bytes
	// draft
}

func story(ctx context.Context, sb storage.Runner, dir string) error {
	vol := storage.NewVolume(new(storagetest.Memory), "acme/workspace-7", nil)
	if err := vol.Init(ctx, sb, dir); err != nil { // nothing yet
		return err
	}
	if err := sb.Run(ctx, nil, nil, "sh", "-c", "mkdir $1 && echo draft >$1/notes", "sh", dir); err != nil {
		return err
	}
	draft, err := vol.Sync(ctx, sb, dir)
	if err != nil {
		return err
	}
	fmt.Printf("%d file, %d bytes\n", draft.Files, draft.Size)
	if err := sb.Run(ctx, nil, nil, "sh", "-c", "echo final >$1/notes; touch $1/extra", "sh", dir); err != nil {
		return err
	}
	if err := vol.Restore(ctx, sb, dir, draft.ID); err != nil {
		return err
	}
	return sb.Run(ctx, nil, os.Stdout, "sh", "-c", "cd $1; cat *", "sh", dir)
}

func ExampleVolume_Versions() {
	vol := storage.NewVolume(new(storagetest.Memory), "acme/workspace-7", nil)
	for version, err := range vol.Versions(context.Background()) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(version.ID, version.Time, version.Files)
	}
	// Output:
}

func ExampleCheckName() {
	fmt.Println(storage.CheckName("acme/workspace-7"))
	fmt.Println(storage.CheckName("acme/../other"))
	// Output:
	// <nil>
	// storage: volume name "acme/../other" has a segment that does not start with a letter or a digit: invalid argument
}
