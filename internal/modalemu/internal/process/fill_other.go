//go:build !unix

package process

import "io"

func reader(r io.Reader) func() ([]byte, int, error) { return plainReader(r) }
