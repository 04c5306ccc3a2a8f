package storage_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

var update = flag.Bool("update", false, "make testdata/format2 anew; only for a new format number")

// The test vectors of docs/storage-format.md: every object of a volume, and what its
// versions are.
const (
	vectors = "testdata/format2"
	golden  = "demo/golden"
)

// vector is what a version is.
type vector struct {
	ID, Parent, Author, Note string
	Conflict                 bool `json:",omitempty"`
	Files, Dirs, Links, Size int64
	Entries                  []vectorEntry
}

// vectorEntry is an entry. Names have what is not UTF-8 as Go writes it in strings.
type vectorEntry struct {
	Path, Mode, Time string
	Size             int64  `json:",omitempty"`
	Link             string `json:",omitempty"`
	UID, GID         uint32
	SHA256           string `json:",omitempty"`
}

// goldenStates are what a directory held at four moments.
func goldenStates() [][]pretended {
	noise := rand.NewChaCha8([32]byte{2})
	random := make([]byte, 2000)
	_, _ = noise.Read(random)
	pattern := strings.Repeat("a line that compresses well\n", 100_000) // 2.8 MB, of several chunks
	first := []pretended{
		{path: "", kind: 'd', mode: 0o750},
		{path: "bin", kind: 'd', mode: 0o755},
		{path: "bin/run", data: "#!/bin/sh\n", mode: 0o755, uid: 1000, gid: 1000, mtime: "1700000000.123456789"},
		{path: "copy of noise", data: string(random), mode: 0o600, mtime: "-1.5"},
		{path: "empty", mode: 0o644},
		{path: "empty dir", kind: 'd', mode: 0o1777},
		{path: "hard", data: "two names\n", mode: 0o644, links: 2, ino: 77},
		{path: "hard2", data: "two names\n", mode: 0o644, links: 2, ino: 77},
		{path: "large", data: pattern, mode: 0o644},
		{path: "link", kind: 'l', mode: 0o777, link: "bin/run"},
		{path: "noise", data: string(random), mode: 0o400},
		{path: "not\xffutf8\n", data: "bytes\n", mode: 0o644},
		{path: "sparse", data: "the end", hole: 1 << 20, mode: 0o644},
	}
	for i := range 40 {
		first = append(first, pretended{path: fmt.Sprintf("unchanged%02d", i), data: fmt.Sprint("file ", i), mode: 0o644})
	}
	second := append([]pretended{}, first...)
	second[4] = pretended{path: "empty", data: "not any more\n", mode: 0o644, mtime: "1000000001"}
	second[9] = pretended{path: "link", kind: 'l', mode: 0o777, link: "nowhere"}
	third := append(second[:1:1], second[3:]...) // without bin
	fourth := append(third[:1:1], pretended{path: "bin", data: "now a file\n", mode: 0o644})
	return [][]pretended{first, second, third, append(fourth, third[1:]...)}
}

// makeGolden makes the volume. Times and ids are those of the bubble it runs in.
func makeGolden(t *testing.T, bucket storage.Bucket) {
	states := goldenStates()
	sync := func(state int, opts storage.Options) {
		opts.Author = "somebody@example.com"
		v := storage.NewVolume(bucket, golden, &opts)
		if _, err := v.Sync(t.Context(), &pretend{files: states[state]}, "/work"); err != nil && !opts.KeepConflict {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Minute)
	}
	sync(0, storage.Options{Note: "the first"})
	first := ids(t, storage.NewVolume(bucket, golden, nil))[0]
	sync(1, storage.Options{Note: "to be forgotten"})
	sync(1, storage.Options{Note: "the second"})
	keep := storage.Keep{Also: func(v *storage.Version) bool { return v.Note != "to be forgotten" }}
	if _, err := storage.NewVolume(bucket, golden, nil).Prune(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	sync(2, storage.Options{Note: "a conflict", Parent: first, KeepConflict: true})
	sync(3, storage.Options{Note: "the newest"})
}

func TestGoldenVolume(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	bucket := new(storagetest.Memory)
	err := filepath.WalkDir(filepath.Join(vectors, "bucket"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		key, err := filepath.Rel(filepath.Join(vectors, "bucket"), name)
		if err != nil {
			return err
		}
		return bucket.Put(t.Context(), filepath.ToSlash(key), bytes.NewReader(data), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(vectors, "versions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want []vector
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, vectorsOf(t, bucket)); diff != "" {
		t.Errorf("the volume is read as something else (-want +got):\n%s", diff)
	}
	v := storage.NewVolume(bucket, golden, nil)
	found, err := v.Verify(t.Context())
	if err != nil || len(found.Problems) > 0 || found.Versions != len(want) {
		t.Errorf("Verify: %+v, %v", found, err)
	}
	dir := workdir(t)
	for _, version := range want {
		if err := v.Restore(t.Context(), storage.Local{}, dir, version.ID); err != nil {
			t.Fatal(err)
		}
		checkVector(t, dir, version)
	}
	if _, err := v.Sync(t.Context(), storage.Local{}, dir); err != nil {
		t.Errorf("a volume of this format cannot be written to: %v", err)
	}
}

// vectorsOf describes the versions of a volume, newest first.
func vectorsOf(t *testing.T, bucket storage.Bucket) (all []vector) {
	t.Helper()
	v := storage.NewVolume(bucket, golden, nil)
	for version, err := range v.Versions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out := vector{
			ID: version.ID, Parent: version.Parent, Author: version.Author, Note: version.Note, Conflict: version.Conflict,
			Files: version.Files, Dirs: version.Dirs, Links: version.Links, Size: version.Size,
		}
		var exported bytes.Buffer
		if err := v.ExportTar(t.Context(), version.ID, &exported); err != nil {
			t.Fatal(err)
		}
		sums := tarSums(t, &exported)
		for change, err := range v.Diff(t.Context(), "", version.ID) {
			if err != nil {
				t.Fatal(err)
			}
			e := change.New
			entry := vectorEntry{
				Path: quoted(e.Path), Mode: e.Mode.String(), Time: e.ModTime.Format(time.RFC3339Nano),
				Size: e.Size, Link: quoted(e.Link), UID: e.UID, GID: e.GID,
			}
			if e.Mode.IsRegular() {
				name := e.Path
				if e.Link != "" {
					name = e.Link
				}
				entry.SHA256 = sums[name]
			}
			out.Entries = append(out.Entries, entry)
		}
		all = append(all, out)
	}
	return all
}

func quoted(s string) string {
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

// checkVector compares a directory with a version. Owners are left out.
func checkVector(t *testing.T, dir string, want vector) {
	t.Helper()
	for _, e := range want.Entries {
		name, err := strconv.Unquote(`"` + e.Path + `"`)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().String(); got != e.Mode {
			t.Errorf("%s: mode %s, want %s", e.Path, got, e.Mode)
		}
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(data)
			if hex.EncodeToString(sum[:]) != e.SHA256 || info.ModTime().UTC().Format(time.RFC3339Nano) != e.Time {
				t.Errorf("%s has other contents, or its time is %v", e.Path, info.ModTime().UTC())
			}
		}
	}
}

func writeVectors(t *testing.T) {
	warm(t)
	bucket := new(storagetest.Memory)
	cryptotest.SetGlobalRandom(t, 2)
	synctest.Test(t, func(t *testing.T) { makeGolden(t, bucket) })
	if err := os.RemoveAll(vectors); err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOf(t, bucket, "") {
		r, err := bucket.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(vectors, "bucket", filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.MarshalIndent(vectorsOf(t, bucket), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vectors, "versions.json"), append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenVolumeIsStillWritten makes the volume anew, for what the vectors say of
// it.
func TestGoldenVolumeIsStillWritten(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(vectors, "versions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want []vector
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	warm(t)
	bucket := new(storagetest.Memory)
	synctest.Test(t, func(t *testing.T) { makeGolden(t, bucket) })
	got := vectorsOf(t, bucket)
	for _, all := range [][]vector{want, got} { // ids are random
		for i := range all {
			all[i].ID, all[i].Parent = all[i].ID[:len(all[i].ID)-8], strings.Split(all[i].Parent+"-", "-")[0]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the volume has become another (-want +got):\n%s", diff)
	}
}
