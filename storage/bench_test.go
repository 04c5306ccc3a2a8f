package storage_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
)

// thousand makes 1,000 files of 1 to 16 KiB in 100 directories, half of whose
// bytes compress.
func thousand(b *testing.B, dir string) {
	b.Helper()
	for i := range 1000 {
		sub := filepath.Join(dir, fmt.Sprint("dir", i%100))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		data := make([]byte, 1024*(1+i%16))
		for at := 0; at < len(data); at += 64 {
			sum := sha256.Sum256(fmt.Append(nil, i, at))
			copy(data[at:], sum[:])
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("file", i)), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

// floor runs what does the least for the same bytes: tar and the zstd program.
func floor(b *testing.B, script string, args ...string) {
	b.Helper()
	if out, err := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
}

func requireZstd(b *testing.B) {
	b.Helper()
	requireGNUTar(b)
	if _, err := exec.LookPath("zstd"); err != nil {
		b.Skip("zstd is absent; install it (Debian: apt-get install zstd)")
	}
}

// BenchmarkVolume measures Sync and Restore of 1,000 files on a bucket in a
// directory, in turns with tar and zstd to and from one file on the same disk.
func BenchmarkVolume(b *testing.B) {
	requireZstd(b)
	bucket, err := dirbucket.Open(b.TempDir(), &dirbucket.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = bucket.Close() }()
	v, dir := storage.NewVolume(bucket, "bench", nil), workdir(b)
	thousand(b, dir)
	file, copied := filepath.Join(b.TempDir(), "floor.tar.zst"), workdir(b)
	id := mustSync(b, v, dir).ID
	floor(b, `tar -c --format=posix -C "$1" . | zstd -q -1 -f -o "$2"; mkdir "$3"; zstd -q -d -c "$2" | tar -x -C "$3"`, dir, file, copied)
	var sync, restore figure.Pair
	for b.Loop() {
		sync.Measure(func() {
			if _, err := v.Sync(b.Context(), host{}, dir); err != nil {
				b.Fatal(err)
			}
		}, func() {
			floor(b, `tar -c --format=posix -C "$1" . | zstd -q -1 -f -o "$2"`, dir, file)
		})
		restore.Measure(func() {
			if err := v.Restore(b.Context(), host{}, dir, id); err != nil {
				b.Fatal(err)
			}
		}, func() {
			floor(b, `rm -rf "$2" && mkdir "$2" && zstd -q -d -c "$1" | tar -x -C "$2"`, file, copied)
		})
	}
	b.Cleanup(func() {
		sync.Print(os.Stdout, "sync_1000_files", "tar|zstd")
		restore.Print(os.Stdout, "restore_1000_files", "rm+zstd|tar")
	})
}
