package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// cleanUpTime bounds what is done after its own context has ended.
const cleanUpTime = time.Minute

// shutdownGrace is how long Shutdown goes on, once its context has ended, for
// what it cancelled to end.
const shutdownGrace = 15 * time.Second

// start runs fn in the background, as work that Shutdown waits for. It answers
// 503 when the handler takes none any more. A panic is logged and ends fn only.
func (h *Handler) start(name string, fn func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return shuttingDown()
	}
	h.work.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				h.log.Error("panic in the background", "work", name, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			}
		}()
		fn()
	})
	return nil
}

// Shutdown ends the handler. New work is refused with 503 from now on. With a
// Config.Store it lets go of the runs at once: they go on in their sandboxes, those who
// follow them get an event "reconnect", and the next server goes on with them. Without
// one they go on to their end, and those who follow get all of it.
//
// When ctx ends before all else has, creations and deletions are cancelled, and runs that
// this handler has not let go of; the error is then ctx's. Sandboxes go on in every case,
// and a handler made later finds them again.
//
// Call it before http.Server.Shutdown, which waits for streams. Calling it again
// waits again.
func (h *Handler) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	if h.durable {
		h.leave()
	}
	done := make(chan struct{})
	go func() {
		h.work.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("sandboxhttp: shutdown: %w", context.Cause(ctx))
	}
	h.cancel(errShutdown)
	if err != nil {
		timer := time.NewTimer(shutdownGrace)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			return errors.Join(err, fmt.Errorf("sandboxhttp: work has not ended %v after it was cancelled", shutdownGrace), h.pool.Close())
		}
	}
	h.leave()
	if err != nil {
		return errors.Join(err, h.pool.Close())
	}
	if err := h.pool.Shutdown(ctx); err != nil {
		return fmt.Errorf("sandboxhttp: shutdown: %w", err)
	}
	return nil
}

// sleep waits for about a time, and reports whether the context goes on.
func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait/2 + rand.N(wait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// bounded runs fn and gives its result, or ctx's cause when ctx ends first. It
// does not wait for fn then, which code in a sandbox, or a server that a client
// chose, could hold up; that ends with the sandbox.
func bounded[T any](ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if v := recover(); v != nil {
				r.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
			done <- r
		}()
		r.value, r.err = fn(ctx)
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done: // both at once: fn was first
		return r.value, r.err
	default:
		var none T
		return none, context.Cause(ctx)
	}
}
