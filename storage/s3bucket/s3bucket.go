// Package s3bucket keeps a storage.Bucket in Amazon S3 or in anything that speaks
// its protocol: MinIO, versitygw, Cloudflare R2, Ceph, and others.
//
// The server must honour "If-None-Match: *" on PutObject and on
// CompleteMultipartUpload (Amazon S3 does since 2024), as that is what makes a
// version of a volume whole or absent. One that refuses the header gives an error
// that matches errors.ErrUnsupported. One that ignores it loses the promise silently;
// [Bucket.Probe] and storagetest.Exercise find out.
package s3bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/storage"
)

// Options change how a Bucket works. The zero value, like nil, means the defaults
// given with each field.
type Options struct {
	// Prefix is put before every key, for several users of one bucket. It is
	// taken as it is, so it usually ends in a slash. Zero: none.
	Prefix string
	// PartSize is how many bytes of a large object are sent at a time, at least
	// 5 MiB. An object can have 10,000 parts. Zero: 16 MiB, for objects of up to
	// 156 GiB.
	PartSize int64
	// Parallel is how many parts of one object are sent at once. A Put holds up
	// to Parallel+1 parts in memory. Zero: 4.
	Parallel int
	// Encryption is by the server. Zero: the bucket's default.
	Encryption Encryption
	// StorageClass is the class of what is put, such as "STANDARD_IA". Zero: the
	// server's default. A class that has to be thawed before it can be read will not do.
	StorageClass string
	// Tags go on what is put, at most ten. Zero: none.
	Tags map[string]string
	// RequesterPays agrees to pay for requests on a bucket of someone else's. Zero:
	// requests on such a bucket are refused by the server.
	RequesterPays bool
	// Checksums says whether x-amz-checksum-* headers are used. Zero: on Amazon S3.
	Checksums Checksums
	// PageSize is how many keys are listed at a time. Zero: as many as the server
	// likes, which is 1000 on Amazon S3.
	PageSize int32
}

const (
	minPartSize     = 5 << 20
	defaultPartSize = 16 << 20
	defaultParallel = 4
	maxParts        = 10_000
)

// Bucket is a storage.Bucket in S3. It is safe for concurrent use and needs no
// closing. What the server refuses matches fs.ErrPermission; Amazon S3 so refuses
// to say that an object is absent to one who may not list the bucket.
type Bucket struct {
	client *s3.Client
	name   string
	opts   Options
	err    error // bad options; every method returns it

	set       settings
	checksums bool // x-amz-checksum-* are sent
}

var _ storage.Bucket = (*Bucket)(nil)

// New gives the bucket called name, through client. It does not go to the server.
// opts may be nil; bad ones are reported, with
// an error that matches fs.ErrInvalid, by every method.
func New(client *s3.Client, name string, opts *Options) *Bucket {
	b := &Bucket{name: name}
	if opts != nil {
		b.opts = *opts
	}
	endpoint := client.Options().BaseEndpoint
	if b.err = b.opts.complete(endpoint); b.err == nil {
		b.set, b.err = b.opts.settings()
	}
	b.checksums = b.opts.Checksums.on(client.Options())
	b.client = s3.New(client.Options(), func(o *s3.Options) {
		switch {
		case !b.checksums:
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		case b.opts.Checksums == ChecksumsOn:
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenSupported
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
		}
	})
	return b
}

// Checksums says whether the newer checksums of S3 (x-amz-checksum-*) go with
// what is put and are compared with what is got.
type Checksums int

const (
	// ChecksumsAuto uses them, as the client says, on Amazon S3: as ChecksumsOn, with
	// what that says of plain HTTP. On any other endpoint it leaves them out, whatever
	// the client says, as many servers refuse them.
	ChecksumsAuto Checksums = iota
	// ChecksumsOn uses them. A Put in one request of which only a CRC-32C is known,
	// as a volume's packs are, is then signed without its body ("UNSIGNED-PAYLOAD").
	// The signature does cover the checksum, but anyone can make other bytes with the
	// same CRC-32C. So use https: over plain HTTP whoever is in between could change
	// such a body unnoticed until it is read, and ChecksumsOff signs every body.
	ChecksumsOn
	// ChecksumsOff leaves them out where the protocol does not require them. The
	// body of a request without TLS is still covered by its signature, as the
	// SHA-256 in it.
	ChecksumsOff
)

func (c Checksums) on(client s3.Options) bool {
	amazon := client.BaseEndpoint == nil || isAWS(*client.BaseEndpoint)
	wanted := client.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired
	return c == ChecksumsOn || c == ChecksumsAuto && amazon && wanted
}

func (o *Options) complete(endpoint *string) error {
	switch {
	case o.PartSize != 0 && o.PartSize < minPartSize || o.PartSize > 5<<30:
		return fmt.Errorf("s3bucket: part size of %d bytes is not from 5 MiB to 5 GiB: %w", o.PartSize, fs.ErrInvalid)
	case o.Parallel < 0:
		return fmt.Errorf("s3bucket: %d parts at once: %w", o.Parallel, fs.ErrInvalid)
	case o.Checksums < ChecksumsAuto || o.Checksums > ChecksumsOff:
		return fmt.Errorf("s3bucket: checksums %d: %w", o.Checksums, fs.ErrInvalid)
	case o.PageSize < 0:
		return fmt.Errorf("s3bucket: %d keys a page: %w", o.PageSize, fs.ErrInvalid)
	case len(o.Tags) > maxTags:
		return fmt.Errorf("s3bucket: %d tags, more than S3 takes (%d): %w", len(o.Tags), maxTags, fs.ErrInvalid)
	case len(o.Prefix) > 200:
		return fmt.Errorf("s3bucket: prefix is longer than 200 bytes: %w", fs.ErrInvalid)
	}
	if o.PartSize == 0 {
		o.PartSize = defaultPartSize
	}
	if o.Parallel == 0 {
		o.Parallel = defaultParallel
	}
	return o.Encryption.check(endpoint)
}

func isAWS(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

func (b *Bucket) check(ctx context.Context, key string) error {
	if b.err != nil {
		return b.err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return storage.CheckKey(key)
}

func (b *Bucket) full(key string) *string { return aws.String(b.opts.Prefix + key) }

// Stat implements storage.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := b.check(ctx, key); err != nil {
		return storage.Object{}, err
	}
	head, err := b.head(ctx, key)
	if err != nil {
		return storage.Object{}, named("stat", key, err)
	}
	return storage.Object{Key: key, Size: aws.ToInt64(head.ContentLength), Modified: aws.ToTime(head.LastModified).UTC()}, nil
}

func (b *Bucket) head(ctx context.Context, key string) (*s3.HeadObjectOutput, error) {
	return b.client.HeadObject(ctx, b.set.head(&s3.HeadObjectInput{Bucket: &b.name, Key: b.full(key)}))
}

// Delete implements storage.Bucket. In a bucket with versioning it leaves a
// delete marker.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := b.check(ctx, key); err != nil {
		return err
	}
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: b.full(key), RequestPayer: b.set.payer})
	if err = named("delete", key, err); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List implements storage.Bucket.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := errors.Join(b.err, context.Cause(ctx)); err != nil {
			yield(storage.Object{}, err)
			return
		}
		in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: b.full(prefix), RequestPayer: b.set.payer}
		if b.opts.PageSize > 0 {
			in.MaxKeys = &b.opts.PageSize
		}
		pages := s3.NewListObjectsV2Paginator(b.client, in, func(o *s3.ListObjectsV2PaginatorOptions) {
			o.StopOnDuplicateToken = true
		})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield(storage.Object{}, named("list", prefix, err))
				return
			}
			for _, o := range page.Contents {
				key := strings.TrimPrefix(aws.ToString(o.Key), b.opts.Prefix)
				if storage.CheckKey(key) != nil {
					continue // not put through this package: "folders" that end in a slash
				}
				if !yield(storage.Object{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified).UTC()}, nil) {
					return
				}
			}
		}
	}
}

// Get implements storage.Bucket. A stream that breaks is taken up where it broke,
// as long as the object is still the same one.
func (b *Bucket) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.check(ctx, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, named("get", key, fs.ErrInvalid)
	}
	r := &reader{ctx: ctx, bucket: b, key: key, at: offset, end: -1}
	if length == 0 { // there is no such range; the object must exist all the same
		if _, err := b.head(ctx, key); err != nil {
			return nil, named("get", key, err)
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	if length > 0 && offset+length > 0 {
		r.end = offset + length
	}
	err := r.open()
	if statusOf(err) == 416 { // the range starts at the end or after it
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, named("get", key, err)
	}
	return r, nil
}

// reopenings is how often in a row, without a byte between, a broken stream is
// taken up again.
const reopenings = 4

// reader is the stream of a Get.
type reader struct {
	ctx    context.Context // of the Get, which promises to end the stream with it
	bucket *Bucket
	key    string
	at     int64 // the next byte wanted
	end    int64 // the byte after the last, or -1
	etag   *string
	body   io.ReadCloser
	broken int
}

func (r *reader) open() error {
	in := &s3.GetObjectInput{
		Bucket: &r.bucket.name, Key: r.bucket.full(r.key), IfMatch: r.etag, Range: byteRange(r.at, r.end),
	}
	out, err := r.bucket.client.GetObject(r.ctx, r.bucket.set.get(in))
	if err != nil {
		return err
	}
	r.etag, r.body = out.ETag, out.Body
	if out.ContentLength != nil && r.end < 0 {
		r.end = r.at + *out.ContentLength
	}
	return nil
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		n, err := r.body.Read(p)
		r.at += int64(n)
		if n > 0 {
			r.broken = 0
		}
		if err == nil || err == io.EOF || n > 0 && r.ctx.Err() == nil {
			// An error after bytes comes again with the next call.
			if err != io.EOF {
				err = nil
			}
			return n, err
		}
		if cause := context.Cause(r.ctx); cause != nil {
			return n, cause
		}
		if err := r.resume(err); err != nil {
			return n, err
		}
	}
}

// resume opens the rest of a stream that ended with err.
func (r *reader) resume(err error) error {
	r.broken++
	if r.broken > reopenings || r.etag == nil {
		return named("get", r.key, err)
	}
	if err := wait(r.ctx, r.broken); err != nil {
		return err
	}
	_ = r.body.Close() // it is broken already
	if openErr := r.open(); openErr != nil {
		r.body = io.NopCloser(failing{openErr})
		return named("get", r.key, errors.Join(err, openErr))
	}
	return nil
}

// failing is the stream after one that could not be taken up.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (r *reader) Close() error { return r.body.Close() }

// wait pauses before the nth repetition, from a tenth of a second, doubling.
func wait(ctx context.Context, n int) error {
	timer := time.NewTimer(100 * time.Millisecond << min(n-1, 5))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
