package modalemu

import (
	"sync"
	"time"
)

// idleTimer fires when nothing has been in use for a while. A nil one, and one
// without a limit, never fires. Its methods are safe for concurrent use.
type idleTimer struct {
	limit time.Duration

	mu      sync.Mutex
	inUse   int
	timer   *time.Timer
	stopped bool
}

// newIdleTimer starts counting; fire runs in a goroutine of its own.
func newIdleTimer(limit time.Duration, fire func()) *idleTimer {
	t := &idleTimer{limit: limit}
	if limit > 0 {
		t.timer = time.AfterFunc(limit, fire)
	}
	return t
}

func (t *idleTimer) busy() (done func()) {
	if t == nil || t.timer == nil {
		return func() {}
	}
	t.mu.Lock()
	t.inUse++
	t.timer.Stop()
	t.mu.Unlock()
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.inUse--
		if t.inUse == 0 && !t.stopped {
			t.timer.Reset(t.limit)
		}
	})
}

func (t *idleTimer) stop() {
	if t == nil || t.timer == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.timer.Stop()
}
