package s3bucket_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// through serves a proxy before a server.
func through(t *testing.T, server *s3test.Server, plan func(storagetest.Call) storagetest.Fault) (*storagetest.Proxy, string) {
	t.Helper()
	proxy := &storagetest.Proxy{Target: server.Endpoint, Plan: plan}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	return proxy, front.URL
}

// opened opens a bucket at a URL with a server's credentials.
func opened(t *testing.T, server *s3test.Server, url string, opts *s3bucket.Options) *s3bucket.Bucket {
	t.Helper()
	cfg := &s3bucket.Config{Endpoint: url, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
	b, err := s3bucket.Open(t.Context(), server.Bucket, cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everyRequest makes a bucket send every kind of request it has.
func everyRequest(t *testing.T, b *s3bucket.Bucket) {
	t.Helper()
	for key, size := range map[string]int{"small": 100, "large": 6 * mib} {
		// versitygw, which knows no keys, refuses or ignores some of the settings.
		_ = b.Put(t.Context(), key, struct{ *bytes.Buffer }{bytes.NewBuffer(pattern(size))}, nil)
	}
	_, _ = b.Stat(t.Context(), "small")
	if r, err := b.Get(t.Context(), "small", 0, -1); err == nil {
		_ = r.Close()
	}
	for range b.List(t.Context(), "") {
	}
	_ = b.Delete(t.Context(), "small")
}

func TestSettingsAreSent(t *testing.T) {
	server := s3test.Start(t)
	key := bytes.Repeat([]byte("k"), 32)
	sum := md5.Sum(key)
	customer := map[string]string{
		"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256",
		"X-Amz-Server-Side-Encryption-Customer-Key":       base64.StdEncoding.EncodeToString(key),
		"X-Amz-Server-Side-Encryption-Customer-Key-Md5":   base64.StdEncoding.EncodeToString(sum[:]),
	}
	stores := []storagetest.Op{storagetest.OpPut, storagetest.OpCreateUpload}
	reads := []storagetest.Op{storagetest.OpGet, storagetest.OpStat}
	parts := []storagetest.Op{storagetest.OpPutPart, storagetest.OpCompleteUpload}
	names := []storagetest.Op{storagetest.OpList, storagetest.OpDelete}
	for name, c := range map[string]struct {
		opts s3bucket.Options
		want map[string]string
		on   [][]storagetest.Op
	}{
		"sse-s3": {s3bucket.Options{Encryption: s3bucket.Encryption{Mode: s3bucket.EncryptS3}},
			map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}, [][]storagetest.Op{stores}},
		"sse-kms": {s3bucket.Options{Encryption: s3bucket.Encryption{Mode: s3bucket.EncryptKMS, KMSKeyID: "key-7", KMSContext: map[string]string{"team": "a"}}},
			map[string]string{
				"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "key-7",
				"X-Amz-Server-Side-Encryption-Context": base64.StdEncoding.EncodeToString([]byte(`{"team":"a"}`)),
			}, [][]storagetest.Op{stores}},
		"sse-c": {s3bucket.Options{Encryption: s3bucket.Encryption{CustomerKey: key}}, customer, [][]storagetest.Op{stores, reads, parts}},
		"class and tags": {s3bucket.Options{StorageClass: "STANDARD_IA", Tags: map[string]string{"cost centre": "7+1", "a": "b"}},
			map[string]string{"X-Amz-Storage-Class": "STANDARD_IA", "X-Amz-Tagging": "a=b&cost%20centre=7%2B1"}, [][]storagetest.Op{stores}},
		"requester pays": {s3bucket.Options{RequesterPays: true}, map[string]string{"X-Amz-Request-Payer": "requester"},
			[][]storagetest.Op{stores, reads, parts, names}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, url := through(t, server, nil)
			c.opts.PartSize, c.opts.Prefix = 5*mib, strings.ReplaceAll(name, " ", "-")+"/"
			everyRequest(t, opened(t, server, url, &c.opts))
			wantHeaders(t, proxy.Requests(), c.want, c.on)
		})
	}
}

// wantHeaders wants headers on the requests with some ops, signed, and on no others.
func wantHeaders(t *testing.T, requests []storagetest.Request, want map[string]string, on [][]storagetest.Op) {
	t.Helper()
	missing := map[storagetest.Op]bool{}
	for _, ops := range on {
		for _, op := range ops {
			missing[op] = true
		}
	}
	wanted := maps.Clone(missing)
	for _, r := range requests {
		for header, value := range want {
			got := r.Header.Get(header)
			switch {
			case !wanted[r.Op] && got != "":
				t.Errorf("%s has %s: %q", r.Op, header, got)
			case wanted[r.Op] && got != value:
				t.Errorf("%s has %s: %q, not %q", r.Op, header, got, value)
			case wanted[r.Op] && !strings.Contains(r.Header.Get("Authorization"), strings.ToLower(header)):
				t.Errorf("%s does not sign %s", r.Op, header)
			}
		}
		delete(missing, r.Op)
	}
	for op := range missing {
		t.Errorf("no request %q was sent", op)
	}
}

func TestBadEncryption(t *testing.T) {
	key := make(s3bucket.Key, 32)
	for name, e := range map[string]s3bucket.Encryption{
		"unknown mode":      {Mode: "rot13"},
		"key without mode":  {KMSKeyID: "k"},
		"context with S3":   {Mode: s3bucket.EncryptS3, KMSContext: map[string]string{"a": "b"}},
		"both":              {Mode: s3bucket.EncryptKMS, CustomerKey: key},
		"short key":         {CustomerKey: key[:16]},
		"empty key":         {CustomerKey: s3bucket.Key{}},
		"key in the clear":  {CustomerKey: key},
		"context and no id": {KMSContext: map[string]string{"a": "b"}},
	} {
		cfg := &s3bucket.Config{Endpoint: "http://s3.example.org", AccessKeyID: "a", SecretAccessKey: "b"}
		if _, err := s3bucket.Open(t.Context(), "bucket", cfg, &s3bucket.Options{Encryption: e}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, endpoint := range []string{"https://s3.example.org", "http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9", ""} {
		cfg := &s3bucket.Config{Endpoint: endpoint, AccessKeyID: "a", SecretAccessKey: "b"}
		b, err := s3bucket.Open(t.Context(), "bucket", cfg, &s3bucket.Options{Encryption: s3bucket.Encryption{CustomerKey: key}})
		if err != nil {
			t.Errorf("%q: %v", endpoint, err)
			continue
		}
		if _, err := b.PresignGet(t.Context(), "key", 0, -1, 1e9); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("presigned with SSE-C: %v", err)
		}
	}
	tags := map[string]string{}
	for i := range 11 {
		tags[fmt.Sprint(i)] = "x"
	}
	if _, err := s3bucket.Open(t.Context(), "bucket", nil, &s3bucket.Options{Tags: tags}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("eleven tags: %v", err)
	}
}

func TestKeyShowsItselfToNobody(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	opts := s3bucket.Options{Encryption: s3bucket.Encryption{CustomerKey: s3bucket.Key(secret)}}
	var text bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&text, verb+verb+verb, opts, &opts, opts.Encryption.CustomerKey)
	}
	slog.New(slog.NewTextHandler(&text, nil)).Info("opened", "opts", opts, "key", opts.Encryption.CustomerKey)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("opened", "opts", opts, "key", opts.Encryption.CustomerKey)
	data, err := json.Marshal(opts)
	if err != nil {
		t.Fatal(err)
	}
	text.Write(data)
	for _, form := range []string{secret, fmt.Sprintf("%x", secret), base64.StdEncoding.EncodeToString([]byte(secret)), "48 49 50"} {
		if strings.Contains(text.String(), form) {
			t.Errorf("%s is in %s", form, &text)
		}
	}
	server := s3test.Start(t)
	w := &wire{fault: reply("PUT", 100, 400, "InvalidRequest")}
	b := s3bucket.New(server.Client(func(o *s3.Options) { o.HTTPClient = w }), server.Bucket, &opts)
	putErr := b.Put(t.Context(), "key", strings.NewReader("x"), nil)
	if putErr == nil || strings.Contains(fmt.Sprintf("%v %+v", putErr, putErr), base64.StdEncoding.EncodeToString([]byte(secret))) {
		t.Errorf("Put: %v", putErr)
	}
}

func TestServerWithoutConditions(t *testing.T) {
	server := s3test.Start(t)
	ignores := &wire{fault: func(_ int, req *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
		if req.Header.Get("If-None-Match") != "" {
			return transport.RoundTrip(withoutCondition(t, server, req))
		}
		return nil, nil
	}}
	refuses := &wire{fault: reply("PUT", 100, 501, "NotImplemented")}
	for name, w := range map[string]*wire{"ignores": ignores, "refuses": refuses} {
		b := w.bucket(server)
		if err := b.Probe(t.Context()); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "MinIO") {
			t.Errorf("%s: Probe: %v", name, err)
		}
	}
	if err := refuses.bucket(server).Put(t.Context(), "key", strings.NewReader("x"), ifAbsent); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Put: %v", err)
	}
	good := (&wire{}).bucket(server)
	if err := good.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	for object, err := range good.List(t.Context(), "") {
		t.Errorf("Probe left %v, %v", object.Key, err)
	}
}

// withoutCondition makes the same request without its condition.
func withoutCondition(t *testing.T, server *s3test.Server, req *http.Request) *http.Request {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Error(err)
	}
	plain, err := http.NewRequestWithContext(req.Context(), req.Method, req.URL.String(), bytes.NewReader(body))
	if err != nil {
		t.Error(err)
	}
	sum := sha256.Sum256(body)
	plain.Header.Set("X-Amz-Content-Sha256", hexOf(sum[:]))
	credentials := aws.Credentials{AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
	if err := v4.NewSigner().SignHTTP(req.Context(), credentials, plain, hexOf(sum[:]), "s3", server.Region, time.Now()); err != nil {
		t.Error(err)
	}
	return plain
}
