package dirbucket_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/vivarium-go/vivarium/storage/dirbucket"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "bucket-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bucket, err := dirbucket.Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = bucket.Close() }()
	ctx := context.Background()
	if err := bucket.Put(ctx, "notes/one", strings.NewReader("hello"), nil); err != nil {
		fmt.Println(err)
		return
	}
	for object, err := range bucket.List(ctx, "notes/") {
		fmt.Println(object.Key, object.Size, err)
	}
	// Output: notes/one 5 <nil>
}
