package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// ErrUnsupported: this machine cannot mount a bucket; the text says what it takes.
var ErrUnsupported = errors.New("buckets cannot be mounted on this machine")

// openTime bounds how long a bucket may take to answer before it is mounted.
const openTime = 30 * time.Second

// Config says which bucket is shown, and how.
type Config struct {
	Bucket string
	// Prefix is of the keys that are shown, without it. It is empty, or ends in "/".
	Prefix string
	// Endpoint is the URL of the bucket's server; empty means Amazon's.
	Endpoint string
	Region   string
	// Credentials are nil for a bucket that is open to everybody.
	Credentials aws.CredentialsProvider
	// PathStyle puts the bucket's name in the path. It is where Endpoint has an
	// address instead of a name, whatever this says.
	PathStyle     bool
	RequesterPays bool
	ReadOnly      bool
	// Log is told of files that could not be stored when nobody waited. Nil means no log.
	Log *slog.Logger
}

// open makes a client and sees whether the bucket can be listed. An error that
// is the configuration's fault matches driver.ErrInvalid.
func (c *Config) open(ctx context.Context) (*s3.Client, error) {
	client := s3.New(s3.Options{
		Region: c.Region, Credentials: c.credentials(), UsePathStyle: c.PathStyle,
		// Servers that are not Amazon's may know no other.
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = &c.Endpoint
		}
	})
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	_, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &c.Bucket, Prefix: &c.Prefix, MaxKeys: aws.Int32(1), RequestPayer: c.payer()})
	if err != nil {
		return nil, fmt.Errorf("%w: list bucket %s: %w", driver.ErrInvalid, c.Bucket, err)
	}
	return client, nil
}

func (c *Config) credentials() aws.CredentialsProvider {
	if c.Credentials == nil {
		return aws.AnonymousCredentials{}
	}
	return c.Credentials
}

func (c *Config) payer() types.RequestPayer {
	if c.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}
