package sandboxhttp

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

// Sandbox is the record of a sandbox, and how clients read it. It holds no
// secret.
type Sandbox struct {
	ID         string            `json:"id"`
	Name       string            `json:"name,omitempty"`
	State      string            `json:"state"` // StateCreating, "running" or "ended"
	End        sandbox.End       `json:"end,omitempty"`
	CreatedAt  time.Time         `json:"created_at"`
	ExpiresAt  time.Time         `json:"expires_at,omitzero"`
	EndedAt    time.Time         `json:"ended_at,omitzero"`
	VolumeName string            `json:"volume_name,omitempty"`
	Version    *Version          `json:"version,omitempty"`
	Tags       map[string]string `json:"tags"`
	Isolated   bool              `json:"isolated"`
	Unenforced map[string]string `json:"unenforced,omitempty"`
	Ports      map[string]string `json:"ports,omitempty"`

	Account    string `json:"-"` // whose it is
	ProviderID string `json:"-"` // what Provider.Attach takes; "" until it is known
	OwnBucket  bool   `json:"-"` // its volume is in a bucket whose keys the client brought
	Head       string `json:"-"` // the newest version that it knows of: what its next save builds on
	Saved      bool   `json:"-"` // Version was saved when it was deleted
}

// Version is a state of a sandbox's volume.
type Version struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	// Conflict says that another version became the newest first, and that this one
	// was kept beside it.
	Conflict bool `json:"conflict,omitempty"`
}

// Run is the record of a run, and how clients read it.
type Run struct {
	ID        string    `json:"id"`
	SandboxID string    `json:"sandbox_id"`
	SessionID string    `json:"session_id,omitempty"` // known once the CLI has begun
	Prompt    string    `json:"prompt"`
	State     string    `json:"state"` // "running" or "ended"
	End       string    `json:"end,omitempty"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Events    uint64    `json:"events"` // the id of its newest event
	CostUSD   float64   `json:"cost_usd"`
	Turns     int       `json:"-"`
	Error     string    `json:"error,omitempty"`

	Account string `json:"-"` // whose it is
	// Request is what was asked for, as JSON, so that another server can begin the run.
	Request string `json:"-"`
}

// The states of sandboxes and runs.
const (
	StateCreating = "creating"
	StateRunning  = string(sandbox.StateRunning)
	StateEnded    = string(sandbox.StateEnded)
)

// Store keeps the records of sandboxes and runs: MemoryStore, those of package
// sqlstore, or another that package storetest accepts.
//
// Every method but RunningRuns is about one account's records: what is another's is as if it were
// not there, and matches ErrNotFound. Records given and returned are the receiver's
// own. Texts are UTF-8 of any length and may have any character in them; ids and
// accounts are compared byte by byte. Times are kept to the microsecond at least, and
// returned in UTC. A method whose context has ended returns an error that matches
// its Err. Methods are safe for concurrent use.
type Store interface {
	// SaveSandbox adds a record, or replaces the one with its Account and ID. When
	// it has returned nil, the record is there for all who read afterwards.
	SaveSandbox(ctx context.Context, s *Sandbox) error
	Sandbox(ctx context.Context, account, id string) (*Sandbox, error)
	// Sandboxes lists an account's records: newest CreatedAt first, and of those made
	// at the same time the greatest ID.
	Sandboxes(ctx context.Context, account string, q Query) ([]*Sandbox, error)
	// DeleteSandbox removes a record and those of its runs; none is no error.
	DeleteSandbox(ctx context.Context, account, id string) error

	// SaveRun adds a record, or replaces the one with its Account, SandboxID and ID.
	// Without a record of the sandbox it matches ErrNotFound.
	SaveRun(ctx context.Context, r *Run) error
	Run(ctx context.Context, account, sandboxID, id string) (*Run, error)
	// Runs lists a sandbox's runs: oldest StartedAt first, and of those that began at
	// the same time the least ID. Without a record of the sandbox it matches ErrNotFound.
	Runs(ctx context.Context, account, sandboxID string) ([]*Run, error)
	// DeleteRun removes a record; none is no error.
	DeleteRun(ctx context.Context, account, sandboxID, id string) error
	// RunningRuns lists the runs of all accounts whose State is StateRunning, oldest
	// first, as Runs orders them: those that a server looks for which takes over what
	// another has left.
	RunningRuns(ctx context.Context) ([]*Run, error)
}

// Query narrows a list of sandboxes. The zero value matches all.
type Query struct {
	State string   // those in this state
	After Position // those that come after this one in the list
	Limit int      // so many at most; 0 is all
}

// Position is a place in a list of sandboxes: after the one that has these.
type Position struct {
	CreatedAt time.Time
	ID        string
}

// MemoryStore is a Store that lasts as long as the process. The zero value is
// ready for use.
type MemoryStore struct {
	mu       sync.Mutex
	accounts map[string]map[string]*memorySandbox // by account and id
}

type memorySandbox struct {
	record Sandbox
	runs   map[string]Run // by id
}

// get returns nil where there is none. The caller holds mu.
func (m *MemoryStore) get(account, id string) *memorySandbox { return m.accounts[account][id] }

// SaveSandbox implements Store.
func (m *MemoryStore) SaveSandbox(ctx context.Context, s *Sandbox) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.get(s.Account, s.ID); have != nil {
		have.record = s.clone()
		return nil
	}
	if m.accounts == nil {
		m.accounts = map[string]map[string]*memorySandbox{}
	}
	if m.accounts[s.Account] == nil {
		m.accounts[s.Account] = map[string]*memorySandbox{}
	}
	m.accounts[s.Account][s.ID] = &memorySandbox{record: s.clone(), runs: map[string]Run{}}
	return nil
}

// Sandbox implements Store.
func (m *MemoryStore) Sandbox(ctx context.Context, account, id string) (*Sandbox, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(account, id)
	if have == nil {
		return nil, ErrNotFound
	}
	s := have.record.clone()
	return &s, nil
}

// Sandboxes implements Store.
func (m *MemoryStore) Sandboxes(ctx context.Context, account string, q Query) ([]*Sandbox, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Sandbox
	for _, have := range m.accounts[account] {
		if q.State != "" && have.record.State != q.State {
			continue
		}
		if q.After.ID != "" && comparePositions(q.After, have.record.position()) >= 0 {
			continue
		}
		s := have.record.clone()
		list = append(list, &s)
	}
	slices.SortFunc(list, func(a, b *Sandbox) int { return comparePositions(a.position(), b.position()) })
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list, nil
}

// DeleteSandbox implements Store.
func (m *MemoryStore) DeleteSandbox(ctx context.Context, account, id string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.accounts[account], id)
	if len(m.accounts[account]) == 0 {
		delete(m.accounts, account)
	}
	return nil
}

// SaveRun implements Store.
func (m *MemoryStore) SaveRun(ctx context.Context, r *Run) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(r.Account, r.SandboxID)
	if have == nil {
		return ErrNotFound
	}
	have.runs[r.ID] = r.clone()
	return nil
}

// Run implements Store.
func (m *MemoryStore) Run(ctx context.Context, account, sandboxID, id string) (*Run, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(account, sandboxID)
	if have == nil {
		return nil, ErrNotFound
	}
	r, ok := have.runs[id]
	if !ok {
		return nil, ErrNotFound
	}
	return &r, nil
}

// Runs implements Store.
func (m *MemoryStore) Runs(ctx context.Context, account, sandboxID string) ([]*Run, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(account, sandboxID)
	if have == nil {
		return nil, ErrNotFound
	}
	list := make([]*Run, 0, len(have.runs))
	for _, r := range have.runs {
		list = append(list, &r)
	}
	sortRuns(list)
	return list, nil
}

// RunningRuns implements Store.
func (m *MemoryStore) RunningRuns(ctx context.Context) ([]*Run, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*Run
	for _, boxes := range m.accounts {
		for _, have := range boxes {
			for _, r := range have.runs {
				if r.State == StateRunning {
					list = append(list, &r)
				}
			}
		}
	}
	sortRuns(list)
	return list, nil
}

func sortRuns(list []*Run) {
	slices.SortFunc(list, func(a, b *Run) int {
		return cmp.Or(a.StartedAt.Compare(b.StartedAt), cmp.Compare(a.ID, b.ID))
	})
}

// DeleteRun implements Store.
func (m *MemoryStore) DeleteRun(ctx context.Context, account, sandboxID, id string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.get(account, sandboxID); have != nil {
		delete(have.runs, id)
	}
	return nil
}

func (s *Sandbox) position() Position { return Position{s.CreatedAt, s.ID} }

func (s *Sandbox) clone() Sandbox {
	c := *s
	c.Tags, c.Unenforced, c.Ports = maps.Clone(s.Tags), maps.Clone(s.Unenforced), maps.Clone(s.Ports)
	c.CreatedAt, c.ExpiresAt, c.EndedAt = s.CreatedAt.UTC(), s.ExpiresAt.UTC(), s.EndedAt.UTC()
	if s.Version != nil {
		v := *s.Version
		v.CreatedAt = v.CreatedAt.UTC()
		c.Version = &v
	}
	return c
}

func (r *Run) clone() Run {
	c := *r
	c.StartedAt, c.EndedAt = r.StartedAt.UTC(), r.EndedAt.UTC()
	return c
}

// comparePositions orders newest first.
func comparePositions(a, b Position) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
}
