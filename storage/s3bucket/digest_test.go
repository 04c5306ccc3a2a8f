package s3bucket_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/internal/s3test"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

func hexOf(sum []byte) string { return hex.EncodeToString(sum) }

// TestKnownChecksumIsNotHashed announces a CRC-32C alone.
func TestKnownChecksumIsNotHashed(t *testing.T) {
	server := s3test.Start(t)
	data := pattern(16 * mib)
	crc := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	sum := sha256.Sum256(data)
	for checksums, want := range map[s3bucket.Checksums][2]string{
		s3bucket.ChecksumsAuto: {hexOf(sum[:]), ""},
		s3bucket.ChecksumsOn:   {"UNSIGNED-PAYLOAD", base64.StdEncoding.EncodeToString(crc)},
	} {
		var header http.Header
		w := &wire{fault: func(_ int, req *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
			header = req.Header.Clone()
			return nil, nil
		}}
		client := server.Client(func(o *s3.Options) { o.HTTPClient = w })
		b := s3bucket.New(client, server.Bucket, &s3bucket.Options{Checksums: checksums})
		if err := b.Put(t.Context(), "key", bytes.NewReader(data), &storage.PutOptions{CRC32C: crc}); err != nil {
			t.Fatal(err)
		}
		if len(w.seen) != 1 || w.seen[0] != "PUT" {
			t.Fatalf("requests %q", w.seen)
		}
		if got := [2]string{header.Get("X-Amz-Content-Sha256"), header.Get("X-Amz-Checksum-Crc32c")}; got != want {
			t.Errorf("announced %q, want %q", got, want)
		}
		err := b.Put(t.Context(), "key", bytes.NewReader(data[1:]), &storage.PutOptions{CRC32C: crc})
		if !errors.Is(err, storage.ErrMismatch) {
			t.Errorf("another body: %v", err)
		}
	}
}

func TestKnownDigestIsOneSignedRequest(t *testing.T) {
	server := s3test.Start(t)
	data := pattern(16 * mib) // one part of the default size, to the byte
	sum := sha256.Sum256(data)
	for checksums, sent := range map[s3bucket.Checksums]bool{s3bucket.ChecksumsAuto: false, s3bucket.ChecksumsOn: true} {
		var header http.Header
		w := &wire{fault: func(_ int, req *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
			header = req.Header.Clone()
			return nil, nil
		}}
		client := server.Client(func(o *s3.Options) { o.HTTPClient = w })
		b := s3bucket.New(client, server.Bucket, &s3bucket.Options{Checksums: checksums})
		if err := b.Put(t.Context(), "key", bytes.NewReader(data), &storage.PutOptions{SHA256: sum[:]}); err != nil {
			t.Fatal(err)
		}
		if len(w.seen) != 1 || w.seen[0] != "PUT" {
			t.Fatalf("requests %q", w.seen)
		}
		if got := header.Get("X-Amz-Content-Sha256"); got != hexOf(sum[:]) {
			t.Errorf("signed with %s", got)
		}
		if got := header.Get("X-Amz-Checksum-Sha256"); (got != "") != sent {
			t.Errorf("checksum %q", got)
		}
		err := b.Put(t.Context(), "key", bytes.NewReader(data[1:]), &storage.PutOptions{SHA256: sum[:]})
		if !errors.Is(err, storage.ErrMismatch) {
			t.Errorf("another body: %v", err)
		}
		if got := header.Get("X-Amz-Content-Sha256"); got != hexOf(sum[:]) {
			t.Errorf("another body: the digest was computed, %s", got)
		}
	}
}
