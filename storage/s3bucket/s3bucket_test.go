package s3bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

func TestConformance(t *testing.T) {
	server := s3test.Start(t)
	for name, opts := range map[string]s3bucket.Options{
		"Plain":                {PartSize: 5 * mib},
		"SmallPagesOneAtATime": {PartSize: 6 * mib, Parallel: 1, PageSize: 7},
		"Checksums":            {PartSize: 5 * mib, Checksums: s3bucket.ChecksumsOn},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Exercise(t, func(t *testing.T) storage.Bucket { return fresh(server, opts) })
			wantNoUploads(t, server)
		})
	}
}

// rclone does not compare a body with the digest in its signature, but with its
// checksum.
func TestConformanceOnRclone(t *testing.T) {
	server := s3test.StartKind(t, s3test.Rclone)
	storagetest.Exercise(t, func(t *testing.T) storage.Bucket {
		return rcloneBucket{fresh(server, s3bucket.Options{PartSize: 5 * mib, Checksums: s3bucket.ChecksumsOn})}
	})
	wantNoUploads(t, server)
}

// rcloneBucket makes up for rclone's answer, 500, to the deletion of a key that is
// the directory of others.
type rcloneBucket struct{ *s3bucket.Bucket }

func (b rcloneBucket) Delete(ctx context.Context, key string) error {
	if _, err := b.Stat(ctx, key); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return b.Bucket.Delete(ctx, key)
}

// onEach runs a test on each kind of server.
func onEach(t *testing.T, test func(*testing.T, *s3test.Server)) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.Rclone} {
		t.Run(kind.Name, func(t *testing.T) { test(t, s3test.StartKind(t, kind)) })
	}
}

var prefixes atomic.Int64

// fresh gives a bucket that has nothing in it yet.
func fresh(server *s3test.Server, opts s3bucket.Options) *s3bucket.Bucket {
	opts.Prefix = fmt.Sprintf("test-%d/", prefixes.Add(1))
	return s3bucket.New(server.Client(), server.Bucket, &opts)
}

// wantNoUploads fails when an unfinished multipart upload was left behind.
func wantNoUploads(t *testing.T, server *s3test.Server) {
	t.Helper()
	out, err := server.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &server.Bucket})
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "NoSuchUpload" {
		return // rclone, of no uploads
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, upload := range out.Uploads {
		t.Errorf("upload of %s was left behind", *upload.Key)
	}
}

func pattern(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16) }

func get(t *testing.T, b storage.Bucket, key string) []byte {
	t.Helper()
	r, err := b.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

var ifAbsent = &storage.PutOptions{IfAbsent: true}

func TestLostAnswers(t *testing.T) { onEach(t, lostAnswersOn) }

func lostAnswersOn(t *testing.T, server *s3test.Server) {
	for i, c := range []struct {
		kind string
		size int
	}{
		{"PUT", 100},
		{"PUT part", 12 * mib},
		{"POST upload", 12 * mib},
	} {
		t.Run(strings.ReplaceAll(c.kind, " ", "-"), func(t *testing.T) {
			w := &wire{fault: lose(c.kind, 1)}
			key, data := fmt.Sprint("key-", i), pattern(c.size)
			if err := w.bucket(server).Put(t.Context(), key, bytes.NewReader(data), ifAbsent); err != nil {
				t.Fatalf("Put whose answer was lost once: %v", err)
			}
			if w.count(c.kind) < 2 {
				t.Fatal("the request was not repeated")
			}
			if !bytes.Equal(get(t, w.bucket(server), key), data) {
				t.Fatal("another object is there")
			}
			w = &wire{fault: lose(c.kind, 1)}
			err := w.bucket(server).Put(t.Context(), key, bytes.NewReader(data), ifAbsent)
			if !errors.Is(err, fs.ErrExist) {
				t.Fatalf("Put of the same bytes by another: %v", err)
			}
			wantNoUploads(t, server)
		})
	}
}

func TestConflictsAreRetried(t *testing.T) { onEach(t, conflictsAreRetriedOn) }

func conflictsAreRetriedOn(t *testing.T, server *s3test.Server) {
	for kind, size := range map[string]int{"PUT": 100, "POST upload": 12 * mib} {
		w := &wire{fault: reply(kind, 2, 409, "ConditionalRequestConflict")}
		key, data := fmt.Sprint("size-", size), pattern(size)
		if err := w.bucket(server).Put(t.Context(), key, bytes.NewReader(data), ifAbsent); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if w.count(kind) != 3 || !bytes.Equal(get(t, w.bucket(server), key), data) {
			t.Fatalf("%s: sent %d times", kind, w.count(kind))
		}
	}
}

func TestFailedUploadIsAborted(t *testing.T) { onEach(t, failedUploadIsAbortedOn) }

func failedUploadIsAbortedOn(t *testing.T, server *s3test.Server) {
	for _, kind := range []string{"PUT part", "POST upload"} {
		w := &wire{fault: reply(kind, 1000, 403, "AccessDenied")}
		err := w.bucket(server).Put(t.Context(), "key", bytes.NewReader(pattern(40*mib)), ifAbsent)
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "AccessDenied") {
			t.Fatalf("%s: %v", kind, err)
		}
		if w.count("DELETE upload") != 1 {
			t.Fatalf("%s: requests %q", kind, w.seen)
		}
	}
	wantNoUploads(t, server)
}

func TestCancelledUploadIsAborted(t *testing.T) { onEach(t, cancelledUploadIsAbortedOn) }

func cancelledUploadIsAbortedOn(t *testing.T, server *s3test.Server) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &wire{fault: func(n int, req *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
		if n == 2 && req.Header.Get("X-Kind") == "PUT part" {
			cancel()
		}
		return nil, nil
	}}
	err := w.bucket(server).Put(ctx, "key", bytes.NewReader(pattern(40*mib)), nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wantNoUploads(t, server)
}

// cutBody breaks a stream after n bytes.
type cutBody struct {
	io.Reader
	io.Closer
}

func TestBrokenDownloadIsTakenUp(t *testing.T) { onEach(t, brokenDownloadIsTakenUpOn) }

func brokenDownloadIsTakenUpOn(t *testing.T, server *s3test.Server) {
	data := pattern(3 * mib)
	if err := (&wire{}).bucket(server).Put(t.Context(), "key", bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	w := &wire{fault: func(n int, req *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
		resp, err := pass()
		if err == nil && n <= 3 {
			resp.Body = cutBody{io.MultiReader(io.LimitReader(resp.Body, 700_001), errorReader{}), resp.Body}
		}
		return resp, err
	}}
	if !bytes.Equal(get(t, w.bucket(server), "key"), data) {
		t.Fatal("the bytes differ")
	}
	if w.count("GET") != 4 {
		t.Fatalf("%d requests", w.count("GET"))
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestDownloadOfReplacedObjectBreaks(t *testing.T) { onEach(t, downloadOfReplacedObjectBreaksOn) }

func downloadOfReplacedObjectBreaksOn(t *testing.T, server *s3test.Server) {
	plain := (&wire{}).bucket(server)
	if err := plain.Put(t.Context(), "key", bytes.NewReader(pattern(3*mib)), nil); err != nil {
		t.Fatal(err)
	}
	w := &wire{fault: func(n int, req *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
		resp, err := pass()
		if err == nil && n == 1 {
			if err := plain.Put(t.Context(), "key", strings.NewReader("another"), nil); err != nil {
				t.Error(err)
			}
			resp.Body = cutBody{io.MultiReader(io.LimitReader(resp.Body, 1000), errorReader{}), resp.Body}
		}
		return resp, err
	}}
	r, err := w.bucket(server).Get(t.Context(), "key", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err == nil || n != 1000 {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

func TestOpen(t *testing.T) {
	server := s3test.Start(t)
	cfg := &s3bucket.Config{Endpoint: server.Endpoint, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
	b, err := s3bucket.Open(t.Context(), server.Bucket, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "key", bytes.NewReader(pattern(1000)), ifAbsent); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(get(t, b, "key"), pattern(1000)) {
		t.Fatal("the bytes differ")
	}
	absent, err := s3bucket.Open(t.Context(), "absent-bucket", cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := absent.Verify(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Verify of an absent bucket: %v", err)
	}
	if _, err := absent.Get(t.Context(), "key", 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Get from an absent bucket: %v", err)
	}
	for _, err := range storage.NewVolume(absent, "acme", nil).Versions(t.Context()) {
		if err == nil {
			t.Fatal("an absent bucket has a version")
		}
	}
}

func TestOpenWithTheDefaultChain(t *testing.T) {
	server := s3test.Start(t)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	t.Setenv("AWS_REGION", server.Region)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	b, err := s3bucket.Open(t.Context(), server.Bucket, &s3bucket.Config{Endpoint: server.Endpoint}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsStayOutOfText(t *testing.T) {
	server := s3test.Start(t)
	const secret = "very-secret-indeed"
	cfg := &s3bucket.Config{Endpoint: server.Endpoint, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: secret, SessionToken: secret}
	b, err := s3bucket.Open(t.Context(), server.Bucket, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, getErr := b.Get(t.Context(), "key", 0, -1)
	noToken := *cfg
	noToken.SessionToken = "" // which the server does not know
	if b, err = s3bucket.Open(t.Context(), server.Bucket, &noToken, nil); err != nil {
		t.Fatal(err)
	}
	verifyErr := b.Verify(t.Context())
	if !errors.Is(verifyErr, fs.ErrPermission) {
		t.Errorf("Verify with a wrong secret: %v", verifyErr)
	}
	putErr := b.Put(t.Context(), "key", strings.NewReader("x"), nil)
	_, openErr := s3bucket.Open(t.Context(), "b", &s3bucket.Config{Endpoint: "http://user:" + secret + "@host"}, nil)
	for _, bad := range []error{getErr, verifyErr, putErr, openErr} {
		if bad == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", bad, bad, bad.Error()), secret) {
			t.Errorf("%v", bad)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s %v", *cfg, cfg, *cfg, cfg, cfg.LogValue()); strings.Contains(text, secret) {
		t.Error(text)
	}
}

func TestBadSettings(t *testing.T) {
	for name, cfg := range map[string]s3bucket.Config{
		"half of the keys":       {AccessKeyID: "a"},
		"the other half":         {SecretAccessKey: "a"},
		"token alone":            {SessionToken: "a"},
		"no scheme":              {Endpoint: "localhost:9000"},
		"another scheme":         {Endpoint: "ftp://host"},
		"no host":                {Endpoint: "http://"},
		"query":                  {Endpoint: "http://host/?a=b"},
		"not a URL":              {Endpoint: "http://host\x00"},
		"password in the middle": {Endpoint: "https://a:b@host"},
	} {
		if _, err := s3bucket.Open(t.Context(), "bucket", &cfg, nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s3bucket.Open(t.Context(), "", nil, nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("no name: %v", err)
	}
	for _, opts := range []s3bucket.Options{{PartSize: 1}, {PartSize: -1}, {Parallel: -1}, {PageSize: -1}, {Prefix: strings.Repeat("x", 201)}} {
		b, err := s3bucket.Open(t.Context(), "bucket", nil, &opts)
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%+v: %v", opts, err)
		}
		if err := b.Put(t.Context(), "key", strings.NewReader("x"), nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Put with %+v: %v", opts, err)
		}
	}
}
