package sandboxhttp

import (
	"context"
	"errors"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/storage"
)

// box is what the handler holds of a sandbox beside its record.
type box struct {
	h           *Handler
	account, id string
	ready       chan struct{}           // closed when it is no longer being made
	unmake      context.CancelCauseFunc // gives its making up; nil where that was another server's
	creation    *creation               // nil where that was another server's
	left        error                   // why it may live although it was not made; set before ready is closed

	opening sync.Mutex // held while volume is being got
	taking  sync.Mutex // held while a run is taken over

	own *sandbox.Config // what it was made of, where its secrets are its own; nil else, and where another server made it

	mu       sync.Mutex
	volume   *storage.Volume
	runs     map[string]*run
	bridges  map[string]*bridge // to runs of other servers, by id
	deletion *deletion          // going on
	work     *volumeWork        // going on
}

var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// box gives what the handler holds of a sandbox that is not being made.
func (h *Handler) box(account, id string) *box {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.boxes[id]
	if b == nil || b.account != account {
		b = &box{h: h, account: account, id: id, ready: closedChan, runs: map[string]*run{}}
		h.boxes[id] = b
	}
	return b
}

func (h *Handler) dropBox(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.boxes, id)
}

// use gives the sandbox to work with, until release is called.
func (b *box) use(ctx context.Context) (sb *sandbox.Sandbox, release func(), err error) {
	s, err := b.h.pool.Get(ctx, b.account, b.id)
	if err == nil {
		sb, release, err = s.Use(ctx)
	}
	if errors.Is(err, pool.ErrClosed) {
		err = shuttingDown().because(err)
	}
	return sb, release, err
}

// open gives the volume that the workspace is saved to.
func (b *box) open(ctx context.Context, rec *Sandbox) (*storage.Volume, error) {
	b.opening.Lock()
	defer b.opening.Unlock()
	if b.volume != nil {
		return b.volume, nil
	}
	if rec.OwnBucket {
		return nil, errKeysGone
	}
	if b.h.config.Volumes == nil {
		return nil, errors.New("this server opens no volumes")
	}
	v, err := b.h.config.Volumes(ctx, rec.Account, VolumeRequest{Name: rec.VolumeName, Key: volumeKey(rec.Account, rec.VolumeName)})
	if err == nil && v == nil {
		err = errors.New("Config.Volumes returned no volume")
	}
	if err != nil {
		return nil, err
	}
	b.volume = v
	return v, nil
}

// making reports whether this handler is making it.
func (b *box) making() bool {
	select {
	case <-b.ready:
		return false
	default:
		return true
	}
}

// wait waits until a sandbox is no longer being made.
func (b *box) wait(ctx context.Context) error {
	select {
	case <-b.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
