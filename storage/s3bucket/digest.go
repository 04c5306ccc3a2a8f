package s3bucket

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/vivarium-go/vivarium/storage"
)

// unsigned is what a signature says of a body that it does not cover.
const unsigned = "UNSIGNED-PAYLOAD"

// announce makes a request say what is known of its body. With a SHA-256 it is
// signed, so that the SDK does not read the body to hash it, and that is sent as a
// checksum too where the bucket uses those. With a CRC-32C alone, and where the
// bucket uses checksums, that is sent instead, and nobody hashes the body.
func (u *upload) announce(in *s3.PutObjectInput) func(*s3.Options) {
	sends := u.bucket.checksums
	switch {
	case u.sha256 != nil:
		if sends {
			in.ChecksumSHA256 = checksum(u.sha256)
		}
		return signedWith(hex.EncodeToString(u.sha256))
	case u.crc != nil && sends:
		in.ChecksumCRC32C = checksum(u.crc)
		return signedWith(unsigned)
	}
	return func(*s3.Options) {}
}

// compare compares a body with the CRC-32C that was announced, where the server
// is not told that.
func (u *upload) compare(body *bytes.Reader) error {
	if u.crc == nil || u.bucket.checksums && u.sha256 == nil {
		return nil
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	start := body.Size() - int64(body.Len())
	if _, err := body.WriteTo(sum); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), u.crc) {
		return fmt.Errorf("other bytes than announced: %w", storage.ErrMismatch)
	}
	_, err := body.Seek(start, io.SeekStart)
	return err
}

func signedWith(payload string) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(payloadHash(payload), middleware.Before)
		})
	}
}

// payloadHash tells the signer the hash, before it or the checksums look for it.
func payloadHash(sum string) middleware.InitializeMiddleware {
	return middleware.InitializeMiddlewareFunc("KnownPayloadHash",
		func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
			return next.HandleInitialize(v4.SetPayloadHash(ctx, sum), in)
		})
}

// checksum is a digest as S3's headers have it.
func checksum(digest []byte) *string { return aws.String(base64.StdEncoding.EncodeToString(digest)) }

// partSum is the checksum of the parts of an upload, which the upload must name
// before and list after. Zero: none.
func (b *Bucket) partSum() types.ChecksumAlgorithm {
	if b.checksums {
		return types.ChecksumAlgorithmCrc32
	}
	return ""
}
