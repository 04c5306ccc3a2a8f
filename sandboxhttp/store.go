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
}

// The states of sandboxes and runs.
const (
	StateCreating = "creating"
	StateRunning  = string(sandbox.StateRunning)
	StateEnded    = string(sandbox.StateEnded)
)

// Store keeps the records of sandboxes and runs. Every method is about one
// account's records: what is another's is as if it were not there, and matches
// ErrNotFound. Records given and returned are the receiver's own. Its methods
// are safe for concurrent use.
type Store interface {
	// SaveSandbox adds a record, or replaces the one with its Account and ID.
	SaveSandbox(ctx context.Context, s *Sandbox) error
	Sandbox(ctx context.Context, account, id string) (*Sandbox, error)
	// Sandboxes lists an account's records, newest first.
	Sandboxes(ctx context.Context, account string, q Query) ([]*Sandbox, error)
	// DeleteSandbox removes a record and those of its runs; none is no error.
	DeleteSandbox(ctx context.Context, account, id string) error

	// SaveRun adds a record, or replaces the one with its Account, SandboxID and ID.
	SaveRun(ctx context.Context, r *Run) error
	Run(ctx context.Context, account, sandboxID, id string) (*Run, error)
	// Runs lists a sandbox's runs, oldest first.
	Runs(ctx context.Context, account, sandboxID string) ([]*Run, error)
	// DeleteRun removes a record; none is no error.
	DeleteRun(ctx context.Context, account, sandboxID, id string) error
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
	runs   []*Run // oldest first
}

// get returns nil where there is none. The caller holds mu.
func (m *MemoryStore) get(account, id string) *memorySandbox { return m.accounts[account][id] }

// SaveSandbox implements Store.
func (m *MemoryStore) SaveSandbox(_ context.Context, s *Sandbox) error {
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
	m.accounts[s.Account][s.ID] = &memorySandbox{record: s.clone()}
	return nil
}

// Sandbox implements Store.
func (m *MemoryStore) Sandbox(_ context.Context, account, id string) (*Sandbox, error) {
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
func (m *MemoryStore) Sandboxes(_ context.Context, account string, q Query) ([]*Sandbox, error) {
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
func (m *MemoryStore) DeleteSandbox(_ context.Context, account, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.accounts[account], id)
	if len(m.accounts[account]) == 0 {
		delete(m.accounts, account)
	}
	return nil
}

// SaveRun implements Store.
func (m *MemoryStore) SaveRun(_ context.Context, r *Run) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(r.Account, r.SandboxID)
	if have == nil {
		return ErrNotFound
	}
	saved := *r
	if i := have.index(r.ID); i >= 0 {
		have.runs[i] = &saved
		return nil
	}
	have.runs = append(have.runs, &saved)
	return nil
}

// Run implements Store.
func (m *MemoryStore) Run(_ context.Context, account, sandboxID, id string) (*Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(account, sandboxID)
	if have == nil {
		return nil, ErrNotFound
	}
	i := have.index(id)
	if i < 0 {
		return nil, ErrNotFound
	}
	r := *have.runs[i]
	return &r, nil
}

// Runs implements Store.
func (m *MemoryStore) Runs(_ context.Context, account, sandboxID string) ([]*Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	have := m.get(account, sandboxID)
	if have == nil {
		return nil, ErrNotFound
	}
	list := make([]*Run, len(have.runs))
	for i, r := range have.runs {
		saved := *r
		list[i] = &saved
	}
	return list, nil
}

// DeleteRun implements Store.
func (m *MemoryStore) DeleteRun(_ context.Context, account, sandboxID, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.get(account, sandboxID); have != nil {
		have.runs = slices.DeleteFunc(have.runs, func(r *Run) bool { return r.ID == id })
	}
	return nil
}

func (m *memorySandbox) index(id string) int {
	return slices.IndexFunc(m.runs, func(r *Run) bool { return r.ID == id })
}

func (s *Sandbox) position() Position { return Position{s.CreatedAt, s.ID} }

func (s *Sandbox) clone() Sandbox {
	c := *s
	c.Tags, c.Unenforced, c.Ports = maps.Clone(s.Tags), maps.Clone(s.Unenforced), maps.Clone(s.Ports)
	if s.Version != nil {
		v := *s.Version
		c.Version = &v
	}
	return c
}

// comparePositions orders newest first.
func comparePositions(a, b Position) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
}
