//go:build unix && !linux

package localbox

import "io"

func (t *terminal) endOfInput() byte { return 0 }

// widen makes a stream of a pipe's end.
func widen(fd int, name string) io.ReadCloser { return stream(fd, name) }
