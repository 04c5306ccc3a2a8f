package modalbox

import (
	"context"
	"errors"
	"iter"
	"slices"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// listBatch is how many sandboxes are asked about at once: Modal lists ids, and
// tells the tags of each on its own.
const listBatch = 16

// List implements driver.Provider. Modal lists no sandbox that has ended.
func (p *provider) List(ctx context.Context, filter *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		batch := make([]*modal.Sandbox, 0, listBatch)
		flush := func() bool {
			ok := true
			for _, r := range describe(ctx, batch) {
				if r.info == nil && r.err == nil || !ok {
					continue
				}
				ok = yield(r.info, r.err) && r.err == nil
			}
			batch = batch[:0]
			return ok
		}
		for sb, err := range p.ids(ctx, filter.Tags) {
			if err != nil {
				yield(nil, err)
				return
			}
			batch = append(batch, sb)
			if len(batch) == listBatch && !flush() {
				return
			}
		}
		flush()
	}
}

// ids lists the handles of the app's sandboxes with these tags, to the end.
func (p *provider) ids(ctx context.Context, tags map[string]string) iter.Seq2[*modal.Sandbox, error] {
	return func(yield func(*modal.Sandbox, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(nil, err)
			return
		}
		app, err := p.app(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		all, err := p.client.Sandboxes.List(ctx, &modal.SandboxListParams{AppID: app.AppID, Tags: tags, Environment: p.opts.Environment})
		if err != nil {
			yield(nil, called(ctx, "list sandboxes", err))
			return
		}
		for sb, err := range all {
			if err != nil {
				yield(nil, called(ctx, "list sandboxes", err))
				return
			}
			if !yield(sb, nil) {
				return
			}
		}
	}
}

type described struct {
	info *driver.Info
	err  error
}

// describe asks for the tags of several sandboxes at once. One that has ended
// in the meantime has neither description nor error.
func describe(ctx context.Context, batch []*modal.Sandbox) []described {
	results := make([]chan described, len(batch))
	for i, sb := range batch {
		results[i] = make(chan described, 1)
		go func() {
			defer sb.Detach() //nolint:errcheck // it never fails
			rec, err := readRecord(ctx, sb)
			switch {
			case err == nil:
				results[i] <- described{info: rec.info(sb.SandboxID)}
			case errors.Is(err, driver.ErrNotFound):
				results[i] <- described{}
			default:
				results[i] <- described{err: err}
			}
		}()
	}
	all := make([]described, 0, len(batch))
	for _, r := range slices.All(results) {
		all = append(all, <-r)
	}
	return all
}
