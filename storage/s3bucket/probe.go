package s3bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/storage"
)

// Verify asks the server whether the bucket is there and may be used, with one
// request, so that a wrong name, endpoint or key is found early. An absent bucket
// matches fs.ErrNotExist, and a refusal fs.ErrPermission.
func (b *Bucket) Verify(ctx context.Context) error {
	if b.err != nil {
		return b.err
	}
	_, err := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name})
	switch statusOf(err) {
	case 404:
		err = &answer{fs.ErrNotExist, err}
	case 401, 403:
		err = &answer{fs.ErrPermission, err}
	}
	if err != nil {
		return fmt.Errorf("s3bucket: bucket %s: %w", b.name, errors.Join(context.Cause(ctx), err))
	}
	return nil
}

// probePrefix is where Probe puts its object.
const probePrefix = "vivarium-probe/"

// Probe finds out whether the server honours conditional writes, without which
// nothing that is put only if absent is safe from being overwritten. It puts a
// small object under a new key, tries to put it again, and deletes it: three
// requests. Where the server ignores or refuses the condition the error matches
// errors.ErrUnsupported.
func (b *Bucket) Probe(ctx context.Context) error {
	key, ifAbsent := probePrefix+rand.Text(), &storage.PutOptions{IfAbsent: true}
	if err := b.Put(ctx, key, strings.NewReader("probe"), ifAbsent); err != nil {
		return err
	}
	err := b.Put(ctx, key, strings.NewReader("probe"), ifAbsent)
	switch {
	case err == nil:
		err = named("probe", key, errUnconditional)
	case errors.Is(err, fs.ErrExist):
		err = nil
	}
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	return errors.Join(err, b.Delete(cleanup, key))
}

// errUnconditional is a server's lack of what Put with IfAbsent needs.
var errUnconditional = fmt.Errorf("the server has no conditional writes (If-None-Match: * on PutObject and CompleteMultipartUpload), "+
	"which keep versions whole; update it or use one that has them, such as Amazon S3, MinIO or versitygw: %w", errors.ErrUnsupported)
