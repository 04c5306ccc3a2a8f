package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/bucket"
	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// place is a bucket on a real server, and where it is shown.
type place struct {
	t      *testing.T
	server *s3test.Server
	client *s3.Client
	mount  *bucket.Mount
}

func config(s *s3test.Server) *bucket.Config {
	return &bucket.Config{Bucket: s.Bucket, Endpoint: s.Endpoint, Region: s.Region,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, "")}
}

func open(t *testing.T, change func(*bucket.Config)) *place {
	t.Helper()
	p := &place{t: t, server: s3test.Start(t)}
	p.client = p.server.Client()
	cfg := config(p.server)
	if change != nil {
		change(cfg)
	}
	var err error
	p.mount, err = bucket.Open(t.Context(), cfg, t.TempDir())
	if errors.Is(err, bucket.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

func (p *place) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.mount.Close(ctx); err != nil {
		p.t.Error(err)
	}
}

// sh runs a script in the directory, in another process: this one may not write.
func (p *place) sh(script string) string {
	p.t.Helper()
	// Not with Dir: this process stands still while a child of it goes there.
	out, _ := exec.Command("sh", "-c", `exec 2>&1; cd "$0" && `+script, p.mount.Dir()).Output()
	return strings.TrimSpace(string(out))
}

func (p *place) expect(script, want string) {
	p.t.Helper()
	if got := p.sh(script); got != want {
		p.t.Errorf("%s: %q, want %q", script, got, want)
	}
}

// denies expects a script to fail for that reason.
func (p *place) denies(script, reason string) {
	p.t.Helper()
	if got := p.sh(script + " && echo done"); !strings.Contains(got, reason) || strings.Contains(got, "done") {
		p.t.Errorf("%s: %q, want %q", script, got, reason)
	}
}

func (p *place) put(key, content string) {
	p.t.Helper()
	if _, err := p.client.PutObject(p.t.Context(), &s3.PutObjectInput{Bucket: &p.server.Bucket, Key: &key, Body: strings.NewReader(content)}); err != nil {
		p.t.Fatal(err)
	}
}

// object is what the bucket has, "" for nothing.
func (p *place) object(key string) string {
	p.t.Helper()
	got, err := p.client.GetObject(p.t.Context(), &s3.GetObjectInput{Bucket: &p.server.Bucket, Key: &key})
	if err != nil {
		return ""
	}
	defer got.Body.Close()
	all, err := io.ReadAll(got.Body)
	if err != nil {
		p.t.Error(err)
	}
	return string(all)
}

func TestReading(t *testing.T) {
	p := open(t, nil)
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	p.put("colors/blue/cat", "cat")
	p.put("colors/list", "list")
	p.put("big", string(big))
	p.put("empty", "")
	p.expect("find . | sort | tr '\\n' ' '", ". ./big ./colors ./colors/blue ./colors/blue/cat ./colors/list ./empty")
	p.expect("cat colors/list colors/blue/cat empty", "listcat")
	p.expect("stat -c '%a %s %F' colors/list colors", "644 4 regular file\n755 0 directory")
	p.expect("tail -c 5 big; dd if=big bs=7 skip=100000 count=1 2>/dev/null", "bcdef0123456")
	p.expect("cmp big "+p.file(big)+" && echo same", "same")
	p.denies("cat none", "No such file")

	// Others' changes are seen at once.
	p.put("colors/list", "another list")
	p.put("later/f", "later")
	p.expect("cat colors/list; ls later", "another listf")
	if _, err := p.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &p.server.Bucket, Key: new("later/f")}); err != nil {
		t.Fatal(err)
	}
	p.denies("ls later/f", "No such file")
	// A file that is open does not become another one.
	p.expect("exec 3<colors/blue/cat; cat <&3", "cat")
}

// file is one of this machine.
func (p *place) file(content []byte) string {
	p.t.Helper()
	f, err := os.CreateTemp(p.t.TempDir(), "")
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		p.t.Fatal(err)
	}
	return f.Name()
}

func TestWriting(t *testing.T) {
	p := open(t, nil)
	// What was closed is there, for this side and for the other.
	p.expect("echo one >f; cat f", "one")
	p.expect("mkdir -p a/b && (echo two; echo three) >a/b/f && cat a/b/f", "two\nthree")
	p.expect("cp "+p.file(bytes.Repeat([]byte("x"), 3_000_000))+" large && wc -c <large", "3000000")
	p.expect("touch empty && stat -c %s empty", "0")
	p.expect("dd if=large of=again bs=100k 2>/dev/null; cmp large again && echo same", "same")
	for key, want := range map[string]string{"f": "one\n", "a/b/f": "two\nthree\n"} {
		if got := p.object(key); got != want {
			t.Errorf("object %s is %q", key, got)
		}
	}
	// Files are replaced as a whole, and removed.
	p.expect("echo other >f; cat f; rm a/b/f; ls -A", "other\nagain\nempty\nf\nlarge")
	p.expect("touch new; rm new; ls new", "ls: cannot access 'new': No such file or directory")
	if got := p.object("f"); got != "other\n" {
		t.Errorf("object f is %q", got)
	}
	for script, reason := range map[string]string{
		"echo more >>f":   "Operation not permitted",
		"mv f g":          "not supported",
		"ln f g":          "not supported",
		"ln -s f g":       "not",
		"chmod 600 f":     "Operation not permitted",
		"truncate -s 1 f": "Operation not permitted",
		"dd if=/dev/zero of=h bs=1 count=1 seek=9": "Invalid argument",
		"echo x | dd of=f conv=notrunc":            "Operation not permitted",
		"touch f":                                  "Operation not permitted",
	} {
		p.denies(script, reason)
	}
	p.expect("cat f", "other")
}

// TestUnfinished: a file that is being written is nobody's to read, and no object.
func TestUnfinished(t *testing.T) {
	p := open(t, nil)
	p.put("f", "old")
	p.expect("exec 5>&1; (/bin/echo part; (cat new; cat f; ls; stat -c %s new; rm new; sh -c \"echo x >new\" 2>/dev/null || echo no) >&5 2>&5; true) >new; cat new",
		"cat: new: Operation not permitted\noldf\nnew\n5\nrm: cannot remove 'new': Operation not permitted\nno\npart")
	p.expect("exec 5>&1; (/bin/echo part; (cat f) >&5 2>&5; true) >f; cat f", "cat: f: Operation not permitted\npart")
	const fsync = `
import os
f = os.open("synced", os.O_WRONLY | os.O_CREAT)
os.write(f, b"whole")
os.fsync(f)
print(open("synced").read())
try: os.write(f, b"more")
except PermissionError as e: print(e.strerror)
`
	if _, err := exec.LookPath("python3"); err == nil {
		p.expect("python3 -c '"+fsync+"'", "whole\nOperation not permitted")
	}
}

func TestDirectories(t *testing.T) {
	p := open(t, nil)
	p.put("blue/image", "shown")
	p.put("red/", "")
	p.expect("cat blue/image; ls -p . red", "shown.:\nblue/\nred/\n\nred:")
	p.expect("mkdir -p made/deep; cd made/deep; pwd | tail -c 11; ls ..", "/made/deep\ndeep")
	p.expect("rmdir made/deep made; ls -d made", "ls: cannot access 'made': No such file or directory")
	p.denies("rmdir red", "Operation not permitted")
	p.denies("rmdir blue", "not empty")
	p.denies("mkdir blue", "exists")
	p.expect("mkdir new; echo x >new/f; rm new/f; ls -d new", "ls: cannot access 'new': No such file or directory")
	if got := p.object("new/"); got != "" {
		t.Errorf("a directory has become an object: %q", got)
	}
}

func TestPrefix(t *testing.T) {
	p := open(t, func(c *bucket.Config) { c.Prefix = "team/a/" })
	p.put("team/a/f", "mine")
	p.put("team/b", "theirs")
	p.expect("ls; cat f; mkdir d; echo x >d/g; ls ..//.. >/dev/null; find . -type f | sort", "f\nmine./d/g\n./f")
	if got := p.object("team/a/d/g"); got != "x\n" {
		t.Errorf("object: %q", got)
	}
}

func TestReadOnly(t *testing.T) {
	p := open(t, func(c *bucket.Config) { c.ReadOnly = true })
	p.put("d/f", "kept")
	p.expect("cat d/f", "kept")
	for _, script := range []string{"echo x >d/f", "echo x >g", "rm d/f", "mkdir e", "rmdir d"} {
		p.denies(script, "Read-only file system")
	}
}

// TestOwnProcess: whoever clears up the directory does not clear up the bucket.
func TestOwnProcess(t *testing.T) {
	p := open(t, nil)
	p.put("d/f", "kept")
	if err := os.RemoveAll(p.mount.Dir()); err == nil {
		t.Error("the directory could be removed")
	}
	if got := p.object("d/f"); got != "kept" {
		t.Errorf("object: %q", got)
	}
}

// TestDescriptor: who had it could read and answer what programs ask.
func TestDescriptor(t *testing.T) {
	open(t, nil)
	out, err := exec.Command("sh", "-c", "ls -l /proc/self/fd").Output()
	if err != nil || bytes.Contains(out, []byte("fuse")) {
		t.Errorf("a child has the file system's descriptor: %v\n%s", err, out)
	}
}

func TestWrongBuckets(t *testing.T) {
	s := s3test.Start(t)
	none, key, nobody := config(s), config(s), config(s)
	none.Bucket = "not-there"
	key.Credentials = credentials.NewStaticCredentialsProvider(s.AccessKey, "wrong-secret", "")
	nobody.Credentials = nil
	for name, cfg := range map[string]*bucket.Config{"bucket": none, "key": key, "no key": nobody} {
		if _, err := bucket.Open(t.Context(), cfg, t.TempDir()); !errors.Is(err, driver.ErrInvalid) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestServerFails: a program hears of a file that could not be stored.
func TestServerFails(t *testing.T) {
	p := open(t, nil)
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip(err)
	}
	if _, err := p.client.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &p.server.Bucket}); err != nil {
		t.Fatal(err)
	}
	const script = `
f = open("f", "w")
f.write("x")
try: f.close()
except OSError as e: print(e.errno > 0)
`
	p.expect("python3 -c '"+script+"'", "True")
}
