// Package ociimage keeps the file systems that sandboxes start from: pulled from a
// registry layer by layer, built on top of each other, saved from a sandbox.
package ociimage

import (
	_ "github.com/google/go-containerregistry/pkg/v1/remote"
)
