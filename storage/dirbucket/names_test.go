package dirbucket_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
)

// FuzzKeys holds that a key is refused, or becomes one object that is listed under
// its own name, inside the directory.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"a", "a/b", "..", "../x", "a//b", "%2e%2e/x", "A", "é", "a+", ".put/x", "\x00", "a\\b", strings.Repeat("é", 40)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		parent := t.TempDir()
		b, err := dirbucket.Open(filepath.Join(parent, "bucket"), &dirbucket.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		putErr := b.Put(t.Context(), key, strings.NewReader("x"), nil)
		if checkErr := storage.CheckKey(key); (checkErr == nil) != (putErr == nil) || putErr != nil && !errors.Is(putErr, fs.ErrInvalid) {
			t.Fatalf("CheckKey: %v; Put: %v", checkErr, putErr)
		}
		var listed []string
		for object, err := range b.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, object.Key)
		}
		if putErr == nil && (len(listed) != 1 || listed[0] != key) || putErr != nil && len(listed) != 0 {
			t.Fatalf("Put %q: %v; List: %q", key, putErr, listed)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Fatalf("beside the bucket: %v, %v", entries, err)
		}
	})
}
