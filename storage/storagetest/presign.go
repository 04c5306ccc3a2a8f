package storagetest

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage"
)

// presignedRequests is of no matter to a bucket that cannot presign and says so.
func presignedRequests(t *testing.T, b storage.Bucket) {
	p, err := storage.PresignerOf(b)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	data := "stored by whoever has the request"
	sum := sha256.Sum256([]byte(data))
	request, err := p.PresignPut(t.Context(), "key", int64(len(data)), sum[:], time.Minute)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, body := range []string{strings.ToUpper(data), data[1:], data + "x"} {
		if status, answer := do(t, client, request, body); status < 400 {
			t.Fatalf("another body (%q) was taken: %d %s", body, status, answer)
		}
		_, err := b.Stat(t.Context(), "key")
		wantIs(t, "Stat after it", err, fs.ErrNotExist)
	}
	if status, answer := do(t, client, request, data); status != http.StatusOK {
		t.Fatalf("the right body: %d %s", status, answer)
	}
	want(t, b, "key", data)
	request, err = p.PresignGet(t.Context(), "key", 7, 2, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := do(t, client, request, ""); status != http.StatusPartialContent || answer != data[7:9] {
		t.Fatalf("get: %d %q, want %q", status, answer, data[7:9])
	}
}

// do sends a presigned request as anyone would.
func do(t *testing.T, client *http.Client, p *storage.PresignedRequest, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), p.Method, p.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = p.Header.Clone()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}
