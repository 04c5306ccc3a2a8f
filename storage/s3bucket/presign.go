package s3bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/storage"
)

var _ storage.Presigner = (*Bucket)(nil)

// maxExpires is the longest that S3 lets a presigned request live.
const maxExpires = 7 * 24 * time.Hour

// PresignGet implements storage.Presigner. expires is from a second to seven days.
func (b *Bucket) PresignGet(ctx context.Context, key string, offset, length int64, expires time.Duration) (*storage.PresignedRequest, error) {
	if err := b.checkPresign(ctx, key, expires); err != nil {
		return nil, err
	}
	if offset < 0 || length == 0 {
		return nil, named("presign get", key, fs.ErrInvalid)
	}
	end := int64(-1)
	if length > 0 && offset+length > 0 {
		end = offset + length
	}
	in := &s3.GetObjectInput{Bucket: &b.name, Key: b.full(key), Range: byteRange(offset, end)}
	began := time.Now()
	signed, err := b.presigner().PresignGetObject(ctx, b.set.get(in), s3.WithPresignExpires(expires))
	if err != nil {
		return nil, named("presign get", key, err)
	}
	return presigned(signed, began.Add(expires)), nil
}

// PresignPut implements storage.Presigner. expires is from a second to seven days,
// and size at most 5 GiB. The digest is in the signed header x-amz-checksum-sha256,
// whatever Options.Checksums says, as the payload of a presigned request has no other
// place in its signature. A server that does not know the header does not refuse other
// bytes; Amazon S3, MinIO and versitygw do know it.
func (b *Bucket) PresignPut(ctx context.Context, key string, size int64, sha256 []byte, expires time.Duration) (*storage.PresignedRequest, error) {
	if err := b.checkPresign(ctx, key, expires); err != nil {
		return nil, err
	}
	announced := &storage.PutOptions{SHA256: sha256, Size: size}
	if err := announced.Check(); err != nil || sha256 == nil || size > maxSingle {
		return nil, named("presign put", key, fs.ErrInvalid)
	}
	in := &s3.PutObjectInput{
		Bucket: &b.name, Key: b.full(key), ContentLength: &size, ChecksumSHA256: checksum(sha256),
	}
	began := time.Now()
	signed, err := b.presigner().PresignPutObject(ctx, b.set.put(in), s3.WithPresignExpires(expires))
	if err != nil {
		return nil, named("presign put", key, err)
	}
	return presigned(signed, began.Add(expires)), nil
}

// maxSingle is the most that one PutObject takes.
const maxSingle = 5 << 30

func (b *Bucket) presigner() *s3.PresignClient { return s3.NewPresignClient(b.client) }

func (b *Bucket) checkPresign(ctx context.Context, key string, expires time.Duration) error {
	if err := b.check(ctx, key); err != nil {
		return err
	}
	if b.opts.Encryption.CustomerKey != nil {
		return fmt.Errorf("s3bucket: presign with SSE-C, which would give the key away; use another Encryption: %w", errors.ErrUnsupported)
	}
	if expires < time.Second || expires > maxExpires {
		return fmt.Errorf("s3bucket: presign for %v, not from a second to seven days: %w", expires, fs.ErrInvalid)
	}
	return nil
}

// presigned leaves out the headers that every HTTP client sends by itself.
func presigned(signed *v4.PresignedHTTPRequest, expires time.Time) *storage.PresignedRequest {
	header := http.Header{}
	for name, values := range signed.SignedHeader {
		if name != "Host" && name != "Content-Length" {
			header[name] = values
		}
	}
	return &storage.PresignedRequest{Method: signed.Method, URL: signed.URL, Header: header, Expires: expires.UTC()}
}

// byteRange is the header for the bytes from offset to before end, or to the last
// where end is negative. Nil: all of them.
func byteRange(offset, end int64) *string {
	switch {
	case end >= 0:
		return aws.String(fmt.Sprintf("bytes=%d-%d", offset, end-1))
	case offset > 0:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return nil
}
