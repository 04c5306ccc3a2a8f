package storagetest

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/vivarium-go/vivarium/storage"
)

// ErrInjected is matched by every error that a Faulty makes up.
var ErrInjected = errors.New("injected fault")

// Op names a method of storage.Bucket.
type Op string

// The operations of a bucket.
const (
	OpGet    Op = "get"
	OpPut    Op = "put"
	OpStat   Op = "stat"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Call is one call of a bucket.
type Call struct {
	// N counts the calls of a Faulty from 1.
	N int
	// Op is the method called.
	Op Op
	// Key is the object's key or, for a list, the prefix.
	Key string
}

// Fault says what goes wrong with a call.
type Fault int

const (
	// None lets the call through.
	None Fault = iota
	// Fail returns an error without doing anything.
	Fail
	// LoseAnswer does the whole call and then returns an error. A get and a list
	// are as with Fail: their answer is all they do.
	LoseAnswer
	// Cut breaks a stream after Faulty.CutAfter bytes, or half way through the
	// objects of a list. Of a put, nothing is stored. A stat and a delete are as
	// with Fail.
	Cut
)

// Faulty is a bucket in which things go wrong. Set its fields before its first
// use; it is safe for concurrent use if Plan is.
type Faulty struct {
	// Bucket does the work.
	Bucket storage.Bucket
	// Plan decides on each call. Nil: nothing goes wrong.
	Plan func(Call) Fault
	// CutAfter is how many bytes of a stream pass before Cut breaks it.
	CutAfter int64

	mu    sync.Mutex
	calls []Call
}

var _ storage.Bucket = (*Faulty)(nil)

// Nth is a Plan that lets fault happen to the nth call, counted from 1.
func Nth(n int, fault Fault) func(Call) Fault {
	return func(c Call) Fault {
		if c.N == n {
			return fault
		}
		return None
	}
}

// Calls returns the calls so far, in order.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

func (f *Faulty) plan(op Op, key string) Fault {
	f.mu.Lock()
	call := Call{N: len(f.calls) + 1, Op: op, Key: key}
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	if f.Plan == nil {
		return None
	}
	return f.Plan(call)
}

// Get implements storage.Bucket.
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	fault := f.plan(OpGet, key)
	if fault == Fail || fault == LoseAnswer {
		return nil, ErrInjected
	}
	r, err := f.Bucket.Get(ctx, key, offset, length)
	if err == nil && fault == Cut {
		r = cutStream{f.cut(r), r}
	}
	return r, err
}

type cutStream struct {
	io.Reader
	io.Closer
}

// cut gives r's first bytes and then the injected error, even where r is shorter.
func (f *Faulty) cut(r io.Reader) io.Reader {
	return io.MultiReader(io.LimitReader(r, f.CutAfter), broken{})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, ErrInjected }

// Put implements storage.Bucket.
func (f *Faulty) Put(ctx context.Context, key string, r io.Reader, opts *storage.PutOptions) error {
	switch f.plan(OpPut, key) {
	case Fail:
		return ErrInjected
	case Cut:
		return f.Bucket.Put(ctx, key, f.cut(r), opts)
	case LoseAnswer:
		return errors.Join(ErrInjected, f.Bucket.Put(ctx, key, r, opts))
	}
	return f.Bucket.Put(ctx, key, r, opts)
}

// Stat implements storage.Bucket.
func (f *Faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	if f.plan(OpStat, key) != None {
		return storage.Object{}, ErrInjected
	}
	return f.Bucket.Stat(ctx, key)
}

// List implements storage.Bucket.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		fault := f.plan(OpList, prefix)
		if fault == Fail || fault == LoseAnswer {
			yield(storage.Object{}, ErrInjected)
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
		if fault == Cut {
			all = all[:len(all)/2]
		}
		for _, object := range all {
			if !yield(object, nil) {
				return
			}
		}
		if fault == Cut {
			yield(storage.Object{}, ErrInjected)
		}
	}
}

// Delete implements storage.Bucket.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	switch f.plan(OpDelete, key) {
	case Fail, Cut:
		return ErrInjected
	case LoseAnswer:
		return errors.Join(ErrInjected, f.Bucket.Delete(ctx, key))
	}
	return f.Bucket.Delete(ctx, key)
}
