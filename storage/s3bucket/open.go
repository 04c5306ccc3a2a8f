package s3bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Config says where a bucket is and who asks. Printed or logged it shows no
// secret.
type Config struct {
	// Endpoint is the server's URL, such as "http://127.0.0.1:7070". It must not
	// hold a user or a password. Zero: Amazon S3, or what the AWS environment and
	// configuration files say.
	Endpoint string
	// Region is the region that requests are signed for. Zero: what the AWS
	// environment and configuration files say, or else "us-east-1".
	Region string
	// AccessKeyID and SecretAccessKey are static credentials; either both or none
	// are set. Zero: the default AWS chain (environment, files, roles).
	AccessKeyID     string
	SecretAccessKey string
	// SessionToken belongs to temporary static credentials. Zero: none.
	SessionToken string
	// VirtualHost addresses the bucket as a part of the host's name, also on an
	// Endpoint of one's own. Zero: as a part of the path there, and as a part of the
	// name on Amazon S3.
	VirtualHost bool
}

// Open gives the bucket called name on the server that cfg describes. It may read
// AWS configuration files, and does not go to the server. Nil cfg and opts mean
// the defaults given with their fields. A cfg that contradicts itself gives an
// error that matches fs.ErrInvalid.
//
// A request is given up, and sent again up to twice, when the server cannot be
// reached for 30 seconds (less in some modes of the AWS configuration), or for two minutes takes nothing of the request or does
// not begin to answer it. An answer that stops in its middle is waited for until
// the context of the call ends.
func Open(ctx context.Context, name string, cfg *Config, opts *Options) (*Bucket, error) {
	return open(ctx, name, cfg, opts, answerTime)
}

func open(ctx context.Context, name string, cfg *Config, opts *Options, limit time.Duration) (*Bucket, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	if err := cfg.check(name); err != nil {
		return nil, err
	}
	load := []func(*config.LoadOptions) error{config.WithDefaultRegion("us-east-1")}
	if cfg.Region != "" {
		load = append(load, config.WithRegion(cfg.Region))
	}
	if cfg.AccessKeyID != "" {
		static := credentials.NewStaticCredentialsProvider(cfg.AccessKeyID, cfg.SecretAccessKey, cfg.SessionToken)
		load = append(load, config.WithCredentialsProvider(static))
	}
	loaded, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("s3bucket: %w", err)
	}
	client := s3.NewFromConfig(loaded, impatient(limit), func(o *s3.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
		o.UsePathStyle = o.BaseEndpoint != nil && !isAWS(*o.BaseEndpoint) && !cfg.VirtualHost
	})
	b := New(client, name, opts)
	return b, b.err
}

func (c *Config) check(name string) error {
	var why string
	switch {
	case name == "":
		why = "the bucket's name is empty"
	case (c.AccessKeyID == "") != (c.SecretAccessKey == ""):
		why = "only one of AccessKeyID and SecretAccessKey is set"
	case c.SessionToken != "" && c.AccessKeyID == "":
		why = "SessionToken is set without AccessKeyID"
	case c.Endpoint != "":
		why = endpointFault(c.Endpoint)
	}
	if why != "" {
		return fmt.Errorf("s3bucket: %s: %w", why, fs.ErrInvalid)
	}
	return nil
}

// endpointFault never repeats the endpoint, which may hold a password.
func endpointFault(endpoint string) string {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "Endpoint is not a URL"
	case u.User != nil:
		return "Endpoint holds a user or a password; use AccessKeyID and SecretAccessKey"
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "Endpoint is not of the form http://HOST or https://HOST"
	case u.RawQuery != "" || u.Fragment != "":
		return "Endpoint has a query or a fragment"
	}
	return ""
}

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

// String describes c without its secrets.
func (c Config) String() string {
	return fmt.Sprintf("{endpoint %q, region %q, access key %q}", c.safeEndpoint(), c.Region, c.AccessKeyID)
}

// GoString is String, for %#v.
func (c Config) GoString() string { return "s3bucket.Config" + c.String() }

// LogValue is c without its secrets.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("endpoint", c.safeEndpoint()),
		slog.String("region", c.Region),
		slog.String("access_key_id", c.AccessKeyID))
}

func (c Config) safeEndpoint() string {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}
