package main

import (
	"context"
	"fmt"
	"os"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/dirbucket"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

// volumes opens what clients name: in a directory of this server, or in an S3
// bucket of their own. Whoever may use this server may make it connect to the
// endpoint they name; one for strangers would refuse that.
type volumes struct{ dir *dirbucket.Bucket }

func openVolumes(dir string) (*volumes, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b, err := dirbucket.Open(dir, nil)
	if err != nil {
		return nil, err
	}
	return &volumes{dir: b}, nil
}

func (v *volumes) Close() error { return v.dir.Close() }

func (v *volumes) open(ctx context.Context, _ string, req sandboxhttp.VolumeRequest) (*storage.Volume, error) {
	if req.S3 == nil {
		return storage.NewVolume(v.dir, req.Key, nil), nil
	}
	if req.S3.AccessKeyID.Reveal() == "" || req.S3.SecretAccessKey.Reveal() == "" {
		// Otherwise a client could use this server's own AWS credentials.
		return nil, fmt.Errorf("%w: s3: give access_key_id and secret_access_key", sandbox.ErrInvalid)
	}
	b, err := s3bucket.Open(ctx, req.S3.Bucket, &s3bucket.Config{
		Endpoint: req.S3.Endpoint, Region: req.S3.Region,
		AccessKeyID: req.S3.AccessKeyID.Reveal(), SecretAccessKey: req.S3.SecretAccessKey.Reveal(),
	}, &s3bucket.Options{Prefix: req.S3.Prefix})
	if err != nil {
		return nil, fmt.Errorf("%w: s3: %w", sandbox.ErrInvalid, err)
	}
	return storage.NewVolume(b, req.Name, nil), nil
}
