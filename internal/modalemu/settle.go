package modalemu

import (
	"context"
	"time"
)

const (
	// youth is how long after its start a command is given to print something.
	youth = 300 * time.Millisecond
	// quiet is how long it must have printed nothing to be taken to be done with it.
	quiet = 100 * time.Millisecond
)

// settle waits, briefly, for what a command that has just been started is about
// to print. Modal is far away, so that a client that creates a sandbox and
// terminates it at once finds the first lines in its output. Here the
// termination would overtake them.
func (c *container) settle(ctx context.Context) {
	if c.entry == nil {
		return
	}
	for {
		left := youth - time.Since(c.entry.Started())
		pieces, more := c.log.since(0)
		if n := len(pieces); n > 0 {
			left = min(left, quiet-time.Since(pieces[n-1].at))
		}
		if left <= 0 {
			return
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-more:
		case <-c.entry.Done():
			left = 0
		case <-ctx.Done():
			left = 0
		}
		t.Stop()
		if left == 0 {
			return
		}
	}
}
