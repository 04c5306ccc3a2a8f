package modalbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/internal/relay"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/internal/runner"
)

// box implements driver.Sandbox.
type box struct {
	sb  *modal.Sandbox
	rec *record

	ctx  context.Context // ends with Close
	stop context.CancelFunc

	closed      atomic.Bool
	runner      atomic.Bool   // there is one inside
	terminating atomic.Bool   // by this handle
	over        chan struct{} // closed once final is set

	mu      sync.Mutex
	final   *driver.Info
	closing bool // no more work is begun
	tunnels map[int]string
	waiting int // processes that wait for their end for a while
	unwatch context.CancelFunc

	work sync.WaitGroup // clean-ups that go on after their call has returned

	devices string // of /proc and /sys, once they are known; by mu

	relayMu sync.Mutex
	relay   *relay.Relay // nil until it is needed
}

func newBox(sb *modal.Sandbox, rec *record) *box {
	b := &box{sb: sb, rec: rec, over: make(chan struct{})}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// ID implements driver.Sandbox.
func (b *box) ID() string { return b.sb.SandboxID }

// runnerPath is where the runner is inside.
const runnerPath = "/tmp/.vivarium-run"

// prepareScript makes the directory $1 and installs the runner, from what printf
// makes of $2, at $3.
const prepareScript = `mkdir -p -- "$1" && cd -- "$1" && {
	{ printf "$2" >"$3.$$" && chmod 755 "$3.$$" && mv -f "$3.$$" "$3"; } 2>/dev/null
	"$3" 2>/dev/null
	echo "runner $?"
}`

// prepare makes the directory that commands start in, and so sees that commands
// can be started at all. Without a runner they are started by a shell.
func (b *box) prepare(ctx context.Context) error {
	out, code, err := b.script(ctx, prepareScript, b.rec.dir, octal(runner.Binary()), runnerPath)
	if err == nil && code != 0 {
		err = fmt.Errorf("%w: Dir %s cannot be made: %s; use one that the image's user may make", driver.ErrInvalid, b.rec.dir, lastLine(out))
	}
	b.runner.Store(err == nil && lastLine(out) == fmt.Sprint("runner ", runner.Usage))
	return err
}

// askDir learns the directory of a sandbox that was made by something else.
func (b *box) askDir(ctx context.Context) error {
	out, code, err := b.scriptIn(ctx, "", `pwd`)
	if err != nil || code != 0 {
		return errors.Join(err, fmt.Errorf("where commands start is not known: %s", lastLine(out)))
	}
	b.rec.dir = lastLine(out)
	return nil
}

// Info implements driver.Sandbox.
func (b *box) Info(ctx context.Context) (*driver.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if info := b.ended(); info != nil {
		return info, nil
	}
	if b.closed.Load() {
		return nil, os.ErrClosed
	}
	code, err := b.sb.Poll(ctx, nil)
	if err != nil {
		return nil, b.explain(ctx, "look at the sandbox", err)
	}
	if code != nil {
		return b.finish(*code), nil
	}
	info := b.rec.info(b.ID())
	if len(b.rec.ports) > 0 {
		if info.Ports, err = b.ports(ctx); err != nil {
			return nil, err
		}
	}
	return info, nil
}

// ended is the final description, nil while the sandbox is not known to have ended.
func (b *box) ended() *driver.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.final == nil {
		return nil
	}
	info := *b.final
	return &info
}

// finish notes that the sandbox has ended.
func (b *box) finish(code int) *driver.Info {
	if info := b.ended(); info != nil {
		return info
	}
	final := b.rec.ended(b.ID(), code, time.Now())
	if final.End == driver.EndCancelled && b.rec.idle > 0 && !b.terminating.Load() && !b.wasTerminated() {
		final.End = driver.EndIdle
	}
	b.mu.Lock()
	if b.final == nil {
		b.final = final
		close(b.over)
	}
	b.mu.Unlock()
	return b.ended()
}

// wasTerminated reports whether somebody has terminated the sandbox, for Modal
// tells no difference between that and its idle timeout.
func (b *box) wasTerminated() bool {
	ctx, cancel := detached(context.Background())
	defer cancel()
	tags, err := b.sb.GetTags(ctx, nil)
	return err != nil || tags[tagEnd] != ""
}

// explain says what an error means: as a rule one that is not about arguments
// is because the sandbox has ended.
func (b *box) explain(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case b.ended() != nil:
		return driver.ErrEnded
	case b.closed.Load():
		return os.ErrClosed
	}
	if is[modal.InvalidError](err) {
		return wrap(op, err)
	}
	if status.Code(err) == codes.NotFound { // the sandbox, and Poll may not know yet
		b.awaitEnd(ctx)
	}
	ask, cancel := detached(ctx)
	defer cancel()
	if code, perr := b.sb.Poll(ask, nil); perr == nil && code != nil {
		b.finish(*code)
		return driver.ErrEnded
	}
	return wrap(op, err)
}

// usable is what every operation asks first.
func (b *box) usable(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.ended() != nil:
		return driver.ErrEnded
	case b.closed.Load():
		return os.ErrClosed
	}
	return nil
}

// Wait implements driver.Sandbox.
func (b *box) Wait(ctx context.Context) (*driver.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if info := b.ended(); info != nil {
		return info, nil
	}
	code, err := b.sb.Wait(ctx, nil)
	if err != nil {
		if info := b.ended(); info != nil {
			return info, nil
		}
		return nil, called(ctx, "wait for the sandbox", err)
	}
	return b.finish(code), nil
}

// Terminate implements driver.Sandbox.
func (b *box) Terminate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.ended() != nil {
		return nil
	}
	if b.closed.Load() {
		return os.ErrClosed
	}
	b.terminating.Store(true)
	code, err := terminate(ctx, b.sb, b.rec)
	if err != nil {
		return err
	}
	b.finish(code)
	return nil
}

// terminate ends a sandbox and waits until it is gone. One that could end as
// idle gets a tag first that tells it apart.
func terminate(ctx context.Context, sb *modal.Sandbox, rec *record) (code int, err error) {
	if rec.idle > 0 {
		if tags, err := sb.GetTags(ctx, nil); err == nil && tags[tagEnd] == "" {
			tags[tagEnd] = string(driver.EndCancelled)
			_ = sb.SetTags(ctx, tags, nil) // it is to end in any case
		}
	}
	err = insist(ctx, func() error { _, err := sb.Terminate(ctx, nil); return err })
	if err != nil {
		return 0, called(ctx, "terminate the sandbox", err)
	}
	err = insist(ctx, func() (err error) { code, err = sb.Wait(ctx, nil); return err })
	return code, called(ctx, "wait for the sandbox's end", err)
}

// Close implements driver.Sandbox.
func (b *box) Close() error {
	b.mu.Lock()
	b.closing = true
	b.mu.Unlock()
	b.work.Wait()
	err := b.closeRelay()
	if b.closed.Swap(true) {
		return nil
	}
	b.stop()
	return errors.Join(err, b.sb.Detach())
}

// watch calls a function for as long as a process is awaited: meanwhile it is
// looked after whether the sandbox ends, since what Modal says of a process of
// one that has ended can be nothing at all.
func (b *box) watch() (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting++
	if b.waiting == 1 {
		ctx, cancel := context.WithCancel(b.ctx)
		b.unwatch = cancel
		go func() {
			for ctx.Err() == nil {
				if code, err := b.sb.Wait(ctx, nil); err == nil {
					b.finish(code)
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(watchPause):
				}
			}
		}()
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.waiting--; b.waiting == 0 {
			b.unwatch()
		}
	}
}

// watchPause is how long to wait after Modal did not answer.
const watchPause = time.Second
