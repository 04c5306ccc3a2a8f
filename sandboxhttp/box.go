package sandboxhttp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// The tags by which a sandbox is known again when its record is lost. The name
// that the provider knows it by is its id.
const (
	tagID      = reservedTag + "id"
	tagAccount = reservedTag + "account"
	tagName    = reservedTag + "name"
	tagVolume  = reservedTag + "volume"
	tagBucket  = reservedTag + "own-bucket"
)

// box is what the handler holds of a sandbox beside its record.
type box struct {
	h           *Handler
	account, id string
	ready       chan struct{}           // closed when it is no longer being made
	unmake      context.CancelCauseFunc // gives its making up; nil where that was another server's
	left        error                   // why it may live although it was not made; set before ready is closed

	attaching sync.Mutex // held while sb and volume are being got
	taking    sync.Mutex // held while a run is taken over

	mu       sync.Mutex
	sb       *sandbox.Sandbox
	volume   *storage.Volume
	runs     map[string]*run
	bridges  map[string]*bridge // to runs of other servers, by id
	deletion *deletion          // going on
	work     *volumeWork        // going on
	closed   bool
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
		b = &box{h: h, account: account, id: id, ready: closedChan, runs: map[string]*run{}, closed: h.closed}
		h.boxes[id] = b
	}
	return b
}

func (h *Handler) dropBox(id string) {
	h.mu.Lock()
	b := h.boxes[id]
	delete(h.boxes, id)
	h.mu.Unlock()
	if b == nil {
		return
	}
	if err := b.close(); err != nil {
		h.log.Warn("cannot let go of a sandbox", "sandbox", id, "error", err)
	}
}

// sandbox gives the handle on a running sandbox, attaching to it if need be.
func (b *box) sandbox(ctx context.Context, rec *Sandbox) (*sandbox.Sandbox, error) {
	if sb, err := b.held(); sb != nil || err != nil {
		return sb, err // also while the volume is being opened
	}
	b.attaching.Lock()
	defer b.attaching.Unlock()
	if sb, err := b.held(); sb != nil || err != nil {
		return sb, err
	}
	sb, err := b.attach(ctx, rec)
	if err != nil {
		return nil, err
	}
	if err := b.hold(sb); err != nil {
		return nil, errors.Join(err, sb.Close())
	}
	return sb, nil
}

// attach gets another handle. A record without the provider's id is of a server
// that ended while it made the sandbox.
func (b *box) attach(ctx context.Context, rec *Sandbox) (*sandbox.Sandbox, error) {
	if rec.ProviderID == "" {
		return b.h.config.Provider.AttachName(ctx, rec.ID)
	}
	return b.h.config.Provider.Attach(ctx, rec.ProviderID)
}

// held gives the handle, nil where there is none yet.
func (b *box) held() (*sandbox.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sb == nil && b.closed {
		return nil, shuttingDown()
	}
	return b.sb, nil
}

// hold takes the handle over, for close to close.
func (b *box) hold(sb *sandbox.Sandbox) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return shuttingDown()
	}
	b.sb = sb
	return nil
}

// drop gives the handle back, to be closed by whom it came from.
func (b *box) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sb = nil
}

// open gives the volume that the workspace is saved to.
func (b *box) open(ctx context.Context, rec *Sandbox) (*storage.Volume, error) {
	b.attaching.Lock()
	defer b.attaching.Unlock()
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

// close lets go of the handle. Nothing attaches again.
func (b *box) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	sb := b.sb
	b.sb = nil
	if sb == nil {
		return nil
	}
	return sb.Close()
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

// find gives a sandbox of an account, after looking for those that outlived an
// earlier server.
func (h *Handler) find(ctx context.Context, account, id string) (*Sandbox, *box, error) {
	rec, err := h.store.Sandbox(ctx, account, id)
	if errors.Is(err, ErrNotFound) {
		if err := h.adopt(ctx, account); err != nil {
			return nil, nil, err
		}
		rec, err = h.store.Sandbox(ctx, account, id)
	}
	if err != nil {
		return nil, nil, err
	}
	return rec, h.box(account, id), nil
}

// adopt looks once for an account's sandboxes that have no record.
func (h *Handler) adopt(ctx context.Context, account string) error {
	h.mu.Lock()
	done := h.adopted[account]
	h.mu.Unlock()
	if done {
		return nil
	}
	return h.reconcile(ctx, account)
}

// reconcile brings an account's records in line with what the provider says.
func (h *Handler) reconcile(ctx context.Context, account string) error {
	running, err := h.store.Sandboxes(ctx, account, Query{State: StateRunning})
	if err != nil {
		return err
	}
	making, err := h.store.Sandboxes(ctx, account, Query{State: StateCreating})
	if err != nil {
		return err
	}
	seen, err := h.survey(ctx, account)
	if err != nil {
		return err
	}
	for _, rec := range running {
		if info := seen[rec.ID]; info != nil {
			h.knowSandbox(rec, info)
			continue
		}
		lost := &sandbox.Info{State: sandbox.StateEnded, End: sandbox.EndProviderLost}
		if err := h.observe(ctx, account, rec.ID, lost); err != nil {
			return err
		}
	}
	for _, rec := range making {
		if err := h.settleMaking(ctx, account, rec.ID, seen[rec.ID]); err != nil {
			return err
		}
	}
	h.mu.Lock()
	h.adopted[account] = true
	h.mu.Unlock()
	return nil
}

// survey takes over what the provider says of an account's sandboxes, and gives it
// by their ids.
func (h *Handler) survey(ctx context.Context, account string) (map[string]*sandbox.Info, error) {
	seen := map[string]*sandbox.Info{}
	opts := &sandbox.ListOptions{Tags: map[string]string{tagAccount: account}, Ended: true}
	for info, err := range h.config.Provider.List(ctx, opts) {
		if err != nil {
			return nil, providerProblem(err)
		}
		id := info.Tags[tagID]
		if id == "" {
			continue
		}
		seen[id] = info
		if err := h.observe(ctx, account, id, info); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

// observe takes over what the provider says of a sandbox. One without a record
// gets one if it runs.
func (h *Handler) observe(ctx context.Context, account, id string, info *sandbox.Info) error {
	var over *Sandbox
	err := h.change(ctx, account, id, func(rec *Sandbox) bool {
		if rec.State != StateRunning {
			return false
		}
		rec.observe(info)
		if rec.State == StateEnded {
			over = rec
		}
		return true
	})
	if errors.Is(err, ErrNotFound) && info.State == sandbox.StateRunning {
		err = h.recordFound(ctx, account, id, info)
	}
	if over != nil {
		h.freeSandbox(over)
		h.retain(ctx, account)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// recordFound makes the record of a sandbox that outlived its own.
func (h *Handler) recordFound(ctx context.Context, account, id string, info *sandbox.Info) error {
	rec := &Sandbox{
		ID: id, Account: account, ProviderID: info.ID, Name: info.Tags[tagName], State: StateRunning,
		VolumeName: info.Tags[tagVolume], OwnBucket: info.Tags[tagBucket] != "", CreatedAt: info.CreatedAt,
		Tags: map[string]string{},
	}
	for k, v := range info.Tags {
		if len(k) < len(reservedTag) || k[:len(reservedTag)] != reservedTag {
			rec.Tags[k] = v
		}
	}
	rec.observe(info)
	if err := h.addRecord(ctx, rec); err != nil {
		return err
	}
	h.countSandbox(rec)
	return nil
}

// addRecord adds a record where there is none.
func (h *Handler) addRecord(ctx context.Context, rec *Sandbox) error {
	h.records.Lock()
	defer h.records.Unlock()
	if _, err := h.store.Sandbox(ctx, rec.Account, rec.ID); !errors.Is(err, ErrNotFound) {
		return err
	}
	return h.store.SaveSandbox(ctx, rec)
}

// observe takes over what can change or is known only to the provider.
func (s *Sandbox) observe(info *sandbox.Info) {
	s.State, s.End = string(info.State), info.End
	if info.State == sandbox.StateEnded {
		s.EndedAt = info.EndedAt
		if s.EndedAt.IsZero() {
			s.EndedAt = time.Now().UTC()
		}
		if s.End == "" {
			s.End = sandbox.EndUnknown
		}
		s.Ports = nil
		return
	}
	s.ExpiresAt, s.Isolated, s.Unenforced = info.ExpiresAt, info.Isolated, info.Unenforced
	s.Ports = nil
	for port, address := range info.Ports {
		if s.Ports == nil {
			s.Ports = map[string]string{}
		}
		s.Ports[strconv.Itoa(port)] = address
	}
}

// change changes a sandbox's record, unless fn returns false.
func (h *Handler) change(ctx context.Context, account, id string, fn func(*Sandbox) bool) error {
	h.records.Lock()
	defer h.records.Unlock()
	rec, err := h.store.Sandbox(ctx, account, id)
	if err != nil {
		return err
	}
	if !fn(rec) {
		return nil
	}
	return h.store.SaveSandbox(ctx, rec)
}

// refresh asks the provider how a sandbox is.
func (h *Handler) refresh(ctx context.Context, rec *Sandbox, b *box) (*Sandbox, error) {
	if rec.State == StateEnded || rec.State == StateCreating && h.making(rec.ID) {
		return rec, nil
	}
	var info *sandbox.Info
	err := error(sandbox.ErrNotFound) // one that was being made is looked for among all
	if rec.State == StateRunning {
		info, err = b.info(ctx, rec)
	}
	switch {
	case err == nil:
		err = h.observe(ctx, rec.Account, rec.ID, info)
	case errors.Is(err, sandbox.ErrEnded), errors.Is(err, sandbox.ErrNotFound):
		err = h.reconcile(ctx, rec.Account)
	}
	if err != nil {
		return nil, providerProblem(err)
	}
	return h.store.Sandbox(ctx, rec.Account, rec.ID)
}

func (b *box) info(ctx context.Context, rec *Sandbox) (*sandbox.Info, error) {
	sb, err := b.sandbox(ctx, rec)
	if err != nil {
		return nil, err
	}
	return sb.Info(ctx)
}

// deleteRecords removes a sandbox's record and those of its runs, with their logs. These
// come last: what is left of them alone is found by nobody.
func (h *Handler) deleteRecords(ctx context.Context, rec *Sandbox) error {
	var runs []*Run
	if h.config.Logs != nil {
		var err error
		if runs, err = h.store.Runs(ctx, rec.Account, rec.ID); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	err := h.store.DeleteSandbox(ctx, rec.Account, rec.ID)
	for _, run := range runs {
		if err == nil {
			err = h.config.Logs.Delete(ctx, run.ID)
		}
	}
	return err
}

// retain forgets the oldest sandboxes that have ended, beyond the limit.
func (h *Handler) retain(ctx context.Context, account string) {
	ended, err := h.store.Sandboxes(ctx, account, Query{State: StateEnded})
	for _, rec := range ended[min(len(ended), h.limits.Ended):] {
		if b := h.box(account, rec.ID); b.busy() {
			continue
		}
		err = errors.Join(err, h.deleteRecords(ctx, rec))
		h.forgetRuns(h.box(account, rec.ID))
		h.dropBox(rec.ID)
	}
	if err != nil {
		h.log.Error("cannot forget sandboxes that have ended", "error", fmt.Sprint(err))
	}
}
