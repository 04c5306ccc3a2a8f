package s3bucket_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

// BenchmarkPut stores 16 MiB of which the digest is known, in turns with a bare
// PUT, by net/http, of the same bytes signed with the same digest.
func BenchmarkPut(b *testing.B) {
	server := s3test.Start(b)
	cfg := &s3bucket.Config{Endpoint: server.Endpoint, Region: server.Region, AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
	bucket, err := s3bucket.Open(b.Context(), server.Bucket, cfg, nil)
	if err != nil {
		b.Fatal(err)
	}
	data := pattern(16 * mib)
	sum := sha256.Sum256(data)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var pair figure.Pair
	for b.Loop() {
		pair.Measure(func() {
			if err := bucket.Put(b.Context(), "ours", bytes.NewReader(data), &storage.PutOptions{SHA256: sum[:]}); err != nil {
				b.Fatal(err)
			}
		}, func() { barePut(b, client, server, data, sum[:]) })
	}
	pair.Print(os.Stdout, "s3_put_16MiB", "bare_put")
}

func barePut(b *testing.B, client *http.Client, server *s3test.Server, data, sum []byte) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPut, server.Endpoint+"/"+server.Bucket+"/bare", bytes.NewReader(data))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("X-Amz-Content-Sha256", hexOf(sum))
	credentials := aws.Credentials{AccessKeyID: server.AccessKey, SecretAccessKey: server.SecretKey}
	if err := v4.NewSigner().SignHTTP(context.Background(), credentials, req, hexOf(sum), "s3", server.Region, time.Now()); err != nil {
		b.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status, err)
	}
}
