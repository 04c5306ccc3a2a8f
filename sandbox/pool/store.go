package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// ErrConflict is what Store.Save and Store.Delete return for a record that was changed
// since it was read.
var ErrConflict = errors.New("the record was changed by somebody else")

// Store keeps the records of pools: MemoryStore, the one of package sqlstore, or another
// that package pooltest accepts. Processes that share one share their pools.
//
// Records given and returned are the receiver's own. Texts are UTF-8 and may have any
// character in them; pools, keys, owners and IDs are compared byte by byte. Times
// are kept to the microsecond at least, and returned in UTC. After an error other than
// those named here a change may have been made or not. A method whose context has ended
// returns an error that matches its Err. Methods are safe for concurrent use.
type Store interface {
	// Save adds a record whose Revision is 0, or replaces the one with its Pool and Key
	// if that still has its Revision, and adds 1 to r.Revision. Otherwise it matches
	// ErrConflict. It matches fs.ErrExist when another record of the pool has the same
	// Owner and ID. When it has returned nil, the record is there for all who read
	// afterwards, also after a crash where the store outlives one.
	Save(ctx context.Context, r *Record) error
	// Record gives a record, or matches sandbox.ErrNotFound.
	Record(ctx context.Context, pool, key string) (*Record, error)
	// Records gives those that match: newest CreatedAt first, and of those made at the
	// same time the greatest Key.
	Records(ctx context.Context, q Query) ([]*Record, error)
	// Delete removes a record that still has r's Revision; otherwise it matches
	// ErrConflict. One that is not there is no error.
	Delete(ctx context.Context, r *Record) error
}

// Query says which records are asked for: those of which all that is set holds.
type Query struct {
	Pool  string // always holds: "" is the pool without a name
	Owner string // those of this owner
	ID    string // those with this ID
	Spare string // spares of this kind
	Live  bool   // those that are not terminated
	// EndedBefore matches those terminated whose EndedAt is before it.
	EndedBefore time.Time
}

// Match reports whether a record is one that is asked for.
func (q Query) Match(r *Record) bool {
	return r.Pool == q.Pool &&
		(q.Owner == "" || r.Owner == q.Owner) &&
		(q.ID == "" || r.ID == q.ID) &&
		(q.Spare == "" || r.Spare == q.Spare) &&
		(!q.Live || r.live()) &&
		(q.EndedBefore.IsZero() || !r.live() && r.EndedAt.Before(q.EndedBefore))
}

// MemoryStore is a Store that lasts as long as the process. The zero value is ready for
// use.
type MemoryStore struct {
	mu      sync.Mutex
	records map[[2]string]memoryRecord // by pool and key
}

// memoryRecord is a record, encoded so that nobody shares a part of it, and what is
// looked for.
type memoryRecord struct {
	Record
	data []byte
}

// Save implements Store.
func (m *MemoryStore) Save(ctx context.Context, r *Record) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	saved := *r
	saved.Revision++
	data, err := json.Marshal(&saved)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]string{r.Pool, r.Key}
	if m.records[key].Revision != r.Revision {
		return ErrConflict
	}
	for k, other := range m.records {
		if k != key && k[0] == r.Pool && other.Owner == r.Owner && other.ID == r.ID {
			return fmt.Errorf("a sandbox with the ID %q: %w", r.ID, fs.ErrExist)
		}
	}
	if m.records == nil {
		m.records = map[[2]string]memoryRecord{}
	}
	m.records[key] = memoryRecord{data: data, Record: Record{
		Pool: saved.Pool, Key: saved.Key, Revision: saved.Revision, Owner: saved.Owner, ID: saved.ID, Spare: saved.Spare,
		State: saved.State, CreatedAt: saved.CreatedAt, EndedAt: saved.EndedAt,
	}}
	r.Revision++
	return nil
}

func (m memoryRecord) decode() (*Record, error) {
	var r Record
	return &r, json.Unmarshal(m.data, &r)
}

// Record implements Store.
func (m *MemoryStore) Record(ctx context.Context, pool, key string) (*Record, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	have, ok := m.records[[2]string{pool, key}]
	m.mu.Unlock()
	if !ok {
		return nil, sandbox.ErrNotFound
	}
	return have.decode()
}

// Records implements Store.
func (m *MemoryStore) Records(ctx context.Context, q Query) ([]*Record, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	var found []memoryRecord
	m.mu.Lock()
	for _, have := range m.records {
		if q.Match(&have.Record) {
			found = append(found, have)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(found, func(a, b memoryRecord) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(b.Key, a.Key)
	})
	var list []*Record
	for _, have := range found {
		r, err := have.decode()
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// Delete implements Store.
func (m *MemoryStore) Delete(ctx context.Context, r *Record) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]string{r.Pool, r.Key}
	have, ok := m.records[key]
	if ok && have.Revision != r.Revision {
		return ErrConflict
	}
	delete(m.records, key)
	return nil
}
