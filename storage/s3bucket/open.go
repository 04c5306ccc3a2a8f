package s3bucket

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
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
	// Profile is a profile of the AWS configuration files. Zero: what the AWS
	// environment says, or "default".
	Profile string
	// Role is assumed with the credentials above, and renewed as long as the bucket
	// is used. Nil: those credentials are used themselves.
	Role *Role
	// Attempts is how often a request is sent that fails in a way that may pass:
	// a broken connection, no answer in time, 500, 502, 503 (SlowDown), 504 and the
	// like. Between two attempts there is a pause that grows, up to 20 seconds, and
	// differs by chance.
	// Zero: what the AWS environment says, or else 5.
	Attempts int
	// SessionToken belongs to temporary static credentials. Zero: none.
	SessionToken string
	// VirtualHost addresses the bucket as a part of the host's name, also on an
	// Endpoint of one's own. Zero: as a part of the path there, and as a part of the
	// name on Amazon S3.
	VirtualHost bool
}

// Role is an AWS role to assume, through the Security Token Service (STS).
type Role struct {
	// ARN names the role. It must be set.
	ARN string
	// ExternalID is what the owner of the role wants to be told, where it is in
	// another account. Zero: none.
	ExternalID string
	// SessionName appears in the audit log of the role's owner. Zero: "vivarium".
	SessionName string
	// Duration is how long each set of credentials lasts, from 15 minutes; they are
	// renewed in time. Zero: 15 minutes.
	Duration time.Duration
	// Endpoint is the URL of the token service, without user and password. Zero:
	// Amazon's for the region, or what the AWS environment and configuration files
	// say.
	Endpoint string
}

// defaultAttempts is more patient than the SDK, as a Put may be the end of long work.
const defaultAttempts = 5

// Open gives the bucket called name on the server that cfg describes. It may read
// AWS configuration files, and does not go to the server. Nil cfg and opts mean
// the defaults given with their fields. A cfg that contradicts itself gives an
// error that matches fs.ErrInvalid.
//
// An attempt is given up when the server cannot be reached for 30 seconds (less in
// some modes of the AWS configuration), or for two minutes takes nothing of the
// request or does not begin to answer it. An answer that stops in its middle is
// waited for until the context of the call ends.
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
	loaded, err := cfg.load(ctx)
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

// load is the AWS configuration with c over it.
func (c *Config) load(ctx context.Context) (aws.Config, error) {
	with := []func(*config.LoadOptions) error{config.WithDefaultRegion("us-east-1")}
	if c.Region != "" {
		with = append(with, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		with = append(with, config.WithSharedConfigProfile(c.Profile))
	}
	if c.AccessKeyID != "" {
		static := credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
		with = append(with, config.WithCredentialsProvider(static))
	}
	if c.Attempts > 0 {
		with = append(with, config.WithRetryMaxAttempts(c.Attempts))
	}
	loaded, err := config.LoadDefaultConfig(ctx, with...)
	if err != nil {
		return aws.Config{}, err
	}
	if loaded.RetryMaxAttempts == 0 {
		loaded.RetryMaxAttempts = defaultAttempts
	}
	if c.Role != nil {
		loaded.Credentials = c.Role.assumed(loaded)
	}
	return loaded, nil
}

// assumed gives the credentials of the role, got with those of base.
func (r *Role) assumed(base aws.Config) aws.CredentialsProvider {
	client := sts.NewFromConfig(base, func(o *sts.Options) {
		if r.Endpoint != "" {
			o.BaseEndpoint = &r.Endpoint
		}
	})
	role := stscreds.NewAssumeRoleProvider(client, r.ARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = cmp.Or(r.SessionName, "vivarium")
		o.ExternalID = optional(r.ExternalID)
		o.Duration = r.Duration
	})
	return aws.NewCredentialsCache(role)
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
	case c.Attempts < 0:
		why = fmt.Sprintf("%d attempts", c.Attempts)
	case c.Role != nil && c.Role.ARN == "":
		why = "Role has no ARN"
	case c.Role != nil && c.Role.Duration != 0 && c.Role.Duration < 15*time.Minute:
		why = fmt.Sprintf("Role lasts %v, less than 15 minutes", c.Role.Duration)
	case c.Endpoint != "" && endpointFault(c.Endpoint) != "":
		why = "Endpoint " + endpointFault(c.Endpoint)
	case c.Role != nil && c.Role.Endpoint != "" && endpointFault(c.Role.Endpoint) != "":
		why = "Role.Endpoint " + endpointFault(c.Role.Endpoint)
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
		return "is not a URL"
	case u.User != nil:
		return "holds a user or a password; use AccessKeyID and SecretAccessKey"
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "is not of the form http://HOST or https://HOST"
	case u.RawQuery != "" || u.Fragment != "":
		return "has a query or a fragment"
	}
	return ""
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
