package modalemu

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/bucket"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// awsRegion is where a bucket is whose secret does not say.
	awsRegion = "us-east-1"
	// googleEndpoint is where Google's buckets speak S3.
	googleEndpoint = "https://storage.googleapis.com"
)

// bucketConfig checks how a bucket is to be mounted.
func (s *Server) bucketConfig(m *pb.CloudBucketMount) (*bucket.Config, error) {
	cfg := &bucket.Config{
		Bucket: m.GetBucketName(), Prefix: m.GetKeyPrefix(), Endpoint: m.GetBucketEndpointUrl(), Region: awsRegion,
		PathStyle: m.GetForcePathStyle(), RequesterPays: m.GetRequesterPays(), ReadOnly: m.GetReadOnly(), Log: s.log,
	}
	if m.GetOidcAuthRoleArn() != "" {
		return nil, refused("bucket %s cannot be mounted with a role: nobody trusts the identity tokens of this server", cfg.Bucket)
	}
	if cfg.Bucket == "" {
		return nil, invalid("a bucket needs a name")
	}
	if at, err := url.Parse(cfg.Endpoint); cfg.Endpoint != "" && (err != nil || at.Host == "") {
		return nil, invalid("bucket endpoint %q is no URL", cfg.Endpoint)
	}
	if p := cfg.Prefix; p != "" && p[len(p)-1] != '/' {
		return nil, invalid("key prefix %q must end in a '/'", p)
	}
	id, key := "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
	if m.GetBucketType() == pb.CloudBucketMount_GCP {
		id, key = "GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET"
		if cfg.Endpoint == "" {
			cfg.Endpoint = googleEndpoint
		}
	}
	if m.GetCredentialsSecretId() == "" {
		return cfg, nil
	}
	values, err := s.secretValues(m.GetCredentialsSecretId())
	if err != nil {
		return nil, err
	}
	if values[id] == "" || values[key] == "" {
		return nil, invalid("the secret of bucket %s needs %s and %s", cfg.Bucket, id, key)
	}
	if region := values["AWS_REGION"]; region != "" {
		cfg.Region = region
	}
	cfg.Credentials = aws.CredentialsProvider(credentials.NewStaticCredentialsProvider(values[id], values[key], values["AWS_SESSION_TOKEN"]))
	return cfg, nil
}

// bucketMount is a bucket as a container has it.
type bucketMount struct{ *bucket.Mount }

// Reload does nothing: what is in the bucket is seen at once.
func (bucketMount) Reload(context.Context) error { return nil }

// mountBucket mounts a bucket for a container, which closes it.
func (s *Server) mountBucket(ctx context.Context, c *container, m *pb.CloudBucketMount) (driver.Mount, error) {
	cfg, err := s.bucketConfig(m)
	if err != nil {
		return driver.Mount{}, err
	}
	dir, err := os.MkdirTemp(c.task.dir, "bucket-")
	if err != nil {
		return driver.Mount{}, err
	}
	mount, err := bucket.Open(ctx, cfg, dir)
	switch {
	case errors.Is(err, bucket.ErrUnsupported):
		return driver.Mount{}, refused("%v", err)
	case errors.Is(err, driver.ErrInvalid):
		return driver.Mount{}, invalid("bucket %s cannot be mounted at %s: %v", cfg.Bucket, m.GetMountPath(), err)
	case err != nil:
		return driver.Mount{}, err
	}
	c.volumes = append(c.volumes, bucketMount{mount})
	if !cfg.ReadOnly && !mount.Writable() {
		return driver.Mount{}, refused("bucket %s can be mounted for reading only: writing takes Linux 6.12", cfg.Bucket)
	}
	return driver.Mount{Source: mount.Dir(), Target: path.Clean(m.GetMountPath()), Writable: !cfg.ReadOnly}, nil
}

// sweepBuckets takes away what a server that was killed has left mounted in the
// spool directory.
func (s *Server) sweepBuckets() error {
	left, err := filepath.Glob(filepath.Join(s.spoolDir(), "*", "bucket-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := bucket.Sweep(dir); err != nil {
			return fmt.Errorf("unmount what is left at %s: %w", dir, err)
		}
	}
	return nil
}
