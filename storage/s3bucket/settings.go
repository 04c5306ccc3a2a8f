package s3bucket

import (
	"crypto/md5" // the protocol's check of a key's transport
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Encryption says how the server encrypts what is put. The zero value leaves it to
// the bucket's own default, which on Amazon S3 is SSE-S3. A server that does not
// know it may ignore it silently. What the server must not be able to read is sealed
// on this side instead, with storage.Sealed.
type Encryption struct {
	// Mode is the way. Zero: the bucket's default, or SSE-C where CustomerKey is set.
	Mode EncryptionMode
	// KMSKeyID is the key of EncryptKMS or EncryptKMSTwice. Zero: the account's
	// own for S3.
	KMSKeyID string
	// KMSContext goes with each use of the key, and into its audit log. Zero: none.
	KMSContext map[string]string
	// CustomerKey is a key of 32 bytes for SSE-C: the server encrypts with it and
	// forgets it, so that each request has to bring it. It is sent only over TLS,
	// or to a loopback address. Zero: no SSE-C.
	CustomerKey Key
}

// EncryptionMode is a way of encryption by the server.
type EncryptionMode string

// The ways, by the words of S3's header x-amz-server-side-encryption.
const (
	EncryptS3       EncryptionMode = "AES256"       // SSE-S3: with keys of the server
	EncryptKMS      EncryptionMode = "aws:kms"      // SSE-KMS: with a key in the key service
	EncryptKMSTwice EncryptionMode = "aws:kms:dsse" // DSSE-KMS: in two layers
)

// Key is a secret that shows itself to nobody who prints or logs it.
type Key []byte

const redacted = "[secret]"

// Format implements fmt.Formatter, for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue implements slog.LogValuer.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, so that JSON does not show it.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// maxTags is S3's.
const maxTags = 10

func (e *Encryption) check(endpoint *string) error {
	kms := e.Mode == EncryptKMS || e.Mode == EncryptKMSTwice
	var why string
	switch {
	case e.Mode != "" && e.Mode != EncryptS3 && !kms:
		why = fmt.Sprintf("encryption mode %q is none of AES256, aws:kms and aws:kms:dsse", e.Mode)
	case !kms && (e.KMSKeyID != "" || e.KMSContext != nil):
		why = "KMSKeyID and KMSContext need the mode EncryptKMS or EncryptKMSTwice"
	case e.CustomerKey == nil:
	case e.Mode != "":
		why = "CustomerKey excludes another mode of encryption"
	case len(e.CustomerKey) != 32:
		why = fmt.Sprintf("CustomerKey has %d bytes, not 32", len(e.CustomerKey))
	case !private(endpoint):
		why = "CustomerKey would be sent in the clear; use an endpoint with https"
	}
	if why != "" {
		return fmt.Errorf("s3bucket: %s: %w", why, fs.ErrInvalid)
	}
	return nil
}

// private reports whether nobody on the way can read what is sent to an endpoint.
func private(endpoint *string) bool {
	if endpoint == nil {
		return true // Amazon's, by https
	}
	u, err := url.Parse(*endpoint)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// settings are the parts of requests that Options ask for, nil where they do not.
type settings struct {
	sse                        types.ServerSideEncryption
	kmsKey, kmsContext         *string
	customer, customerKey, sum *string
	class                      types.StorageClass
	tags                       *string
	payer                      types.RequestPayer
}

func (o *Options) settings() (s settings, err error) {
	s.sse = types.ServerSideEncryption(o.Encryption.Mode)
	s.kmsKey = optional(o.Encryption.KMSKeyID)
	if o.Encryption.KMSContext != nil {
		text, err := json.Marshal(o.Encryption.KMSContext)
		if err != nil {
			return s, err
		}
		s.kmsContext = aws.String(base64.StdEncoding.EncodeToString(text))
	}
	if key := o.Encryption.CustomerKey; key != nil {
		sum := md5.Sum(key)
		s.customer = aws.String("AES256")
		s.customerKey = aws.String(base64.StdEncoding.EncodeToString(key))
		s.sum = aws.String(base64.StdEncoding.EncodeToString(sum[:]))
	}
	s.class = types.StorageClass(o.StorageClass)
	if len(o.Tags) > 0 {
		values := url.Values{}
		for name, value := range o.Tags {
			values.Set(name, value)
		}
		s.tags = aws.String(strings.ReplaceAll(values.Encode(), "+", "%20"))
	}
	if o.RequesterPays {
		s.payer = types.RequestPayerRequester
	}
	return s, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (s *settings) put(in *s3.PutObjectInput) *s3.PutObjectInput {
	in.ServerSideEncryption, in.SSEKMSKeyId, in.SSEKMSEncryptionContext = s.sse, s.kmsKey, s.kmsContext
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = s.customer, s.customerKey, s.sum
	in.StorageClass, in.Tagging, in.RequestPayer = s.class, s.tags, s.payer
	return in
}

func (s *settings) create(in *s3.CreateMultipartUploadInput) *s3.CreateMultipartUploadInput {
	in.ServerSideEncryption, in.SSEKMSKeyId, in.SSEKMSEncryptionContext = s.sse, s.kmsKey, s.kmsContext
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = s.customer, s.customerKey, s.sum
	in.StorageClass, in.Tagging, in.RequestPayer = s.class, s.tags, s.payer
	return in
}

func (s *settings) part(in *s3.UploadPartInput) *s3.UploadPartInput {
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = s.customer, s.customerKey, s.sum
	in.RequestPayer = s.payer
	return in
}

func (s *settings) complete(in *s3.CompleteMultipartUploadInput) *s3.CompleteMultipartUploadInput {
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = s.customer, s.customerKey, s.sum
	in.RequestPayer = s.payer
	return in
}

func (s *settings) get(in *s3.GetObjectInput) *s3.GetObjectInput {
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = s.customer, s.customerKey, s.sum
	in.RequestPayer = s.payer
	return in
}

func (s *settings) head(in *s3.HeadObjectInput) *s3.HeadObjectInput {
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = s.customer, s.customerKey, s.sum
	in.RequestPayer = s.payer
	return in
}
