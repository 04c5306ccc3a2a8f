package dirbucket_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
)

// BenchmarkPut stores 16 MiB of which the digest is known, and which is compared,
// in turns with the least that lasts as long: the digest, one write, fsync, a
// rename, and fsync of the directory.
func BenchmarkPut(b *testing.B) {
	dir := b.TempDir()
	bucket, err := dirbucket.Open(filepath.Join(dir, "bucket"), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = bucket.Close() }()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	sum := sha256.Sum256(data)
	var pair figure.Pair
	for i := 0; b.Loop(); i++ {
		pair.Measure(func() {
			opts := &storage.PutOptions{IfAbsent: true, SHA256: sum[:], Size: int64(len(data))}
			if err := bucket.Put(b.Context(), fmt.Sprint("packs/", i), bytes.NewReader(data), opts); err != nil {
				b.Fatal(err)
			}
		}, func() {
			if err := barePut(filepath.Join(dir, fmt.Sprint("bare-", i)), data, sum); err != nil {
				b.Fatal(err)
			}
		})
		// What is stored must not fill the disk.
		if err := errors.Join(bucket.Delete(b.Context(), fmt.Sprint("packs/", i)), os.Remove(filepath.Join(dir, fmt.Sprint("bare-", i)))); err != nil {
			b.Fatal(err)
		}
	}
	pair.Print(os.Stdout, "dir_put_16MiB", "write_fsync_rename")
}

func barePut(name string, data []byte, sum [32]byte) error {
	if sha256.Sum256(data) != sum {
		return errors.New("another digest")
	}
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(name+".new", name)); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
