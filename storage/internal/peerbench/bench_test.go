package peerbench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/figure"
)

var (
	full   = flag.Bool("full", false, "trees of full size; otherwise about a tenth, and figures named small_")
	all    = flag.Bool("all", false, "measure every peer in every round, however slow it is")
	rounds = flag.Int("rounds", 1, "how often each is measured, in turns")
	only   = flag.String("only", "", "measure only the operations of this tree, repo or big")
	budget = flag.Duration("budget", 6*time.Minute, "start no round of which half would not fit in this time")
	scale  = flag.Int("scale", 0, "how many files BenchmarkScale goes up to, in steps of ten from 10,000 on; 0: it is skipped")
)

func TestMain(m *testing.M) {
	if text := os.Getenv(scaleVariable); text != "" {
		os.Exit(scaleChild(text))
	}
	goleak.VerifyTestMain(m)
}

// prefix marks figures of the reduced trees.
func prefix() string {
	if *full {
		return ""
	}
	return "small_"
}

// BenchmarkPeers measures first syncs, syncs without change and of 20 files,
// and restores, by package storage, its floor, and the peers that are installed.
func BenchmarkPeers(b *testing.B) {
	g := newGround(b)
	r, local, exec := enter(b, g)
	for b.Loop() {
		for range *rounds {
			if r.late(*budget) {
				fmt.Fprintf(os.Stderr, "stopped after round %d of %d, as %v are over; -budget 30m goes on\n", r.round, *rounds, *budget)
				break
			}
			r.run()
		}
	}
	r.table(os.Stderr)
	b.Cleanup(func() { r.figures(prefix(), local, exec) })
}

// enter makes the trees and all who race.
func enter(b *testing.B, g *ground) (r *race, local, exec *contender) {
	r = &race{b: b, g: g, all: *all, pause: time.Second, times: map[string]map[string][]time.Duration{}, requests: map[string]map[string]int64{}}
	for _, o := range operations {
		r.times[o.name], r.requests[o.name] = map[string][]time.Duration{}, map[string]int64{}
	}
	if *full {
		r.pause = 10 * time.Second
	}
	r.trees = plant(b, g)
	self := onHere(g.sub(b, "out"))
	r.places = append(r.places, self)
	add := func(name string, k kind, p *place, e engine) *contender {
		c := &contender{engine: e, name: name, kind: k, place: p, lost: map[string]error{}}
		r.contenders = append(r.contenders, c)
		return c
	}
	local = add("ours, local", ours, self, newVolumes(g, self, "local"))
	if box, err := inSandbox(b, filepath.Join(g.dir, "boxes")); err == nil {
		r.places = append(r.places, box)
		exec = add("ours, exec", ours, box, newVolumes(g, box, "exec"))
	} else {
		fmt.Fprintf(os.Stderr, "ours through exec left out: %v\n", err)
	}
	if err := canFloor(); err == nil {
		add("floor", floor, self, &tarball{g})
	} else {
		fmt.Fprintf(os.Stderr, "floor left out: %v; install GNU tar and zstd\n", err)
	}
	for _, t := range tools {
		file, err := find(t.name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "peer %s left out: it is absent; %s\n", t.name, t.get)
			continue
		}
		fmt.Fprintf(os.Stderr, "peer %s: %s\n", t.name, version(file))
		add(t.name, peer, self, &process{tool: t, g: g, path: file, jobs: map[string]job{}})
	}
	return r, local, exec
}

func canFloor() error {
	for _, name := range []string{"tar", "zstd"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	return nil
}

// plant makes the trees.
func plant(b *testing.B, g *ground) map[string]*tree {
	b.Helper()
	files, tops, size := 1000, 5, int64(8<<20)
	if *full {
		files, tops, size = 10_000, 50, 256<<20
	}
	repo, err := repoTree(g.sub(b, "repo"), files, tops)
	if err != nil {
		b.Fatal(err)
	}
	big, err := bigTree("big", g.sub(b, "big"), 4, size)
	if err != nil {
		b.Fatal(err)
	}
	return map[string]*tree{"repo": repo, "big": big}
}

// BenchmarkEdit counts what is uploaded after 1 MiB inside one large file changed.
func BenchmarkEdit(b *testing.B) {
	g := newGround(b)
	name, size := "small_edit_64m", int64(64<<20)
	if *full {
		name, size = "edit_1g", 1<<30
	}
	t, err := bigTree("large", g.sub(b, "large"), 1, size)
	if err != nil {
		b.Fatal(err)
	}
	v := newVolumes(g, onHere(g.dir), "edit")
	if err := v.fresh(g.ctx, t); err != nil {
		b.Fatal(err)
	}
	if err := v.sync(g.ctx, t); err != nil {
		b.Fatal(err)
	}
	var sent int64
	var took time.Duration
	for b.Loop() {
		if err := overwrite(filepath.Join(t.dir, t.files[0]), size/2+12345, 1<<20); err != nil {
			b.Fatal(err)
		}
		before, start := g.traffic.bytes.Load(), time.Now()
		if err := v.sync(g.ctx, t); err != nil {
			b.Fatal(err)
		}
		sent, took = g.traffic.bytes.Load()-before, time.Since(start)
	}
	b.Cleanup(func() {
		mib := float64(sent) / (1 << 20)
		fmt.Fprintf(os.Stderr, "%s: %.2f MiB sent in %.2f s\n", name, mib, took.Seconds())
		figure.Line(os.Stdout, name, mib, "MiB", mib, "what-changed(1MiB)")
	})
}
