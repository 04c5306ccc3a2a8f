package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		fmt.Fprintf(&b, "%s=%s;", name, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func mustSync(t testing.TB, v *storage.Volume, dir string) *storage.Version {
	t.Helper()
	tick(t)
	version, err := v.Sync(t.Context(), host{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

func ids(t testing.TB, v *storage.Volume) (all []string) {
	t.Helper()
	for version, err := range v.Versions(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, version.ID)
	}
	return all
}

// TestSyncIsWholeOrAbsent breaks a Sync at every call it makes of the bucket, in
// every way. Whatever is listed after can be restored, the older version among it.
func TestSyncIsWholeOrAbsent(t *testing.T) {
	requireGNUTar(t)
	faults := map[string]storagetest.Fault{"fail": storagetest.Fail, "lose": storagetest.LoseAnswer, "cut": storagetest.Cut}
	for name, fault := range faults {
		for n := 1; ; n++ {
			memory, dir := new(storagetest.Memory), workdir(t)
			clean := storage.NewVolume(memory, "acme", nil)
			write(t, dir, map[string]string{"file": "old"})
			old := mustSync(t, clean, dir)
			write(t, dir, map[string]string{"file": "new", "more": "new"})
			faulty := &storagetest.Faulty{Bucket: memory, CutAfter: 20, Plan: storagetest.Nth(n, fault)}
			version, err := storage.NewVolume(faulty, "acme", nil).Sync(t.Context(), host{}, dir)
			all := ids(t, clean)
			what := fmt.Sprintf("%s at call %d: %v, %d versions", name, n, err, len(all))
			switch {
			case err == nil && (len(all) != 2 || all[0] != version.ID):
				t.Fatal(what)
			case err != nil && !errors.Is(err, storage.ErrUnknownOutcome) && len(all) != 1:
				t.Fatal(what)
			case err != nil && !errors.Is(err, storagetest.ErrInjected):
				t.Fatal(what)
			}
			for i, id := range all {
				if err := clean.Restore(t.Context(), host{}, dir, id); err != nil {
					t.Fatalf("%s; then restore: %v", what, err)
				}
				want := "file=new;more=new;"
				if i == len(all)-1 {
					want = "file=old;"
				}
				if got := content(t, dir); got != want {
					t.Fatalf("%s; then restored %q, want %q", what, got, want)
				}
			}
			if all[len(all)-1] != old.ID {
				t.Fatalf("%s: the old version is gone", what)
			}
			if len(faulty.Calls()) < n {
				break // the fault came too late to happen
			}
		}
	}
}

func TestLostAnswerOfTheRecordIsFound(t *testing.T) {
	requireGNUTar(t)
	dir := workdir(t)
	write(t, dir, map[string]string{"file": "x"})
	faulty := &storagetest.Faulty{Bucket: new(storagetest.Memory), Plan: func(c storagetest.Call) storagetest.Fault {
		if c.Op == storagetest.OpPut && strings.Contains(c.Key, "/_versions/") {
			return storagetest.LoseAnswer
		}
		return storagetest.None
	}}
	mustSync(t, storage.NewVolume(faulty, "acme", nil), dir)
}

func TestFailedSyncLeavesNoVersion(t *testing.T) {
	requireGNUTar(t)
	dir := workdir(t)
	write(t, dir, map[string]string{"file": "x"})
	memory := new(storagetest.Memory)
	for name, before := range map[string]string{
		"tar fails":       `[ "$4" = plain ] || [ "$5" = plain ] || [ "$6" = plain ] || exec "$@"; PATH=$(mktemp -d):$PATH; trap 'rm -r "${PATH%%:*}"' EXIT; printf '#!/bin/sh\ncase $1 in --version) echo GNU tar;; *) echo no >&2; exit 2;; esac' >"${PATH%%:*}/tar"; chmod +x "${PATH%%:*}/tar"; "$@"; exit`,
		"command fails":   `exit 7`,
		"output is noise": `head -c 5000 /dev/urandom; exit 0`,
		"output is cut":   `tar -c /etc/hostname 2>/dev/null | head -c 700; exit 0`,
	} {
		if v, err := storage.NewVolume(memory, "acme", nil).Sync(t.Context(), host{before: before}, dir); err == nil {
			t.Errorf("%s: Sync made %+v", name, v)
		}
		for object := range memory.List(t.Context(), "acme/_versions/") {
			t.Errorf("%s: %s was left behind", name, object.Key)
		}
	}
}

// A file that changes each time it is read is named, and what was read of it last
// is kept; one that holds still at the second reading is not.
func TestFilesThatChangeAreNamed(t *testing.T) {
	requireGNUTar(t)
	for name, test := range map[string]struct {
		after string // runs after each tar
		want  string
	}{
		"always": {`echo more >>"$DIR/log"`, "log"},
		"once":   {`[ -e "$DIR/../once" ] || echo more >>"$DIR/log"; : >"$DIR/../once"`, ""},
		"gone":   {`rm -f "$DIR/log"`, ""},
		"others": {`n=$(ls "$DIR" | wc -l); echo x >"$DIR/new$n"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, bin := workdir(t), t.TempDir()
			write(t, dir, map[string]string{"log": "x", "still": "y"})
			script := fmt.Sprintf("#!/bin/sh\nPATH=${PATH#*:}\nDIR=%s\ntar \"$@\"\ncase $1 in -c) %s; exit 1;; esac\n", dir, test.after)
			if err := os.WriteFile(filepath.Join(bin, "tar"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
			version, err := v.Sync(t.Context(), host{before: "PATH=" + bin + ":$PATH"}, dir)
			if err != nil || strings.Join(version.Changed, "|") != test.want {
				t.Fatalf("%+v, %v", version, err)
			}
			if err := v.Restore(t.Context(), host{}, dir, version.ID); err != nil {
				t.Fatal(err)
			}
			if got := content(t, dir); !strings.Contains(got, "still=y;") {
				t.Errorf("the directory holds %q", got)
			}
		})
	}
}

// What is there and cannot be read fails a Sync, with tar's own words.
func TestUnreadableFile(t *testing.T) {
	requireGNUTar(t)
	dir := workdir(t)
	write(t, dir, map[string]string{"secret": "x", "other": "y"})
	bin := t.TempDir()
	script := "#!/bin/sh\nPATH=${PATH#*:}\n[ \"$1\" = -c ] || exec tar \"$@\"\n" +
		"tr '\\0' '\\n' | grep -v secret | tr '\\n' '\\0' | tar \"$@\"\n" +
		"echo 'tar: ./secret: Cannot open: Permission denied' >&2; exit 2\n"
	if err := os.WriteFile(filepath.Join(bin, "tar"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := storage.NewVolume(new(storagetest.Memory), "acme", nil).Sync(t.Context(), host{before: "PATH=" + bin + ":$PATH"}, dir)
	if err == nil || !strings.Contains(err.Error(), "./secret: Cannot open") {
		t.Errorf("Sync: %v", err)
	}
}

func TestSyncWhileSomethingWrites(t *testing.T) {
	requireGNUTar(t)
	dir := workdir(t)
	write(t, dir, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			data := strings.Repeat("x", 1<<(i%20))
			_ = os.WriteFile(filepath.Join(dir, fmt.Sprint("busy", i%7)), []byte(data), 0o644)
			_ = os.Remove(filepath.Join(dir, fmt.Sprint("busy", (i+3)%7)))
		}
	}()
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	var made []string
	for range 10 {
		made = append(made, mustSync(t, v, dir).ID)
	}
	cancel()
	<-done
	for _, id := range made {
		if err := v.Restore(t.Context(), host{}, dir, id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk limits the size of files, which fails tar as a full disk does.
func TestFullDisk(t *testing.T) {
	requireGNUTar(t)
	dir := workdir(t)
	v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
	write(t, dir, map[string]string{"large": strings.Repeat("x", 1<<20), "a": "new"})
	id := mustSync(t, v, dir).ID
	write(t, dir, map[string]string{"a": "old", "b": "old"})
	if err := v.Restore(t.Context(), host{before: "ulimit -f 100"}, dir, id); err == nil {
		t.Fatal("Restore of a file over the limit succeeded")
	}
	if got := content(t, dir); got != "a=old;b=old;" {
		t.Fatalf("the directory holds %q", got)
	}
}

// TestExchangeThatFails makes mv fail while files are exchanged, once or for good.
func TestExchangeThatFails(t *testing.T) {
	requireGNUTar(t)
	for _, once := range []bool{true, false} {
		dir, bin := workdir(t), t.TempDir()
		v := storage.NewVolume(new(storagetest.Memory), "acme", nil)
		write(t, dir, map[string]string{"one": "new", "two": "new"})
		id := mustSync(t, v, dir).ID
		write(t, dir, map[string]string{"one": "old", "three": "old"})
		script := fmt.Sprintf(`#!/bin/sh
PATH=${PATH#*:}
[ ! -e %[1]s/once ] || exec mv "$@"
%[2]v && : >%[1]s/once
for to do :; done; shift; mv "$1" "$to"; echo "mv is broken" >&2; exit 1
`, bin, once)
		if err := os.WriteFile(filepath.Join(bin, "mv"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		err := v.Restore(t.Context(), host{before: "PATH=" + bin + ":$PATH"}, dir, id)
		if (err == nil) != once || err != nil && !strings.Contains(err.Error(), "mv is broken") {
			t.Fatalf("once %v: Restore: %v", once, err)
		}
		if !once { // what comes next finishes it
			if err := v.Init(t.Context(), host{}, dir); err != nil {
				t.Fatal(err)
			}
		}
		if got := content(t, dir); got != "one=new;two=new;" {
			t.Fatalf("once %v: the directory holds %q", once, got)
		}
	}
}

func TestRestoreWithFaultsKeepsFiles(t *testing.T) {
	requireGNUTar(t)
	memory, dir := new(storagetest.Memory), workdir(t)
	write(t, dir, map[string]string{"file": "new"})
	id := mustSync(t, storage.NewVolume(memory, "acme", nil), dir).ID
	write(t, dir, map[string]string{"file": "old"})
	for _, fault := range []storagetest.Fault{storagetest.Fail, storagetest.Cut} {
		for n := 1; n <= 2; n++ {
			faulty := &storagetest.Faulty{Bucket: memory, CutAfter: 10, Plan: storagetest.Nth(n, fault)}
			err := storage.NewVolume(faulty, "acme", nil).Restore(t.Context(), host{}, dir, id)
			if !errors.Is(err, storagetest.ErrInjected) || content(t, dir) != "file=old;" {
				t.Errorf("call %d: %v; the directory holds %q", n, err, content(t, dir))
			}
		}
	}
}

func TestVersionsReportsWhatItCannotRead(t *testing.T) {
	requireGNUTar(t)
	memory, dir := new(storagetest.Memory), workdir(t)
	v := storage.NewVolume(memory, "acme", nil)
	write(t, dir, map[string]string{"file": "x"})
	first, second := mustSync(t, v, dir), mustSync(t, v, dir)
	for data, want := range map[string]error{
		"vivarium-volume 3 new\n{}\n": errors.ErrUnsupported, `{"format":1}` + "\n": errors.ErrUnsupported,
		"vivarium-volume 2 0000\n{}\n": storage.ErrCorrupt, `{`: storage.ErrCorrupt, strings.Repeat(" ", 2<<20): storage.ErrCorrupt,
	} {
		key := "acme/_versions/0000000002"
		_ = second
		if err := memory.Put(t.Context(), key, strings.NewReader(data), nil); err != nil {
			t.Fatal(err)
		}
		var got []string
		for version, err := range v.Versions(t.Context()) {
			if err != nil {
				got = append(got, "error")
				if want != nil && !errors.Is(err, want) {
					t.Errorf("%.20q: %v", data, err)
				}
				continue
			}
			got = append(got, version.ID)
		}
		if len(got) != 2 || got[0] != "error" || got[1] != first.ID {
			t.Errorf("%.20q: %q", data, got)
		}
		if err := v.Init(t.Context(), host{}, dir); err == nil {
			t.Errorf("%.20q: Init fell back to an older version", data)
		}
	}
	failing := storage.NewVolume(&storagetest.Faulty{Bucket: memory, Plan: storagetest.Nth(1, storagetest.Cut)}, "acme", nil)
	results := 0
	for _, err := range failing.Versions(t.Context()) {
		results++
		if !errors.Is(err, storagetest.ErrInjected) {
			t.Error(err)
		}
	}
	if results != 1 {
		t.Errorf("%d results of a broken list", results)
	}
}

// A machine whose clock runs behind still makes the newest version.
func TestClockThatRunsBehind(t *testing.T) {
	requireGNUTar(t)
	memory, dir := new(storagetest.Memory), workdir(t)
	v := storage.NewVolume(memory, "acme", nil)
	write(t, dir, map[string]string{"file": "first"})
	first := mustSync(t, v, dir)
	var second *storage.Version
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		second = mustSync(t, v, dir)
	})
	if got := ids(t, v); len(got) != 2 || got[0] != second.ID || !second.Time.After(first.Time) {
		t.Fatalf("versions %q; the second, made at %v, is %s", got, second.Time, second.ID)
	}
}

func TestVolumesDoNotMix(t *testing.T) {
	requireGNUTar(t)
	memory, dir := new(storagetest.Memory), workdir(t)
	names := []string{"a", "a/b", "a/b/c", "ab", "A", "a/versions"}
	for _, name := range names {
		write(t, dir, map[string]string{"name": name})
		mustSync(t, storage.NewVolume(memory, name, nil), dir)
	}
	for _, name := range names {
		v := storage.NewVolume(memory, name, nil)
		if got := ids(t, v); len(got) != 1 {
			t.Errorf("%s has versions %q", name, got)
		}
		if err := v.Init(t.Context(), host{}, dir); err != nil || content(t, dir) != "name="+name+";" {
			t.Errorf("%s: %v, %q", name, err, content(t, dir))
		}
	}
}

func TestBadNamesAndOptions(t *testing.T) {
	bad := map[string]*storage.Options{"ok": {Compression: 23}, "fine": {Compression: -1}}
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.b", "_a", "-a", "a b", "a\x00", "é", "a\\b", "a:b",
		strings.Repeat("a", 65), strings.Repeat("a/", 128) + "a",
	} {
		bad[name] = nil
	}
	for name, opts := range bad {
		v := storage.NewVolume(new(storagetest.Memory), name, opts)
		_, syncErr := v.Sync(t.Context(), host{}, "/nowhere")
		var listErr error
		for _, err := range v.Versions(t.Context()) {
			listErr = err
		}
		for _, err := range []error{syncErr, listErr, v.Init(t.Context(), host{}, "/nowhere"), v.Restore(t.Context(), host{}, "/nowhere", "x")} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	for _, name := range []string{"a", "acme/workspace-7", "A.b_c-d/0", strings.Repeat("a", 64), strings.Repeat("a/", 127) + "a"} {
		if err := storage.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzCheckName(f *testing.F) {
	for _, name := range []string{"a", "acme/workspace-7", "..", "a/../b", "/a", "a/", "_x", "a\x00b"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if storage.CheckName(name) != nil {
			return
		}
		// The longest keys that a volume makes must do for every bucket.
		for _, key := range []string{name + "/_archives/20060102-150405.000000000-aaaaaaaaaaaaa.tar.zst"} {
			if err := storage.CheckKey(key); err != nil {
				t.Error(err)
			}
		}
		if !fs.ValidPath(name) || strings.Contains(name, "/_") {
			t.Errorf("%q is accepted", name)
		}
	})
}

func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"a", "a/b", "..", "a//b", "\xff", "\x00"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if err := storage.CheckKey(key); (err == nil) && (!fs.ValidPath(key) || key == ".") || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", key, err)
		}
	})
}

// TestOnEveryBucket runs one story on the buckets that are not in memory.
func TestOnEveryBucket(t *testing.T) {
	requireGNUTar(t)
	buckets := map[string]func(t *testing.T) storage.Bucket{
		"Directory": func(t *testing.T) storage.Bucket {
			b, err := dirbucket.Open(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			return b
		},
		"S3": func(t *testing.T) storage.Bucket {
			server := s3test.Start(t)
			return s3bucket.New(server.Client(), server.Bucket, &s3bucket.Options{PartSize: 5 << 20})
		},
	}
	for name, open := range buckets {
		t.Run(name, func(t *testing.T) {
			bucket, dir := open(t), workdir(t)
			v := storage.NewVolume(bucket, "acme/workspace-7", nil)
			write(t, dir, map[string]string{"a": "1", "b": "1"})
			noise := filepath.Join(dir, "noise") // of several parts
			makeNoise(t, noise, 12<<20)
			first, before := mustSync(t, v, dir), content(t, dir)
			write(t, dir, map[string]string{"a": "2", "c": "2"})
			mustSync(t, v, dir)
			for id, want := range map[string]string{first.ID: before, ids(t, v)[0]: "a=2;c=2;"} {
				if err := v.Restore(t.Context(), host{}, dir, id); err != nil || content(t, dir) != want {
					t.Fatalf("Restore: %v", err)
				}
			}
			if first.Stored < 12<<20 {
				t.Errorf("%+v", first)
			}
		})
	}
}

func makeNoise(t testing.TB, file string, n int64) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.CopyN(f, source, n)
	if err := errors.Join(err, f.Close(), source.Close()); err != nil {
		t.Fatal(err)
	}
}
