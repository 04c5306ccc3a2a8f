package localbox

import (
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// endOfInput is the character that ends the input, or 0 when none does now.
func (t *terminal) endOfInput() (c byte) {
	_ = t.control(func(fd int) error {
		term, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil && term.Lflag&unix.ICANON != 0 {
			c = term.Cc[unix.VEOF]
		}
		return err
	})
	return c
}

const (
	// wideSize halves the cost of a byte against the usual 64 KiB.
	wideSize = 1 << 20
	// maxWide bounds how many are wide at once: an ordinary user has 64 MiB for
	// all pipes (pipe(7), pipe-user-pages-soft), and beyond that new ones get a
	// page, those of other programs too.
	maxWide = 24
)

var wide = make(chan struct{}, maxWide)

// widePipe is the reading end of a pipe that was widened.
type widePipe struct {
	*os.File
	once sync.Once
}

func (p *widePipe) Close() error {
	p.once.Do(func() { <-wide })
	return p.File.Close()
}

// widen makes a stream of a pipe's end, a wide one while there are few.
func widen(fd int, name string) io.ReadCloser {
	f := stream(fd, name)
	select {
	case wide <- struct{}{}:
	default:
		return f
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, wideSize); err != nil {
		<-wide
		return f
	}
	return &widePipe{File: f}
}
