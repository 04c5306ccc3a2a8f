package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// spied remembers what travels between this process and a sandbox.
type spied struct {
	storage.Runner
	in, out *bytes.Buffer
	args    *[]string
}

func (s spied) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	*s.args = append(*s.args, args...)
	if stdin != nil {
		stdin = io.TeeReader(stdin, s.in)
	}
	return s.Runner.Run(ctx, stdin, io.MultiWriter(stdout, s.out), name, args...)
}

// Large files travel between the sandbox and the server alone.
func TestDirect(t *testing.T) {
	requireGNUTar(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is absent; install it (Debian: apt-get install curl)")
	}
	server := s3test.Start(t)
	busybox := busyboxPath(t)
	if err := os.Symlink(mustLookPath(t, "curl"), filepath.Join(busybox, "curl")); err != nil {
		t.Fatal(err)
	}
	for name, sandbox := range map[string]host{"GNU": {}, "busybox": {path: busybox}} {
		t.Run(name, func(t *testing.T) {
			bucket := s3bucket.New(server.Client(), server.Bucket, &s3bucket.Options{Prefix: name})
			v := storage.NewVolume(bucket, "acme", &storage.Options{Direct: 16 << 20})
			dir := workdir(t)
			write(t, dir, map[string]string{"small": "x"})
			if err := os.MkdirAll(filepath.Join(dir, "sub dir/deep"), 0o755); err != nil {
				t.Fatal(err)
			}
			large := filepath.Join(dir, "sub dir/deep/it's large")
			makeNoise(t, large, 20<<20+12345)
			if err := os.Link(large, filepath.Join(dir, "second name")); err != nil {
				t.Fatal(err)
			}
			sb := spied{sandbox, new(bytes.Buffer), new(bytes.Buffer), new([]string)}
			first := mustSyncIn(t, v, sb, dir)
			if first.Files != 3 || first.Added < 20<<20 || sb.in.Len()+sb.out.Len() > 1<<20 {
				t.Errorf("%+v, with %d bytes to the sandbox and %d from there", first, sb.in.Len(), sb.out.Len())
			}
			want, err := os.ReadFile(large)
			if err != nil {
				t.Fatal(err)
			}
			// An edit at the end sends one piece; the rest is known.
			edited := bytes.Clone(want)
			edited[len(edited)-1]++
			if err := os.WriteFile(large, edited, 0o644); err != nil {
				t.Fatal(err)
			}
			if second := mustSyncIn(t, v, sb, dir); second.Added > 9<<20 {
				t.Errorf("after an edit %d bytes were added", second.Added)
			}
			sb.in.Reset()
			if err := v.Restore(t.Context(), sb, dir, first.ID); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "second name")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the file came back with %d bytes, %v", len(got), err)
			}
			if sb.in.Len() > 1<<20 {
				t.Errorf("%d bytes went to the sandbox", sb.in.Len())
			}
			for _, arg := range *sb.args {
				if strings.Contains(arg, "X-Amz-") {
					t.Error("a signed request is in an argument")
				}
			}
		})
	}
}

func mustLookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func mustSyncIn(t *testing.T, v *storage.Volume, sb storage.Runner, dir string) *storage.Version {
	t.Helper()
	version, err := v.Sync(t.Context(), sb, dir)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// Damage that only the sandbox sees is told as any other, and the directory stays
// as it is. A server that does not answer fails the Sync with what curl says.
func TestDirectFailures(t *testing.T) {
	requireGNUTar(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is absent; install it (Debian: apt-get install curl)")
	}
	server := s3test.Start(t)
	bucket := s3bucket.New(server.Client(), server.Bucket, nil)
	v := storage.NewVolume(bucket, "acme", &storage.Options{Direct: 16 << 20})
	dir := workdir(t)
	write(t, dir, map[string]string{"small": "x"})
	makeNoise(t, filepath.Join(dir, "large"), 17<<20)
	version := mustSync(t, v, dir)
	for o, err := range bucket.List(t.Context(), "acme/_packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size == 8<<20 {
			if err := bucket.Put(t.Context(), o.Key, io.LimitReader(zero{}, o.Size), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, dir, map[string]string{"old": "x"})
	if err := v.Restore(t.Context(), host{}, dir, version.ID); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("Restore of damage: %v", err)
	}
	if got := content(t, dir); got != "old=x;" {
		t.Errorf("the directory holds %q", got)
	}
	makeNoise(t, filepath.Join(dir, "large"), 17<<20)
	_, err := v.Sync(t.Context(), host{before: "curl() { echo 'curl: (7) no route' >&2; return 7; }; bin=$(mktemp -d); printf '#!/bin/sh\\necho no route >&2; exit 7' >$bin/curl; chmod +x $bin/curl; export PATH=$bin:$PATH"}, dir)
	if err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("Sync without a server: %v", err)
	}
	_, err = storage.NewVolume(new(storagetest.Memory), "acme", &storage.Options{Direct: 16 << 20}).Sync(t.Context(), host{}, dir)
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a bucket that cannot sign: %v", err)
	}
}

// zero is an endless row of zeros.
type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
