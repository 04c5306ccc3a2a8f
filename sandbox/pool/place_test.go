package pool_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
)

// place is a driver whose sandboxes are records, with a text in the place of files. Its
// methods take no time.
type place struct {
	driver.Provider
	mu    sync.Mutex
	boxes []*placeBox
}

type placeBox struct {
	driver.Sandbox
	p      *place
	info   driver.Info
	config *driver.Config
	text   string // its workspace
	opened int    // handles that are not closed
}

func (p *place) provider() *sandbox.Provider { return sandbox.NewProvider(p) }

func (p *place) Create(ctx context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.named(cfg.Name) != nil {
		return nil, driver.ErrNameInUse
	}
	b := &placeBox{p: p, config: cfg, opened: 1, info: driver.Info{
		ID: fmt.Sprint("box-", len(p.boxes)), Name: cfg.Name, State: driver.StateRunning, Tags: maps.Clone(cfg.Tags),
		CreatedAt: time.Now(), ExpiresAt: time.Now().Add(cfg.Timeout),
	}}
	p.boxes = append(p.boxes, b)
	return b, nil
}

// age ends what has lived too long. The caller holds mu.
func (p *place) age() {
	for _, b := range p.boxes {
		if b.info.State == driver.StateRunning && !time.Now().Before(b.info.ExpiresAt) {
			b.end(driver.EndLifetime)
		}
	}
}

func (b *placeBox) end(reason driver.End) {
	if b.info.State == driver.StateRunning {
		b.info.State, b.info.End, b.info.EndedAt = driver.StateEnded, reason, time.Now()
	}
}

func (p *place) named(name string) *placeBox {
	p.age()
	for _, b := range p.boxes {
		if name != "" && b.info.Name == name && b.info.State == driver.StateRunning {
			return b
		}
	}
	return nil
}

func (p *place) box(id string) *placeBox {
	p.age()
	for _, b := range p.boxes {
		if b.info.ID == id {
			return b
		}
	}
	return nil
}

func (p *place) Attach(ctx context.Context, id string) (driver.Sandbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.box(id)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case b == nil:
		return nil, driver.ErrNotFound
	case b.info.State == driver.StateEnded:
		return nil, driver.ErrEnded
	}
	b.opened++
	return b, nil
}

func (p *place) Lookup(ctx context.Context, name string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.named(name); b != nil {
		return b.info.ID, ctx.Err()
	}
	return "", driver.ErrNotFound
}

func (p *place) List(ctx context.Context, filter *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return
		}
		for _, info := range p.infos(filter.Ended) {
			if matches(info.Tags, filter.Tags) && !yield(&info, nil) {
				return
			}
		}
	}
}

func (p *place) infos(ended bool) []driver.Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.age()
	var list []driver.Info
	for _, b := range p.boxes {
		if ended || b.info.State == driver.StateRunning {
			list = append(list, b.info)
		}
	}
	return list
}

func matches(tags, want map[string]string) bool {
	for k, v := range want {
		if tags[k] != v {
			return false
		}
	}
	return true
}

func (b *placeBox) ID() string { return b.info.ID }

func (b *placeBox) Info(context.Context) (*driver.Info, error) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	info := b.info
	return &info, nil
}

func (b *placeBox) Terminate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.end(driver.EndCancelled)
	return nil
}

func (b *placeBox) Close() error {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.opened--
	return nil
}

// kill ends a sandbox as the place would.
func (p *place) kill(id string, reason driver.End) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.box(id).end(reason)
}

func (p *place) write(id, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.box(id).text = text
}

func (p *place) read(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.box(id).text
}

// made gives what was made as it was asked for, the first one first.
func (p *place) made() []*driver.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*driver.Config
	for _, b := range p.boxes {
		list = append(list, b.config)
	}
	return list
}

// running gives the ids of the sandboxes that run.
func (p *place) running() []string {
	var ids []string
	for _, info := range p.infos(false) {
		ids = append(ids, info.ID)
	}
	return ids
}

// wantClosed wants every handle to have been closed.
func (p *place) wantClosed(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.boxes {
		if b.opened != 0 {
			t.Errorf("%s has %d handles open", b.info.ID, b.opened)
		}
	}
}

// bucket keeps workspaces.
type bucket struct {
	mu    sync.Mutex
	texts map[string]string // by owner and ID
	saves int
	err   error // what saving fails with
}

func (b *bucket) save(p *place) func(context.Context, *pool.Record, *sandbox.Sandbox) error {
	return func(_ context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.err != nil {
			return b.err
		}
		if b.texts == nil {
			b.texts = map[string]string{}
		}
		b.saves++
		b.texts[r.Owner+"/"+r.ID] = p.read(sb.ID())
		return nil
	}
}

func (b *bucket) fill(p *place) func(context.Context, *pool.Record, *sandbox.Sandbox) error {
	return func(_ context.Context, r *pool.Record, sb *sandbox.Sandbox) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if text, ok := b.texts[r.Owner+"/"+r.ID]; ok {
			p.write(sb.ID(), text)
		}
		return nil
	}
}

func (b *bucket) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *bucket) text(r *pool.Record) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.texts[r.Owner+"/"+r.ID]
}

// diary keeps events.
type diary struct {
	mu     sync.Mutex
	events []pool.Event
}

func (d *diary) notify(_ context.Context, e pool.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// take gives what came since it was last called.
func (d *diary) take() []pool.Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := d.events
	d.events = nil
	return events
}

// said is an event in a few words.
func said(events []pool.Event) []string {
	var words []string
	for _, e := range events {
		word := string(e.Kind)
		if e.Reason != "" {
			word += " " + string(e.Reason)
		}
		words = append(words, word)
	}
	return words
}

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	if got := said(d.take()); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}
