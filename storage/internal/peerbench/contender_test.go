package peerbench

import (
	"context"
	"fmt"

	"github.com/vivarium-go/vivarium/storage"
)

// engine keeps trees in the bucket. Every call starts afresh, as a new process.
type engine interface {
	// fresh gives the tree an empty place in the bucket; it is not timed.
	fresh(ctx context.Context, t *tree) error
	// sync brings the bucket up to date with the tree.
	sync(ctx context.Context, t *tree) error
	// restore writes what was synced last to out, an empty directory.
	restore(ctx context.Context, t *tree, out string) error
}

// kind says what a contender is compared as.
type kind int

const (
	ours kind = iota
	floor
	peer
)

// contender is an engine in the race.
type contender struct {
	engine
	name  string
	kind  kind
	place *place

	stale bool             // the repo was edited after the last sync
	lost  map[string]error // by tree: why it is out of the rest
}

// volumes is package storage.
type volumes struct {
	g     *ground
	place *place
	name  string
	made  int
	now   map[string]string // the tree's volume
	last  map[string]string // its newest version
}

func newVolumes(g *ground, p *place, name string) *volumes {
	return &volumes{g: g, place: p, name: name, now: map[string]string{}, last: map[string]string{}}
}

func (v *volumes) volume(t *tree) *storage.Volume {
	return storage.NewVolume(v.g.bucket(v.name+"/"), v.now[t.name], nil)
}

func (v *volumes) fresh(ctx context.Context, t *tree) error {
	if old := v.now[t.name]; old != "" {
		if err := v.g.empty(ctx, v.name+"/"+old); err != nil {
			return err
		}
	}
	v.made++
	v.now[t.name] = fmt.Sprintf("%s-%d", t.name, v.made)
	return nil
}

func (v *volumes) sync(ctx context.Context, t *tree) error {
	version, err := v.volume(t).Sync(ctx, v.place.ours, v.place.at(t))
	if err == nil {
		v.last[t.name] = version.ID
	}
	return err
}

func (v *volumes) restore(ctx context.Context, t *tree, out string) error {
	return v.volume(t).Restore(ctx, v.place.ours, out, v.last[t.name])
}

// does reports whether a contender takes part in an operation.
func (c *contender) does(o operation) bool {
	return c.lost[o.tree] == nil && (c.kind != floor || o.what == first || o.what == restore)
}
