package modalbox_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// TestBuckets mounts one on a real server, in several ways.
func TestBuckets(t *testing.T) {
	server := s3test.Start(t)
	client := server.Client()
	put := func(key, content string) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &server.Bucket, Key: &key, Body: strings.NewReader(content)}); err != nil {
			t.Fatal(err)
		}
	}
	object := func(key string) string {
		t.Helper()
		got, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &server.Bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		all, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	put("in/deep/f", "from outside")
	p := open(t, newClient(t, &modaltest.Options{Secrets: map[string]map[string]string{
		"s3": {"AWS_ACCESS_KEY_ID": server.AccessKey, "AWS_SECRET_ACCESS_KEY": server.SecretKey},
	}}))
	sb, err := p.Create(testContext(t), &sandbox.Config{Buckets: []sandbox.BucketMount{
		{Bucket: server.Bucket, Endpoint: server.Endpoint, Target: "/all", SecretName: "s3"},
		{Bucket: server.Bucket, Endpoint: server.Endpoint, Target: "/in", Prefix: "in/", ReadOnly: true, Credentials: map[string]sandbox.Secret{
			"AWS_ACCESS_KEY_ID": sandbox.NewSecret(server.AccessKey), "AWS_SECRET_ACCESS_KEY": sandbox.NewSecret(server.SecretKey),
		}},
	}})
	if unable := unsupported(err); unable != "" {
		t.Skip(unable)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close()

	if got := sh(t, sb, "cat /in/deep/f; ls /all /in"); got != "from outside/all:\nin\n\n/in:\ndeep" {
		t.Errorf("the bucket shows %q", got)
	}
	sh(t, sb, "mkdir -p /all/out/deep && echo 'from inside' >/all/out/deep/f && chmod +r /all 2>/dev/null; true")
	if got := object("out/deep/f"); got != "from inside\n" {
		t.Errorf("the object is %q", got)
	}
	put("in/later", "later")
	if got := sh(t, sb, "cat /in/later /all/in/later; stat -c '%u %a' /all/in/later"); got != "laterlater0 644" {
		t.Errorf("what came later is %q", got)
	}
	for script, reason := range map[string]string{
		"echo x >/in/g": "Read-only", "rm /in/deep/f": "Read-only", "mv /all/in/later /all/moved": "not supported", "echo x >>/all/in/later": "not permitted",
	} {
		out, err := sb.Command(testContext(t), "sh", "-c", script).CombinedOutput()
		if err == nil || !strings.Contains(string(out), reason) {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
	if out := search(t, sb, server.SecretKey[:len(server.SecretKey)-1]+"[t]"); out != "" {
		t.Errorf("found the key of the bucket inside: %s", out)
	}
	// The files of the sandbox, and no command.
	for _, content := range []string{"whole", "another"} {
		f, err := sb.Driver().Files().OpenFile(testContext(t), "/all/by-files", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, content); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got := object("by-files"); got != content {
			t.Errorf("the object is %q", got)
		}
	}
	// What a command writes when the sandbox ends is not lost with it.
	cmd := sb.Command(testContext(t), "sh", "-c", "exec >/all/last; echo half; echo ready >&2; sleep 600")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stderr, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := sb.Terminate(testContext(t)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed with the sandbox
	if got := object("last"); got != "half\n" {
		t.Errorf("the last object is %q", got)
	}
	if got := object("in/later"); got != "later" {
		t.Errorf("after the end: %q", got)
	}
}

// unsupported says what this machine lacks for buckets, "" for nothing.
func unsupported(err error) string {
	if err != nil && strings.Contains(err.Error(), "the emulator cannot do this") {
		return err.Error()
	}
	return ""
}

// TestWrongBucket: a bucket that is not there is told before there is a sandbox.
func TestWrongBucket(t *testing.T) {
	server := s3test.Start(t)
	p := open(t, newClient(t, nil))
	_, err := p.Create(testContext(t), &sandbox.Config{Buckets: []sandbox.BucketMount{{
		Bucket: "not-there", Endpoint: server.Endpoint, Target: "/b", Credentials: map[string]sandbox.Secret{
			"AWS_ACCESS_KEY_ID": sandbox.NewSecret(server.AccessKey), "AWS_SECRET_ACCESS_KEY": sandbox.NewSecret(server.SecretKey),
		}}}})
	if !errors.Is(err, sandbox.ErrInvalid) || strings.Contains(err.Error(), server.SecretKey) {
		t.Errorf("%v", err)
	}
}
