package sandboxhttp

import (
	"context"
	"errors"
	"io/fs"
	"net/http"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// errKeysGone is why a volume cannot be opened any more.
var errKeysGone = errors.New("the server was started anew, and no longer has the keys of the bucket that came with the request; make a sandbox with them to go on")

// saveOptions are what a save does that another does not.
type saveOptions struct {
	author, note, parent string // an empty parent: what the sandbox knows of
	last                 bool   // the sandbox is deleted then
	progress             func(storage.Progress)
}

// savings is how often a save that a Prune overtook is tried.
const savings = 3

// save makes a new version of the volume and records it. When another became the
// newest first, the version is kept beside that, and head is the id of that.
func (b *box) save(ctx context.Context, sb *sandbox.Sandbox, opts saveOptions) (v *storage.Version, head string, err error) {
	rec, err := b.h.store.Sandbox(ctx, b.account, b.id)
	if err != nil {
		return nil, "", err
	}
	volume, err := b.open(ctx, rec)
	if err != nil {
		return nil, "", err
	}
	if opts.parent == "" {
		opts.parent = rec.Head
	}
	volume = volume.With(func(o *storage.Options) {
		o.Author, o.Note, o.Parent, o.KeepConflict, o.Progress = opts.author, opts.note, opts.parent, true, opts.progress
	})
	for range savings {
		var conflict *storage.ConflictError
		v, err = volume.Sync(ctx, sb, sb.Dir())
		switch {
		case err == nil:
			return v, "", b.recordSaved(ctx, v, v.ID, opts.last)
		case errors.As(err, &conflict) && conflict.Kept != nil:
			return conflict.Kept, conflict.Head, b.recordSaved(ctx, conflict.Kept, rec.Head, opts.last)
		case !errors.Is(err, storage.ErrConflict):
			return nil, "", err
		}
	}
	return nil, "", err
}

// restore puts a version into the sandbox and records it.
func (b *box) restore(ctx context.Context, sb *sandbox.Sandbox, id string, progress func(storage.Progress)) (*storage.Version, error) {
	rec, err := b.h.store.Sandbox(ctx, b.account, b.id)
	if err != nil {
		return nil, err
	}
	volume, err := b.open(ctx, rec)
	if err != nil {
		return nil, err
	}
	v, head, err := lookUp(ctx, volume, id)
	if err != nil {
		return nil, err
	}
	volume = volume.With(func(o *storage.Options) { o.Progress = progress })
	err = volume.Restore(ctx, sb, sb.Dir(), id)
	switch {
	case errors.Is(err, fs.ErrNotExist): // forgotten since
		return nil, noVersion().because(err)
	case err != nil:
		return nil, err
	}
	// Who picks a version has seen those that there are: the next save builds on the
	// newest of them.
	return v, b.recordFiles(ctx, v, head)
}

// lookUp finds a version, and the id of the newest, which is no conflict. One that
// cannot be read stands in nobody's way but its own.
func lookUp(ctx context.Context, volume *storage.Volume, id string) (found *storage.Version, head string, err error) {
	var unread error
	for v, err := range volume.Versions(ctx) {
		if err != nil {
			unread = err
			continue
		}
		if head == "" && !v.Conflict {
			head = v.ID
		}
		if v.ID == id {
			found = v
		}
		if found != nil && head != "" {
			break
		}
	}
	switch {
	case found != nil:
		return found, head, nil
	case unread != nil:
		return nil, "", unread
	}
	return nil, "", noVersion()
}

func noVersion() *problem {
	return newProblem(http.StatusNotFound, codeNotFound, "the volume has no such version; it may have been pruned")
}

// recordFiles records which version the sandbox's files are.
func (b *box) recordFiles(ctx context.Context, v *storage.Version, head string) error {
	return b.recordSaved(ctx, v, head, false)
}

// recordSaved also records whether the sandbox is deleted with them.
func (b *box) recordSaved(ctx context.Context, v *storage.Version, head string, last bool) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer stop()
	err := b.h.change(ctx, b.account, b.id, func(rec *Sandbox) bool {
		if rec.State == StateEnded {
			return false
		}
		rec.Version, rec.Head, rec.Saved = recordVersion(v), head, last
		return true
	})
	if errors.Is(err, ErrNotFound) { // the sandbox was forgotten meanwhile; the version was made
		return nil
	}
	return err
}

func recordVersion(v *storage.Version) *Version {
	return &Version{ID: v.ID, CreatedAt: v.Time, Conflict: v.Conflict}
}
