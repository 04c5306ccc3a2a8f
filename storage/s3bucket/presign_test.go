package s3bucket_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

// send does a presigned request with a client that knows nothing of S3.
func send(t *testing.T, p *storage.PresignedRequest, body []byte) (int, string) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		status, answer, err := sendOnce(t, p, body)
		if err == nil {
			return status, answer
		}
		// A server that refuses a request need not read its body, and an answer can be
		// lost when it closes the connection.
		if attempt == 20 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
}

func sendOnce(t *testing.T, p *storage.PresignedRequest, body []byte) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), p.Method, p.URL, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = p.Header.Clone()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

func TestPresign(t *testing.T) { onEach(t, presignOn) }

func presignOn(t *testing.T, server *s3test.Server) {
	for name, checksums := range map[string]s3bucket.Checksums{"plain": s3bucket.ChecksumsOff, "checksums": s3bucket.ChecksumsOn} {
		t.Run(name, func(t *testing.T) {
			testPresign(t, s3bucket.New(server.Client(), server.Bucket, &s3bucket.Options{Prefix: name + "/", Checksums: checksums}))
		})
	}
}

func testPresign(t *testing.T, b *s3bucket.Bucket) {
	data := pattern(1 << 20)
	sum := sha256.Sum256(data)
	put, err := b.PresignPut(t.Context(), "some key", int64(len(data)), sum[:], time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(put.Expires); put.Method != "PUT" || left > time.Minute || left < 0 {
		t.Fatalf("%s, in %v", put.Method, left)
	}
	other := bytes.Clone(data)
	other[1000]++
	for what, body := range map[string][]byte{"another body": other, "a shorter body": data[:100], "no body": nil} {
		if status, answer := send(t, put, body); status < 400 || status > 499 {
			t.Errorf("%s: %d %s", what, status, answer)
		}
		if _, err := b.Stat(t.Context(), "some key"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: Stat: %v", what, err)
		}
	}
	forged := *put
	forged.Header = put.Header.Clone()
	otherSum := sha256.Sum256(other)
	forged.Header.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(otherSum[:]))
	if status, answer := send(t, &forged, other); status != 403 {
		t.Errorf("another digest than was signed: %d %s", status, answer)
	}
	if status, answer := send(t, put, data); status != 200 {
		t.Fatalf("the right body: %d %s", status, answer)
	}
	if !bytes.Equal(get(t, b, "some key"), data) {
		t.Fatal("the bytes differ")
	}
	testPresignGet(t, b, data)
}

func testPresignGet(t *testing.T, b *s3bucket.Bucket, data []byte) {
	for _, c := range []struct{ offset, length, end int64 }{{0, -1, 1 << 20}, {0, 10, 10}, {100, 16, 116}, {1 << 19, -1, 1 << 20}, {10, 1<<63 - 1, 1 << 20}} {
		r, err := b.PresignGet(t.Context(), "some key", c.offset, c.length, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := send(t, r, nil); status/100 != 2 || answer != string(data[c.offset:c.end]) {
			t.Errorf("from %d, %d bytes: %d, %d bytes", c.offset, c.length, status, len(answer))
		}
	}
	r, err := b.PresignGet(t.Context(), "some key", 0, 10, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Range", "bytes=0-20")
	if status, _ := send(t, r, nil); status != 403 {
		t.Errorf("another range than was signed: %d", status)
	}
}

func TestPresignedRequestExpires(t *testing.T) { onEach(t, presignedRequestExpiresOn) }

func presignedRequestExpiresOn(t *testing.T, server *s3test.Server) {
	b := s3bucket.New(server.Client(), server.Bucket, nil)
	if err := b.Put(t.Context(), "key", strings.NewReader("text"), nil); err != nil {
		t.Fatal(err)
	}
	r, err := b.PresignGet(t.Context(), "key", 0, -1, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(30 * time.Second); ; {
		if status, _ := send(t, r, nil); status == 403 {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("it is still good")
		}
	}
}

func TestPresignRefusesBadArguments(t *testing.T) {
	b, err := s3bucket.Open(t.Context(), "bucket", &s3bucket.Config{Endpoint: "http://127.0.0.1:1", AccessKeyID: "a", SecretAccessKey: "b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := make([]byte, 32)
	get := func(key string, offset, length int64, expires time.Duration) error {
		_, err := b.PresignGet(t.Context(), key, offset, length, expires)
		return err
	}
	put := func(key string, size int64, sum []byte, expires time.Duration) error {
		_, err := b.PresignPut(t.Context(), key, size, sum, expires)
		return err
	}
	for what, err := range map[string]error{
		"bad key":         get("/", 0, -1, time.Minute),
		"negative offset": get("k", -1, -1, time.Minute),
		"no bytes":        get("k", 0, 0, time.Minute),
		"too short":       get("k", 0, -1, time.Millisecond),
		"too long":        get("k", 0, -1, 8*24*time.Hour),
		"bad put key":     put("", 1, sum, time.Minute),
		"no digest":       put("k", 1, nil, time.Minute),
		"short digest":    put("k", 1, sum[:31], time.Minute),
		"negative size":   put("k", -1, sum, time.Minute),
		"huge":            put("k", 6<<30, sum, time.Minute),
	} {
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
