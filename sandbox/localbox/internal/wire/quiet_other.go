//go:build unix && !linux

package wire

import (
	"errors"
	"net"
	"time"
)

// quiet is for Linux.
type quiet struct{}

func newQuiet(*net.UnixConn) *quiet { return nil }

func (*quiet) read([]byte, []byte) (n, oobn int, err error) { return 0, 0, errors.ErrUnsupported }
func (*quiet) Read([]byte) (int, error)                     { return 0, errors.ErrUnsupported }
func (*quiet) write([]byte, []byte) (int, error)            { return 0, errors.ErrUnsupported }
func (*quiet) setWriteDeadline(time.Time) error             { return errors.ErrUnsupported }
func (*quiet) close() error                                 { return errors.ErrUnsupported }
