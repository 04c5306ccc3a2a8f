package sandboxhttp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp/usage"
	"github.com/vivarium-go/vivarium/storage"
)

// creation is a sandbox being made.
type creation struct {
	*task
	rec    *Sandbox
	box    *box
	config *sandbox.Config
	labels map[string]string
	volume *storage.Volume
	fill   *transfer // from the volume

	ctx    context.Context // ends when nobody wants the sandbox any more
	cancel context.CancelCauseFunc
}

// The names of a creation's last event.
var creationEvents = lastEvents{result: "sandbox", problem: "error"}

func (h *Handler) postSandbox(w http.ResponseWriter, r *http.Request, p *Principal) error {
	body, err := h.readBody(w, r)
	if err != nil {
		return err
	}
	claim, prior, err := h.keys.claim(r, p.Account, body)
	if err != nil {
		return err
	}
	if prior != nil {
		return h.answerTask(w, r, h.pastTask(r, creationEvents, prior))
	}
	begun := false
	defer func() {
		if !begun { // also when a hook panicked
			claim.settle(nil)
		}
	}()
	c, err := h.beginCreation(r, p, body, claim)
	if err != nil {
		return err
	}
	begun = true // the creation settles it
	return h.answerTask(w, r, c.task)
}

// beginCreation checks everything that can be checked, records what is to be
// made, and goes on in the background.
func (h *Handler) beginCreation(r *http.Request, p *Principal, body []byte, claim *claim) (*creation, error) {
	ctx := r.Context()
	q, err := parseCreate(body)
	if err != nil {
		return nil, err
	}
	c := &creation{task: newTask(r, creationEvents, claim)}
	if c.config, err = q.config(h.config.Sandbox); err != nil {
		return nil, err
	}
	if h.config.Admit != nil {
		if err := h.config.Admit(ctx, p, c.config); err != nil {
			return nil, hookProblem(err, "body")
		}
	}
	if c.volume, err = h.requestedVolume(ctx, p.Account, q); err != nil {
		return nil, err
	}
	if err := h.adopt(ctx, p.Account); err != nil {
		return nil, err
	}
	if err := h.spans.keepTo(q, c.config); err != nil {
		return nil, err
	}
	if maps.Equal(c.config.Tags, q.tags) {
		c.config.Tags = nil // they are among the labels: a spare has none
	}
	c.rec = newRecord(p.Account, q)
	c.labels = labels(c.rec)
	if bare, _ := c.config.WithoutSecrets(); h.hasOwnSecrets(c.config) {
		c.labels[tagSecrets] = "1"
	} else {
		c.config = &bare // so that a spare can be claimed, which has the server's
	}
	if c.volume != nil {
		if c.fill, err = h.beginTransfer(ctx, p.Account, c.rec.ID, usage.KindRestore); err != nil {
			return nil, err
		}
	}
	if err := h.reserve(ctx, c); err != nil {
		c.fill.end()
		return nil, err
	}
	if err := h.start("create", func() { h.create(c) }); err != nil {
		h.abandon(c)
		c.fill.end()
		return nil, err
	}
	return c, nil
}

// hookProblem is what a hook's error is answered with.
func hookProblem(err error, field string) error {
	switch {
	case errors.Is(err, ErrForbidden):
		return newProblem(http.StatusForbidden, codeForbidden, err.Error())
	case errors.Is(err, sandbox.ErrInvalid):
		return newProblem(http.StatusUnprocessableEntity, codeValidationFailed, "some fields cannot be taken as they are").
			field(field, err.Error())
	}
	return err
}

func (h *Handler) requestedVolume(ctx context.Context, account string, q *createRequest) (*storage.Volume, error) {
	if q.volume == "" {
		return nil, nil
	}
	if h.config.Volumes == nil {
		return nil, newProblem(http.StatusUnprocessableEntity, codeUnsupportedSetting, "this server keeps no volumes").
			field("volume_name", "leave it out")
	}
	req, field := VolumeRequest{Name: q.volume, Key: volumeKey(account, q.volume)}, "volume_name"
	if q.hasS3 {
		s3 := q.s3
		req.S3, field = &s3, "s3"
	}
	v, err := h.config.Volumes(ctx, account, req)
	if err != nil {
		return nil, hookProblem(err, field)
	}
	if v == nil {
		return nil, errors.New("Config.Volumes returned no volume")
	}
	return v, nil
}

// volumeKey is a volume's name among those of all accounts. An account that
// cannot be a part of such a name, or that looks like the stand-in for one, has
// its hash there.
func volumeKey(account, name string) string {
	if !volumeRE.MatchString(account) || strings.HasPrefix(account, "sha256-") {
		sum := sha256.Sum256([]byte(account))
		account = "sha256-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
	}
	return account + "/" + name
}

func newRecord(account string, q *createRequest) *Sandbox {
	rec := &Sandbox{
		ID: "sb-" + strings.ToLower(rand.Text()), Account: account, Name: q.name, State: StateCreating,
		CreatedAt: time.Now().UTC().Round(0), VolumeName: q.volume, OwnBucket: q.hasS3, Tags: q.tags,
	}
	if rec.Tags == nil {
		rec.Tags = map[string]string{}
	}
	return rec
}

// reserve records the intent, if the account may have another sandbox of that name.
func (h *Handler) reserve(ctx context.Context, c *creation) error {
	h.naming.Lock()
	defer h.naming.Unlock()
	err := h.takeSandbox(ctx, c.rec)
	if err != nil {
		// Some may have ended since anybody looked.
		if err := h.reconcile(ctx, c.rec.Account); err != nil {
			return err
		}
		err = h.takeSandbox(ctx, c.rec)
	}
	if err != nil {
		return err
	}
	c.ctx, c.cancel = context.WithCancelCause(h.ctx)
	c.box = &box{
		h: h, account: c.rec.Account, id: c.rec.ID, ready: make(chan struct{}), unmake: c.cancel,
		runs: map[string]*run{}, volume: c.volume, creation: c,
	}
	if c.labels[tagSecrets] != "" {
		c.box.own = c.config
	}
	h.mu.Lock()
	h.boxes[c.rec.ID] = c.box
	h.mu.Unlock()
	if err := h.store.SaveSandbox(ctx, c.rec); err != nil {
		c.cancel(nil)
		h.dropBox(c.rec.ID)
		h.release(c.rec.Account, usage.KindSandbox, c.rec.ID)
		return err
	}
	return nil
}

func (h *Handler) mayCreate(ctx context.Context, rec *Sandbox) error {
	all, err := h.store.Sandboxes(ctx, rec.Account, Query{})
	if err != nil {
		return err
	}
	alive := 0
	for _, other := range all {
		if other.State == StateEnded {
			continue
		}
		alive++
		if rec.Name != "" && other.Name == rec.Name {
			return newProblem(http.StatusConflict, codeNameInUse, "another sandbox has this name").
				field("name", "choose another, or delete "+other.ID)
		}
	}
	if alive >= h.limits.Sandboxes {
		return newProblem(http.StatusTooManyRequests, codeExhausted,
			fmt.Sprintf("an account may have %d sandboxes at once; delete one first", h.limits.Sandboxes))
	}
	return nil
}

// abandon forgets what was not made.
func (h *Handler) abandon(c *creation) {
	c.cancel(nil)
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	if err := h.store.DeleteSandbox(ctx, c.rec.Account, c.rec.ID); err != nil {
		h.log.Error("cannot forget a sandbox that was not made", "sandbox", c.rec.ID, "error", err)
	}
	h.release(c.rec.Account, usage.KindSandbox, c.rec.ID)
	h.dropBox(c.rec.ID)
}

// create makes the sandbox, whether anybody waits for it or not.
func (h *Handler) create(c *creation) {
	made := errors.New("the creation did not come to its end")
	defer func() { h.settleCreation(c, made) }()
	err := h.make(c)
	if err == nil {
		h.countSandbox(c.rec)
	}
	if err != nil && context.Cause(c.ctx) == errDeleted {
		err = newProblem(http.StatusConflict, codeSandboxEnded, "the sandbox was deleted while it was being made").because(err)
	}
	made = err
}

// settleCreation tells everybody how it went.
func (h *Handler) settleCreation(c *creation, err error) {
	var given *answer
	if err == nil {
		var body []byte
		body, err = json.Marshal(c.rec)
		// Relative to the path that was posted to, so that it is right below any prefix.
		given = &answer{status: http.StatusCreated, location: "sandbox/" + c.rec.ID, body: body}
	}
	if err != nil {
		h.dismiss(c)
	}
	c.fill.end()
	c.cancel(nil)
	h.settleTask(c.task, given, err)
	close(c.box.ready)
}

// dismiss records that somebody deleted what was being made, or forgets it. One that may
// still live keeps its record until somebody looks once that is over.
func (h *Handler) dismiss(c *creation) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	if c.box.left = h.mayLive(ctx, c); c.box.left != nil {
		h.log.Error("a sandbox that was not made may live; it is ended as soon as that can be", "sandbox", c.rec.ID, "error", c.box.left)
		return
	}
	if context.Cause(c.ctx) == errDeleted {
		err := h.ended(ctx, c.rec.Account, c.rec.ID, sandbox.EndCancelled, time.Now(), false)
		if err == nil {
			return
		}
		h.log.Error("cannot record a deletion", "sandbox", c.rec.ID, "error", err)
	}
	h.abandon(c)
}

// mayLive says why a sandbox that was not made may live: nil where it does not.
func (h *Handler) mayLive(ctx context.Context, c *creation) error {
	s, err := h.pool.Get(ctx, c.rec.Account, c.rec.ID)
	if errors.Is(err, sandbox.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now, err := s.Record(ctx)
	switch {
	case errors.Is(err, sandbox.ErrNotFound):
		return nil
	case err != nil:
		return err
	case now.State == pool.StateTerminated:
		return nil
	}
	return fmt.Errorf("%w: it is %s: %s", sandbox.ErrUnavailable, now.State, now.Error)
}

func (c *creation) stage(name string) {
	c.log.Append("progress", fmt.Appendf(nil, `{"stage":%q}`, name))
}

// make has the pool make the sandbox, and completes the record.
func (h *Handler) make(c *creation) error {
	c.stage("creating")
	config := &pool.Config{Sandbox: c.config, ID: c.rec.ID, Labels: c.labels}
	s, err := h.pool.Create(c.ctx, c.rec.Account, config)
	if errors.Is(err, sandbox.ErrEnded) && c.ctx.Err() == nil { // a spare that nobody had seen end
		s, err = h.pool.Create(c.ctx, c.rec.Account, config)
	}
	if err != nil {
		return providerProblem(errors.Unwrap(err)) // without what the pool was doing
	}
	if err = h.completeRecord(c, s); err == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(h.ctx), cleanUpTime)
	defer stop()
	if ended := s.Terminate(ctx, &pool.TerminateOptions{Unsaved: true}); ended != nil {
		h.log.Error("cannot end a sandbox that nobody is to have; it is tried again", "sandbox", c.rec.ID, "error", ended)
	}
	return err
}

func (h *Handler) completeRecord(c *creation, s *pool.Sandbox) error {
	now, info, err := s.Check(c.ctx)
	if err == nil {
		err = context.Cause(c.ctx)
	}
	if err == nil && info == nil {
		err = fmt.Errorf("%w (%s)", sandbox.ErrEnded, now.End)
	}
	if err != nil {
		return providerProblem(err)
	}
	c.rec.observe(now, info)
	h.records.Lock()
	defer h.records.Unlock()
	rec, err := h.store.Sandbox(c.ctx, c.rec.Account, c.rec.ID)
	switch {
	case err != nil:
		return err
	case rec.State == StateEnded: // by another server, which did not find it in the pool
		return sandboxEnded()
	}
	return h.store.SaveSandbox(c.ctx, c.rec)
}
