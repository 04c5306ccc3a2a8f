package storagetest

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/storage"
)

// Op names what a call asks for: a method of storage.Bucket or, where a [Proxy]
// sees it, a kind of S3 request.
type Op string

// The operations of a bucket.
const (
	OpGet    Op = "get"
	OpPut    Op = "put"
	OpStat   Op = "stat"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Call is one call of a bucket, or one request that a [Proxy] sees.
type Call struct {
	// N counts the calls from 1.
	N int
	// OfOp counts the calls with the same Op from 1.
	OfOp int
	// Op is what was asked for.
	Op Op
	// Key is the object's key or, for a list, the prefix.
	Key string
}

// Faulty is a bucket that counts what is asked of it, and in which things go
// wrong. Set its fields before its first use; it is safe for concurrent use if
// Plan is, and must not be copied.
//
// A crash test runs the same work once for each n, with [Crash] of n as Plan,
// until [Faulty.Injected] says that the work was over before the nth call, and
// looks after each run at what the bucket beneath then holds.
type Faulty struct {
	// Bucket does the work.
	Bucket storage.Bucket
	// Plan decides on each call, before it does anything. Nil: nothing goes wrong.
	Plan func(Call) Fault
	// CutAfter is where [Cut] breaks a stream that [Fault.After] does not say.
	CutAfter int64
	// Lag is how many of the newest changes (puts and deletes through this Faulty)
	// a list with the fault [Stale] does not know of. Zero: none, and no changes are
	// remembered. Otherwise each change asks the bucket for one stat more.
	Lag int

	tally    tally
	mu       sync.Mutex
	injected int
	dead     error // after a crash
	changes  []change
}

var (
	_ storage.Bucket    = (*Faulty)(nil)
	_ storage.Presigner = (*Faulty)(nil)
)

// tally records calls.
type tally struct {
	mu    sync.Mutex
	calls []Call
	of    map[Op]int
}

func (y *tally) add(op Op, key string) Call {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.of == nil {
		y.of = map[Op]int{}
	}
	y.of[op]++
	call := Call{N: len(y.calls) + 1, OfOp: y.of[op], Op: op, Key: key}
	y.calls = append(y.calls, call)
	return call
}

func (y *tally) all() []Call {
	y.mu.Lock()
	defer y.mu.Unlock()
	return slices.Clone(y.calls)
}

func (y *tally) count(ops []Op) (n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(ops) == 0 {
		return len(y.calls)
	}
	for _, op := range ops {
		n += y.of[op]
	}
	return n
}

// Calls returns the calls so far, in order.
func (f *Faulty) Calls() []Call { return f.tally.all() }

// Count returns how many calls with one of ops there were so far, or with any
// where none is named.
func (f *Faulty) Count(ops ...Op) int { return f.tally.count(ops) }

// Injected returns how many calls had a fault so far.
func (f *Faulty) Injected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected
}

// Crash makes every later call fail with err, and every stream that is open break
// with it. Nil err means ErrInjected.
func (f *Faulty) Crash(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = Fail.With(err).error()
}

func (f *Faulty) plan(op Op, key string) Fault {
	call := f.tally.add(op, key)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead != nil {
		f.injected++
		return Fault{kind: fail, err: f.dead}
	}
	fault := None
	if f.Plan != nil {
		fault = f.Plan(call)
	}
	if fault != None {
		f.injected++
	}
	if fault.crash {
		f.dead = fault.error()
	}
	return fault
}

func (f *Faulty) died() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// Get implements storage.Bucket.
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	fault := f.plan(OpGet, key)
	if fault.kind == fail || fault.kind == loseAnswer {
		return nil, fault.error()
	}
	r, err := f.Bucket.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &stream{f: f, r: fault.spoil(r, f.CutAfter), c: r}, nil
}

// stream breaks with its bucket.
type stream struct {
	f *Faulty
	r io.Reader
	c io.Closer
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.f.died(); err != nil && !brokenBy(s.r) {
		return 0, err
	}
	return s.r.Read(p)
}

func (s *stream) Close() error { return s.c.Close() }

// cutStream is a stream of which only the reading is spoiled.
type cutStream struct {
	io.Reader
	io.Closer
}

// cut gives r's first bytes and then the injected error, even where r is shorter.
func (f *Faulty) cut(r io.Reader) io.Reader { return Cut.spoil(r, f.CutAfter) }

// Put implements storage.Bucket.
func (f *Faulty) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	fault := f.plan(OpPut, key)
	if fault.kind == fail {
		return fault.error()
	}
	if fault.kind == cut || fault.kind == flip {
		r = fault.spoil(r, f.CutAfter)
	}
	err := f.changing(ctx, key, func() error { return f.Bucket.Put(ctx, key, r, opts) })
	if fault.kind == loseAnswer {
		return errors.Join(fault.error(), err)
	}
	return err
}

// Stat implements storage.Bucket.
func (f *Faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	if fault := f.plan(OpStat, key); fault.fails() {
		return storage.Object{}, fault.error()
	}
	return f.Bucket.Stat(ctx, key)
}

// List implements storage.Bucket.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		fault := f.plan(OpList, prefix)
		if fault.kind == fail || fault.kind == loseAnswer {
			yield(storage.Object{}, fault.error())
			return
		}
		var all []storage.Object
		for object, err := range f.Bucket.List(ctx, prefix) {
			if err != nil {
				yield(storage.Object{}, err)
				return
			}
			all = append(all, object)
		}
		switch fault.kind {
		case stale:
			all = f.older(prefix, all)
		case cut:
			all = all[:len(all)/2]
		}
		for _, object := range all {
			if !yield(object, nil) {
				return
			}
		}
		if fault.kind == cut {
			yield(storage.Object{}, fault.error())
		}
	}
}

// Delete implements storage.Bucket.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	fault := f.plan(OpDelete, key)
	if fault.kind == fail || fault.kind == cut {
		return fault.error()
	}
	err := f.changing(ctx, key, func() error { return f.Bucket.Delete(ctx, key) })
	if fault.kind == loseAnswer {
		return errors.Join(fault.error(), err)
	}
	return err
}

// PresignGet implements storage.Presigner where the bucket does. It is no request,
// and so neither counted nor failed.
func (f *Faulty) PresignGet(ctx context.Context, key string, offset, length int64, expires time.Duration) (*storage.PresignedRequest, error) {
	p, err := storage.PresignerOf(f.Bucket)
	if err != nil {
		return nil, err
	}
	return p.PresignGet(ctx, key, offset, length, expires)
}

// PresignPut implements storage.Presigner where the bucket does, as PresignGet.
func (f *Faulty) PresignPut(ctx context.Context, key string, size int64, sha256 []byte, expires time.Duration) (*storage.PresignedRequest, error) {
	p, err := storage.PresignerOf(f.Bucket)
	if err != nil {
		return nil, err
	}
	return p.PresignPut(ctx, key, size, sha256, expires)
}

// change is what a key had before a put or a delete.
type change struct {
	key string
	was *storage.Object // nil: nothing
}

// changing does a change and remembers it.
func (f *Faulty) changing(ctx context.Context, key string, do func() error) error {
	if f.Lag <= 0 {
		return do()
	}
	c := change{key: key}
	switch was, err := f.Bucket.Stat(ctx, key); {
	case err == nil:
		c.was = &was
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := do(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes = append(f.changes, c)
	return nil
}

// older takes the newest changes back from a list.
func (f *Faulty) older(prefix string, all []storage.Object) []storage.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.changes) - 1; i >= max(0, len(f.changes)-f.Lag); i-- {
		c := f.changes[i]
		if !strings.HasPrefix(c.key, prefix) {
			continue
		}
		all = slices.DeleteFunc(all, func(o storage.Object) bool { return o.Key == c.key })
		if c.was != nil {
			all = append(all, *c.was)
		}
	}
	slices.SortFunc(all, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	return all
}
