package s3bucket

import (
	"context"
	"encoding/base64"
	"encoding/hex"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
)

// digest makes a request be signed with the known digest of its body, which the
// SDK then does not read to hash it, and sends the digest as a checksum too where
// the bucket uses those. A nil digest changes nothing.
func (b *Bucket) digest(field **string, digest []byte) func(*s3.Options) {
	if digest == nil {
		return func(*s3.Options) {}
	}
	if b.checksums {
		*field = checksum(digest)
	}
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(payloadHash(hex.EncodeToString(digest)), middleware.Before)
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
