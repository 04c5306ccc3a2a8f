package peerbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/figure"
)

// what an operation asks of an engine.
type what int

const (
	first what = iota
	noop
	edit
	restore
)

type operation struct {
	name string
	tree string
	what what
}

var operations = []operation{
	{"repo_first", "repo", first},
	{"repo_noop", "repo", noop},
	{"repo_edit", "repo", edit},
	{"repo_restore", "repo", restore},
	{"big_first", "big", first},
}

const editedFiles = 20

// race measures operations of contenders in turns.
type race struct {
	b          *testing.B
	g          *ground
	trees      map[string]*tree
	contenders []*contender
	places     []*place
	all        bool // no contender is left out for being slow
	pause      time.Duration
	round      int
	start      time.Time                             // of the first round
	length     time.Duration                         // of the first round
	times      map[string]map[string][]time.Duration // by operation and contender
	requests   map[string]map[string]int64
}

// A peer whose median is over hopeless times that of the best peer is not measured
// again, and none is given more than patience times the best and race.pause. The
// first sync gets more, as a peer that does not end it is in nothing that follows.
const (
	hopeless      = 1.5
	patience      = 4
	firstPatience = 8
)

// late reports whether another round, of half the first one's length as the slow
// peers are out of it, would end after the budget. There is always a first.
func (r *race) late(budget time.Duration) bool {
	if r.round == 0 {
		r.start = time.Now()
		return false
	}
	if r.round == 1 {
		r.length = time.Since(r.start)
	}
	return time.Since(r.start)+r.length/2 > budget
}

func (r *race) run() {
	r.round++
	for _, o := range operations {
		if *only != "" && o.tree != *only {
			continue
		}
		t := r.trees[o.tree]
		if err := r.ready(o, t); err != nil {
			r.b.Fatal(err)
		}
		for i := range r.contenders {
			c := r.contenders[(i+r.round-1)%len(r.contenders)]
			if !c.does(o) || !r.all && r.hopeless(o, c) {
				continue
			}
			err := r.measure(o, t, c)
			if err == nil {
				continue
			}
			if c.kind != peer || r.g.ctx.Err() != nil {
				r.b.Fatalf("%s: %s: %v", o.name, c.name, err)
			}
			c.lost[o.tree] = err
			fmt.Fprintf(os.Stderr, "peer %s left out from %s on: %v\n", c.name, o.name, err)
		}
		if err := r.tidy(o, t); err != nil {
			r.b.Fatal(err)
		}
	}
}

// ready brings the trees into the state that an operation needs.
func (r *race) ready(o operation, t *tree) error {
	names := []string{"."}
	switch {
	case o.what == edit:
		var err error
		if names, err = t.edit(editedFiles); err != nil {
			return err
		}
		for _, c := range r.contenders {
			c.stale = true
		}
	case o.what != first || o.tree == "repo" && r.round > 1:
		return nil
	}
	for _, p := range r.places {
		if err := p.bring(r.g.ctx, t, names...); err != nil {
			return err
		}
	}
	return nil
}

// tidy takes the big tree out of sandboxes again.
func (r *race) tidy(o operation, t *tree) error {
	for _, p := range r.places {
		if o.tree == "repo" || p.at(t) == t.dir {
			continue
		}
		if err := p.drop(r.g.ctx, p.at(t)); err != nil {
			return err
		}
	}
	return nil
}

func (r *race) hopeless(o operation, c *contender) bool {
	mine, best := figure.Quantile(r.times[o.name][c.name], 0.5), r.best(o)
	return c.kind == peer && best != nil && float64(mine) > hopeless*float64(r.median(o, best))
}

// measure times one operation, and checks what it did.
func (r *race) measure(o operation, t *tree, c *contender) error {
	ctx := r.g.ctx
	if o.what == first {
		if err := c.fresh(ctx, t); err != nil {
			return err
		}
	} else if o.what != edit && c.stale && c.kind != floor {
		if err := c.sync(ctx, t); err != nil {
			return err
		}
		c.stale = false
	}
	var out string
	if o.what == restore {
		out = path.Join(c.place.dir, "restored")
		if err := c.place.run.Run(ctx, nil, nil, "mkdir", out); err != nil {
			return err
		}
		defer func() { _ = c.place.drop(context.WithoutCancel(ctx), out) }()
	}
	if err := r.timed(o, t, c, out); err != nil {
		return err
	}
	if o.what != restore {
		c.stale = false
		return nil
	}
	if c.kind == floor {
		return nil // its tar may be of before the edit
	}
	return same(ctx, t, c, out)
}

// slowError is why a peer was cut off.
type slowError struct {
	at    string // the operation
	limit time.Duration
	best  string
}

func (e *slowError) Error() string {
	return fmt.Sprintf("%s took more than %.1f s, far more than %s takes", e.at, e.limit.Seconds(), e.best)
}

func (r *race) timed(o operation, t *tree, c *contender, out string) error {
	ctx, stop := context.WithCancel(r.g.ctx)
	defer stop()
	if best := r.best(o); best != nil && c.kind == peer && !r.all {
		limit := patience*r.median(o, best) + r.pause
		if o.what == first {
			limit = firstPatience*r.median(o, best) + r.pause
		}
		ctx, stop = context.WithTimeoutCause(ctx, limit, &slowError{at: o.name, limit: limit, best: best.name})
		defer stop()
	}
	requests, start := r.g.traffic.requests.Load(), time.Now()
	var err error
	if o.what == restore {
		err = c.restore(ctx, t, out)
	} else {
		err = c.sync(ctx, t)
	}
	took := time.Since(start)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	r.times[o.name][c.name] = append(r.times[o.name][c.name], took)
	if c.kind != peer {
		r.requests[o.name][c.name] = r.g.traffic.requests.Load() - requests
	}
	fmt.Fprintf(os.Stderr, "round %d %-12s %-14s %7.2f s\n", r.round, o.name, c.name, took.Seconds())
	return nil
}

// same compares what was restored with the tree as it is in the contender's
// place: of ours all, of peers names and contents, as some keep no more.
func same(ctx context.Context, t *tree, c *contender, out string) error {
	want, err := digest(ctx, c.place.run, c.place.at(t), c.kind == ours)
	if err != nil {
		return err
	}
	got, err := digest(ctx, c.place.run, out, c.kind == ours)
	if err == nil && got != want {
		err = errors.New("what was restored is not what was synced")
	}
	return err
}

func (r *race) median(o operation, c *contender) time.Duration {
	return figure.Quantile(r.times[o.name][c.name], 0.5)
}

// best is the fastest peer, or nil.
func (r *race) best(o operation) *contender {
	return r.fastest(o, peer)
}

func (r *race) fastest(o operation, k kind) *contender {
	in := slices.DeleteFunc(slices.Clone(r.contenders), func(c *contender) bool {
		return c.kind != k || len(r.times[o.name][c.name]) == 0
	})
	if len(in) == 0 {
		return nil
	}
	return slices.MinFunc(in, func(a, b *contender) int { return int(r.median(o, a) - r.median(o, b)) })
}
