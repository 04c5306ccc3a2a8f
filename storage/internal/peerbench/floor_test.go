package peerbench

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

// tarball is the floor: what does the least for the same bytes. A tree is one tar
// through zstd -1 in one multipart upload, and one download.
type tarball struct{ g *ground }

func (f *tarball) key(t *tree) *string { return aws.String("floor/" + t.name + ".tar.zst") }

func (f *tarball) fresh(ctx context.Context, t *tree) error { return f.g.empty(ctx, *f.key(t)) }

func (f *tarball) sync(ctx context.Context, t *tree) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", `tar -c -C "$1" . | zstd -q -1`, "sh", t.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = f.upload(ctx, f.key(t), out)
	if err != nil {
		_ = cmd.Process.Kill() // it would wait for its reader
	}
	return errors.Join(err, cmd.Wait())
}

const floorPart, floorAtOnce = 16 << 20, 4

// upload sends a stream in parts, some at once.
func (f *tarball) upload(ctx context.Context, key *string, r io.Reader) error {
	client := f.g.client()
	made, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &f.g.server.Bucket, Key: key})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var parts []types.CompletedPart
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(floorAtOnce)
	var readErr error
	for number := int32(1); readErr == nil && groupCtx.Err() == nil; number++ {
		part := make([]byte, floorPart)
		var n int
		if n, readErr = io.ReadFull(r, part); n == 0 {
			break
		}
		group.Go(func() error {
			done, err := client.UploadPart(groupCtx, &s3.UploadPartInput{
				Bucket: &f.g.server.Bucket, Key: key, UploadId: made.UploadId, PartNumber: &number, Body: bytes.NewReader(part[:n]),
			})
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			parts = append(parts, types.CompletedPart{ETag: done.ETag, PartNumber: &number})
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if readErr != io.EOF && readErr != io.ErrUnexpectedEOF {
		return readErr
	}
	slices.SortFunc(parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	_, err = client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &f.g.server.Bucket, Key: key, UploadId: made.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}

func (f *tarball) restore(ctx context.Context, t *tree, out string) error {
	got, err := f.g.client().GetObject(ctx, &s3.GetObjectInput{Bucket: &f.g.server.Bucket, Key: f.key(t)})
	if err != nil {
		return err
	}
	defer got.Body.Close()
	return here{}.Run(ctx, got.Body, nil, "sh", "-c", `zstd -q -d -c | tar -x -C "$1"`, "sh", out)
}
