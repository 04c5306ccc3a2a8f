//go:build !linux

package bucket

import "context"

// Mount is a bucket that is shown. There is none here.
type Mount struct{}

// Open fails with ErrUnsupported.
func Open(context.Context, *Config, string) (*Mount, error) { return nil, ErrUnsupported }

// Dir is where the bucket is shown.
func (*Mount) Dir() string { return "" }

// Writable reports whether files can be written for another user.
func (*Mount) Writable() bool { return false }

// Close does nothing.
func (*Mount) Close(context.Context) error { return nil }

// Sweep does nothing.
func Sweep(string) error { return nil }
