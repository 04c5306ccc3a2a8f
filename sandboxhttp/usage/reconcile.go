package usage

import (
	"context"
	"errors"
)

// page is how many are read at once by what reads them all.
const page = 1000

// ReleaseGone releases those of a query's places that gone says are used no more, and
// returns how many: for a server that starts, and from time to time, as a server that was
// killed leaves its places taken. A place is taken before its sandbox or run is recorded,
// so one that is unknown may only be new: set Query.To to some minutes ago. What gone or
// the ledger cannot say of one place does not hold up the others; the errors are joined.
func ReleaseGone(ctx context.Context, l Ledger, q Query, gone func(context.Context, Place) (bool, error)) (int, error) {
	released := 0
	var failed error
	err := pages(ctx, q, l.Places, func(p Place) error {
		is, err := gone(ctx, p)
		if err == nil && is {
			err = l.Release(ctx, p.Account, p.Kind, p.ID)
		}
		switch {
		case err != nil:
			failed = errors.Join(failed, err)
		case is:
			released++
		}
		return context.Cause(ctx)
	})
	return released, errors.Join(err, failed)
}

// pages reads a list a page at a time, and calls fn for each of it.
func pages[T positioned](ctx context.Context, q Query, read func(context.Context, Query) ([]T, error), fn func(T) error) error {
	left, limited := q.Limit, q.Limit > 0
	for {
		q.Limit = page
		if limited {
			q.Limit = min(left, page)
		}
		list, err := read(ctx, q)
		if err != nil {
			return err
		}
		for _, item := range list {
			if err := fn(item); err != nil {
				return err
			}
			q.After = item.Position()
		}
		left -= len(list)
		if len(list) < q.Limit || limited && left == 0 {
			return nil
		}
	}
}
