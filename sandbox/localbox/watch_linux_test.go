package localbox_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

// mirror is what a watch says that a directory holds.
type mirror map[string]bool

func (m mirror) apply(c sandbox.Change) {
	switch c.Op {
	case sandbox.ChangeCreate:
		m[c.Names[0]] = true
	case sandbox.ChangeRemove:
		m.remove(c.Names[0])
	case sandbox.ChangeRename:
		m.rename(c.Names[0], c.Names[1])
	}
}

func (m mirror) remove(name string) {
	maps.DeleteFunc(m, func(p string, _ bool) bool { return p == name || strings.HasPrefix(p, name+"/") })
}

func (m mirror) rename(from, to string) {
	switch {
	case from == "":
		m[to] = true
		return
	case to == "":
		m.remove(from)
		return
	}
	for p := range maps.Clone(m) {
		if p == from || strings.HasPrefix(p, from+"/") {
			delete(m, p)
			m[to+strings.TrimPrefix(p, from)] = true
		}
	}
	m[to] = true
}

// churn makes, moves and removes trees, several at once, and then a file "end".
const churn = `
work() {
	i=0
	while [ $i -lt 25 ]; do
		i=$((i+1))
		mkdir -p $1/a$i/b/c $1/x$i && touch $1/a$i/f $1/a$i/b/f $1/a$i/b/c/f $1/x$i/f
		mv $1/a$i $1/x$i/moved && mkdir $1/n$i && mv $1/x$i/moved/b $1/n$i/b && touch $1/n$i/b/c/g
		mv $1/n$i ../out$1$i && mv ../out$1$i $1/back$i && touch $1/back$i/b/h
		mv -f $1/x$i/f $1/back$i/b/f
		[ $((i % 3)) = 0 ] && rm -rf $1/back$i
		[ $((i % 4)) = 0 ] && rm -rf $1/x$i && mkdir -p $1/x$i/again/deep && touch $1/x$i/again/deep/f
	done
}
cd tree
for w in w1 w2 w3 w4; do mkdir $w; work $w & done
wait
touch end`

// TestWatchMirrors holds that following a watch gives what is there.
func TestWatchMirrors(t *testing.T) {
	sb := create(t, open(t, stateDir(t)), nil)
	sh(t, sb, "mkdir tree")
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	seq, err := sb.FS(ctx).Watch("tree", true)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	cmd := sb.Command(testContext(t), "sh", "-c", churn)
	go func() {
		out, err := cmd.CombinedOutput()
		if len(out) > 0 {
			err = errors.Join(err, errors.New(string(out)))
		}
		done <- err
	}()
	root := path.Join(sb.Dir(), "tree")
	m := mirror{root: true}
	for c, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if c.Op == sandbox.ChangeOverflow {
			t.Fatal("changes were lost")
		}
		m.apply(c)
		if c.Op == sandbox.ChangeCreate && c.Names[0] == root+"/end" {
			break
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(sh(t, sb, `find "$PWD/tree"`))
	slices.Sort(want)
	got := slices.Sorted(maps.Keys(m))
	if !slices.Equal(got, want) {
		t.Errorf("%d files by the watch, %d there; only by the watch: %q; only there: %q", len(got), len(want),
			missing(got, want), missing(want, got))
	}
}

// missing is what of a is not in b.
func missing(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// TestWatchOverflow lets more happen than the kernel keeps (fs.inotify.max_queued_events).
func TestWatchOverflow(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Skipf("the limit is not known: %v", err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit > 100_000 {
		t.Skipf("a limit of %q takes too long to reach", text)
	}
	sb := create(t, open(t, stateDir(t)), nil)
	sh(t, sb, "mkdir -p tree/a")
	seq, err := sb.FS(testContext(t)).Watch("tree", true)
	if err != nil {
		t.Fatal(err)
	}
	next, stop := iter.Pull2(seq)
	defer stop()
	sh(t, sb, `cd tree; i=0; while [ $i -lt `+strconv.Itoa(limit/2)+` ]; do : > a/f$i; i=$((i+1)); done; mkdir -p late/b`)
	step := func(want sandbox.ChangeOp, name string) {
		t.Helper()
		for {
			c, err, ok := next()
			if !ok || err != nil {
				t.Fatalf("the watch ended: %v", err)
			}
			if c.Op == want && (name == "" || c.Names[0] == name) {
				return
			}
		}
	}
	step(sandbox.ChangeOverflow, "")
	// What was lost, the new directories among it, is watched all the same.
	sh(t, sb, `mkdir tree/now`)
	step(sandbox.ChangeCreate, sb.Dir()+"/tree/now")
	sh(t, sb, `touch tree/late/b/f`)
	step(sandbox.ChangeCreate, sb.Dir()+"/tree/late/b/f")
}

// TestWatchLeavesNothing starts watches and ends them in every way.
func TestWatchLeavesNothing(t *testing.T) {
	sb := create(t, open(t, stateDir(t)), nil)
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := descriptors()
	for i := range 150 { // as a rule more than fs.inotify.max_user_instances, so the helper keeps none either
		ctx, cancel := context.WithCancel(testContext(t))
		seq, err := sb.FS(ctx).Watch(".", true)
		if err != nil {
			t.Fatalf("watch %d: %v", i, err)
		}
		switch i % 3 {
		case 0: // nobody ranges over it
			cancel()
		case 1:
			sh(t, sb, "touch f")
			for range seq {
				break
			}
		case 2:
			cancel()
			for _, err := range seq {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("the end: %v", err)
				}
			}
		}
		cancel()
	}
	eventually(t, "descriptors are closed", func() bool { return descriptors() <= before })
}
