package s3bucket

import (
	"context"
	"time"
)

// OpenImpatient is Open for a server that may keep its client waiting for limit.
func OpenImpatient(ctx context.Context, name string, cfg *Config, opts *Options, limit time.Duration) (*Bucket, error) {
	return open(ctx, name, cfg, opts, limit)
}
