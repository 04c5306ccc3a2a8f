package s3bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/vivarium-go/vivarium/storage"
)

// nonceField is the metadata field in which an object carries the random text of
// the Put that made it. By it a Put whose answer was lost, and whose repetition
// was therefore refused, knows its own object.
const nonceField = "vivarium-put"

// conflicts is how often a request is sent again that met another on the same key
// (409 ConditionalRequestConflict).
const conflicts = 6

// cleanupTime bounds clean-up, which goes on when the caller's context has ended.
const cleanupTime = 30 * time.Second

// Put implements storage.Bucket. What fits into one part goes in one request, and
// anything larger as a multipart upload, which is aborted when it fails. If even
// that cannot be done (the process dies), the parts stay until the bucket's
// lifecycle rule for unfinished uploads removes them.
//
// The bytes of a *bytes.Reader that fit into one part are sent without copying
// them. With a SHA256 in opts a request of one part is signed with it, so that
// the server refuses any other body, and nothing is hashed here; of a larger body
// the digest is computed on the way, and it is aborted where it differs. With a
// CRC32C alone, and Options.Checksums in use, the server compares that, and the
// signature leaves the body out; else it covers it.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	if err := b.check(ctx, key); err != nil {
		return err
	}
	if err := opts.Check(); err != nil {
		return named("put", key, err)
	}
	up := &upload{bucket: b, key: key, nonce: rand.Text()}
	if opts != nil {
		up.sha256, up.crc, up.size = opts.SHA256, opts.CRC32C, opts.Size
	}
	if opts != nil && opts.IfAbsent {
		up.ifNoneMatch = aws.String("*")
	}
	if err := up.send(ctx, r); err != nil {
		if up.ifNoneMatch != nil && (statusOf(err) == 501 || codeOf(err) == "NotImplemented") {
			err = fmt.Errorf("%w: %w", errUnconditional, err)
		}
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = errors.Join(cause, err)
		}
		return named("put", key, err)
	}
	return nil
}

// upload is one Put.
type upload struct {
	bucket      *Bucket
	key         string
	nonce       string
	ifNoneMatch *string
	sha256      []byte // nil: not known
	crc         []byte // CRC-32C; nil: not known
	size        int64  // 0: not known
}

func (u *upload) metadata() map[string]string { return map[string]string{nonceField: u.nonce} }

func (u *upload) send(ctx context.Context, r io.Reader) error {
	if whole, ok := r.(*bytes.Reader); ok && int64(whole.Len()) <= u.bucket.opts.PartSize {
		return u.single(ctx, whole)
	}
	first, err := u.firstPart(r)
	switch {
	case err == io.EOF: // a wrapped io.EOF is a broken stream
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return u.single(ctx, bytes.NewReader(first))
	case err != nil:
		return err
	}
	announced := &storage.PutOptions{SHA256: u.sha256, CRC32C: u.crc, Size: u.size}
	return u.multipart(ctx, announced.Body(&replayed{first, r}), first[:u.bucket.opts.PartSize])
}

// firstPart reads up to a part of r. It returns io.EOF when that was all.
func (u *upload) firstPart(r io.Reader) ([]byte, error) {
	var first bytes.Buffer // grows, as most objects are small
	most := u.bucket.opts.PartSize
	if u.size > 0 {
		first.Grow(int(min(u.size, most)) + bytes.MinRead)
	}
	_, err := io.CopyN(&first, r, most+1) // one more, to see the end of a whole part
	return first.Bytes(), err
}

// replayed is a stream of which a beginning was read.
type replayed struct {
	head []byte
	rest io.Reader
}

func (r *replayed) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.rest.Read(p)
}

// single sends the whole body in one request.
func (u *upload) single(ctx context.Context, body *bytes.Reader) error {
	if u.size > 0 && u.size != int64(body.Len()) {
		return fmt.Errorf("%d bytes that were to be %d: %w", body.Len(), u.size, storage.ErrMismatch)
	}
	if err := u.compare(body); err != nil {
		return err
	}
	return u.commit(ctx, func(ctx context.Context) error { return u.putObject(ctx, body) })
}

func (u *upload) putObject(ctx context.Context, body *bytes.Reader) error {
	in := &s3.PutObjectInput{
		Bucket: &u.bucket.name, Key: u.bucket.full(u.key),
		Body: body, ContentLength: aws.Int64(int64(body.Len())),
		IfNoneMatch: u.ifNoneMatch, Metadata: u.metadata(),
	}
	start := body.Size() - int64(body.Len())
	_, err := u.bucket.client.PutObject(ctx, u.bucket.set.put(in), u.announce(in))
	if _, seekErr := body.Seek(start, io.SeekStart); seekErr != nil { // for a repetition
		return errors.Join(err, seekErr)
	}
	return err
}

// commit does the request that makes the object visible. The SDK repeats it when
// an answer is lost; the repetition is then refused because of what the first one
// did.
func (u *upload) commit(ctx context.Context, request func(context.Context) error) error {
	for n := 1; ; n++ {
		err := request(ctx)
		switch {
		case err == nil:
			return nil
		case statusOf(err) == 409 && n <= conflicts:
			if err := wait(ctx, n); err != nil {
				return err
			}
		case statusOf(err) == 412 || codeOf(err) == "NoSuchUpload":
			if own, headErr := u.stored(ctx); headErr != nil {
				return errors.Join(err, fmt.Errorf("read back: %w", headErr))
			} else if own {
				return nil
			}
			return err
		default:
			return err
		}
	}
}

// stored reports whether the object under the key is the one of this Put.
func (u *upload) stored(ctx context.Context) (bool, error) {
	head, err := u.bucket.head(ctx, u.key)
	if statusOf(err) == 404 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return head.Metadata[nonceField] == u.nonce, nil
}

// multipart sends everything r gives. spare is the first buffer of a part: the
// first part is in it already, as what r begins with, and so copied onto itself.
func (u *upload) multipart(ctx context.Context, r io.Reader, spare []byte) error {
	created, err := u.bucket.client.CreateMultipartUpload(ctx, u.bucket.set.create(&s3.CreateMultipartUploadInput{
		Bucket: &u.bucket.name, Key: u.bucket.full(u.key), Metadata: u.metadata(), ChecksumAlgorithm: u.bucket.partSum(),
	}))
	if err != nil {
		return err
	}
	parts, err := u.sendParts(ctx, created.UploadId, r, spare)
	if err == nil {
		err = u.commit(ctx, func(ctx context.Context) error { return u.complete(ctx, created.UploadId, parts) })
	}
	if err != nil {
		return errors.Join(err, u.abort(ctx, created.UploadId))
	}
	return nil
}

func (u *upload) complete(ctx context.Context, id *string, parts []types.CompletedPart) error {
	_, err := u.bucket.client.CompleteMultipartUpload(ctx, u.bucket.set.complete(&s3.CompleteMultipartUploadInput{
		Bucket: &u.bucket.name, Key: u.bucket.full(u.key), UploadId: id, IfNoneMatch: u.ifNoneMatch,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}))
	return err
}

// abort gives up an upload, so that its parts are not kept and charged for.
func (u *upload) abort(ctx context.Context, id *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	_, err := u.bucket.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: &u.bucket.name, Key: u.bucket.full(u.key), UploadId: id, RequestPayer: u.bucket.set.payer,
	})
	if err != nil && codeOf(err) != "NoSuchUpload" {
		return fmt.Errorf("abort upload: %w", err)
	}
	return nil
}

// sendParts sends parts as they are read, a few at once. Buffers are used again,
// so there are never more than Parallel+1 of them.
func (u *upload) sendParts(ctx context.Context, id *string, r io.Reader, spare []byte) ([]types.CompletedPart, error) {
	g, ctx := errgroup.WithContext(ctx)
	free := make(chan []byte, u.bucket.opts.Parallel+1)
	free <- spare
	for range cap(free) - 1 {
		free <- nil // made when first needed
	}
	var parts []*types.CompletedPart
	submit := func(data []byte) {
		part := &types.CompletedPart{PartNumber: aws.Int32(int32(len(parts) + 1))}
		parts = append(parts, part)
		g.Go(func() error {
			err := u.sendPart(ctx, id, part, data)
			free <- data[:cap(data)]
			return err
		})
	}
	readErr := u.readParts(ctx, r, free, func(data []byte) error {
		if len(parts) == maxParts {
			return fmt.Errorf("object is larger than %d parts of %d bytes; use a larger PartSize", maxParts, u.bucket.opts.PartSize)
		}
		submit(data)
		return nil
	})
	if err := g.Wait(); err != nil && (readErr == nil || errors.Is(readErr, context.Canceled)) {
		return nil, err
	}
	done := make([]types.CompletedPart, len(parts))
	for i, part := range parts {
		done[i] = *part
	}
	return done, readErr
}

// readParts cuts r into parts. It takes a free buffer for each.
func (u *upload) readParts(ctx context.Context, r io.Reader, free <-chan []byte, submit func([]byte) error) error {
	for {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if int64(cap(buf)) < u.bucket.opts.PartSize {
			buf = make([]byte, u.bucket.opts.PartSize)
		}
		n, err := fill(buf[:u.bucket.opts.PartSize], r)
		if err != nil && err != io.EOF { // a wrapped io.EOF is a broken stream
			return err
		}
		if n > 0 {
			if err := submit(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return context.Cause(ctx)
		}
	}
}

// fill reads until p is full or r ends. Unlike io.ReadFull it keeps r's own
// io.ErrUnexpectedEOF, a broken stream, apart from the end of a whole one.
func fill(p []byte, r io.Reader) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

func (u *upload) sendPart(ctx context.Context, id *string, part *types.CompletedPart, data []byte) error {
	out, err := u.bucket.client.UploadPart(ctx, u.bucket.set.part(&s3.UploadPartInput{
		Bucket: &u.bucket.name, Key: u.bucket.full(u.key), UploadId: id, PartNumber: part.PartNumber,
		Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))), ChecksumAlgorithm: u.bucket.partSum(),
	}))
	if err != nil {
		return fmt.Errorf("part %d: %w", *part.PartNumber, err)
	}
	part.ETag, part.ChecksumCRC32 = out.ETag, out.ChecksumCRC32
	return nil
}
