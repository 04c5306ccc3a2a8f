package eventlog_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
)

// recorder is a ResponseWriter whose deadlines can be looked at, and whose
// writes block while it is stuck.
type recorder struct {
	mu       sync.Mutex
	header   http.Header
	body     bytes.Buffer
	flushed  int // bytes of body at the last flush
	flushes  int
	status   int
	deadline time.Time
	stuck    bool
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck {
		time.Sleep(time.Until(r.deadline)) // in a bubble: as a socket with a deadline does
		return 0, errors.New("i/o timeout")
	}
	return r.body.Write(p)
}
func (r *recorder) FlushError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flushed = r.body.Len()
	r.flushes++
	return nil
}
func (r *recorder) SetWriteDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	return nil
}
func (r *recorder) SetReadDeadline(time.Time) error { return nil }

// sent is what has been flushed.
func (r *recorder) sent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body.String()[:r.flushed]
}

// left is how far away the write deadline is.
func (r *recorder) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.deadline)
}

func (r *recorder) getStuck() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stuck = true
}

func TestServeSendsWhatComesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := eventlog.New(1 << 20)
		l.Append("", []byte("one"))
		w := &recorder{header: http.Header{}}
		done := make(chan error, 1)
		go func() {
			done <- eventlog.Timing{}.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), l, 0)
		}()
		synctest.Wait()
		if got := w.sent(); got != "id: 1\ndata: one\n\n" {
			t.Fatalf("at first: %q", got)
		}
		l.Append("", []byte("two"))
		synctest.Wait()
		if got := w.sent(); !strings.HasSuffix(got, "id: 2\ndata: two\n\n") {
			t.Fatalf("then: %q", got)
		}
		l.End("end", []byte("{}"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := w.sent(); !strings.HasSuffix(got, "id: 3\nevent: end\ndata: {}\n\ndata: [DONE]\n\n") {
			t.Errorf("at last: %q", got)
		}
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform",
		} {
			if got := w.header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}

func TestManyEventsAreOneFlush(t *testing.T) {
	l := eventlog.New(1 << 20)
	for range 1000 {
		l.Append("", []byte("a line"))
	}
	l.End("end", nil)
	w := &recorder{header: http.Header{}}
	if err := (eventlog.Timing{}).Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), l, 0); err != nil {
		t.Fatal(err)
	}
	if w.flushes != 1 { // the header with all the rest
		t.Errorf("%d flushes", w.flushes)
	}
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := eventlog.New(1 << 20)
		w := &recorder{header: http.Header{}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		start := time.Now()
		go func() {
			r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx)
			done <- eventlog.Timing{Heartbeat: 10 * time.Second, WriteTimeout: 30 * time.Second}.Serve(w, r, l, 0)
		}()
		for range 100 {
			time.Sleep(time.Second) // of the bubble's clock
			synctest.Wait()
			if left := w.left(); left < 10*time.Second {
				t.Fatalf("after %v the write deadline is %v away", time.Since(start), left)
			}
		}
		if got := strings.Count(w.sent(), "event: heartbeat\ndata: {}\n\n"); got != 9 && got != 10 {
			t.Errorf("%d heartbeats in 100 s", got)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestAStuckClientIsGivenUpAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := eventlog.New(1 << 20)
		stuck, fine := &recorder{header: http.Header{}}, &recorder{header: http.Header{}}
		timing := eventlog.Timing{WriteTimeout: 30 * time.Second}
		gaveUp, done := make(chan error, 1), make(chan error, 1)
		go func() { gaveUp <- timing.Serve(stuck, httptest.NewRequest(http.MethodGet, "/", nil), l, 0) }()
		go func() { done <- timing.Serve(fine, httptest.NewRequest(http.MethodGet, "/", nil), l, 0) }()
		synctest.Wait()
		stuck.getStuck()
		start := time.Now()
		for range 10_000 {
			l.Append("", []byte("a line"))
		}
		l.End("end", nil)
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("the other client: %v after %v", err, time.Since(start))
		}
		if err := <-gaveUp; err == nil || time.Since(start) > 30*time.Second {
			t.Errorf("the stuck client: %v after %v", err, time.Since(start))
		}
	})
}

// What cannot be read now is no gap: who follows asks again.
func TestOlderEventsThatCannotBeRead(t *testing.T) {
	failure := errors.New("the database is down")
	for want, fails := range map[string]error{
		"event: reconnect\ndata: {}\n\n": failure,
		"event: gap\ndata: {\"from\":3,\"to\":4}\n\nid: 5\nevent: end\ndata: {}\n\ndata: [DONE]\n\n": nil,
	} {
		l := eventlog.NewAt(1<<20, 4, func(_ context.Context, from, _ uint64) iter.Seq2[eventlog.Event, error] {
			return func(yield func(eventlog.Event, error) bool) {
				if yield(eventlog.Event{ID: from, Data: []byte("two")}, nil) && fails != nil {
					yield(eventlog.Event{}, fails)
				}
			}
		})
		l.End("end", []byte("{}"))
		w := &recorder{header: http.Header{}}
		err := eventlog.Timing{}.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), l, 1)
		if got := w.sent(); got != "id: 2\ndata: two\n\n"+want || !errors.Is(err, fails) {
			t.Errorf("after %v: %q, %v", fails, got, err)
		}
	}
}

func TestTheHeaderDoesNotWaitForAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &recorder{header: http.Header{}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- eventlog.Timing{}.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), eventlog.New(1<<20), 0)
		}()
		synctest.Wait()
		if w.flushes != 1 || w.status != http.StatusOK {
			t.Errorf("%d flushes, status %d", w.flushes, w.status)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// passing passes flushing on, as a middleware does.
type passing struct{ http.ResponseWriter }

func (p passing) FlushError() error           { return http.NewResponseController(p.ResponseWriter).Flush() }
func (p passing) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func TestServeNeedsFlush(t *testing.T) {
	l := eventlog.New(1 << 20)
	l.End("end", nil)
	rec := httptest.NewRecorder()
	hides := struct{ http.ResponseWriter }{rec} // Flush, and has no Unwrap
	for _, w := range []http.ResponseWriter{hides, passing{hides}} {
		err := eventlog.Timing{}.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), l, 0)
		if !errors.Is(err, http.ErrNotSupported) || rec.Body.Len() > 0 || rec.Flushed {
			t.Errorf("%T: %v, body %q", w, err, rec.Body)
		}
	}
	if err := (eventlog.Timing{}).Serve(passing{rec}, httptest.NewRequest(http.MethodGet, "/", nil), l, 0); err != nil || !rec.Flushed {
		t.Errorf("%v, flushed %v", err, rec.Flushed)
	}
}
