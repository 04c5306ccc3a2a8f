package sqlstore

import (
	"encoding/json"
	"math"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// sandboxRecord is a sandboxhttp.Sandbox as it is stored. One converts to the other
// only while they have the same fields, so none can be forgotten here.
type sandboxRecord struct {
	ID         string               `json:"-"` // a column
	Name       string               `json:"name,omitempty"`
	State      string               `json:"state"`
	End        sandbox.End          `json:"end,omitempty"`
	CreatedAt  time.Time            `json:"created_at"`
	ExpiresAt  time.Time            `json:"expires_at,omitzero"`
	EndedAt    time.Time            `json:"ended_at,omitzero"`
	VolumeName string               `json:"volume_name,omitempty"`
	Version    *sandboxhttp.Version `json:"version,omitempty"`
	Tags       map[string]string    `json:"tags,omitzero"` // not omitempty: an empty map is not nil
	Isolated   bool                 `json:"isolated,omitempty"`
	Unenforced map[string]string    `json:"unenforced,omitzero"`
	Ports      map[string]string    `json:"ports,omitzero"`

	Account    string `json:"-"` // a column
	ProviderID string `json:"provider_id,omitempty"`
	OwnBucket  bool   `json:"own_bucket,omitempty"`
	Head       string `json:"head,omitempty"`
	Saved      bool   `json:"saved,omitempty"`
}

// runRecord is a sandboxhttp.Run as it is stored.
type runRecord struct {
	ID        string    `json:"-"` // a column
	SandboxID string    `json:"-"` // a column
	SessionID string    `json:"session_id,omitempty"`
	Prompt    string    `json:"prompt"`
	State     string    `json:"state"`
	End       string    `json:"end,omitempty"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Events    uint64    `json:"events,omitempty"`
	CostUSD   float64   `json:"cost_usd,omitempty"`
	Turns     int       `json:"turns,omitempty"`
	Error     string    `json:"error,omitempty"`

	Account string `json:"-"` // a column
	Request string `json:"request,omitempty"`
}

func encodeSandbox(s *sandboxhttp.Sandbox) ([]byte, error) {
	rec := sandboxRecord(*s)
	rec.CreatedAt, rec.ExpiresAt, rec.EndedAt = rec.CreatedAt.UTC(), rec.ExpiresAt.UTC(), rec.EndedAt.UTC()
	if rec.Version != nil {
		v := *rec.Version
		v.CreatedAt = v.CreatedAt.UTC()
		rec.Version = &v
	}
	return json.Marshal(rec)
}

func decodeSandbox(account, id string, data []byte) (*sandboxhttp.Sandbox, error) {
	var rec sandboxRecord
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, err
	}
	rec.Account, rec.ID = account, id
	s := sandboxhttp.Sandbox(rec)
	return &s, nil
}

func encodeRun(r *sandboxhttp.Run) ([]byte, error) {
	rec := runRecord(*r)
	rec.StartedAt, rec.EndedAt = rec.StartedAt.UTC(), rec.EndedAt.UTC()
	return json.Marshal(rec)
}

func decodeRun(account, sandboxID, id string, data []byte) (*sandboxhttp.Run, error) {
	var rec runRecord
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, err
	}
	rec.Account, rec.SandboxID, rec.ID = account, sandboxID, id
	r := sandboxhttp.Run(rec)
	return &r, nil
}

// nanoseconds is a time as lists are ordered by it. What is too early or too late for
// the number is as early or as late as can be: the zero time for one.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}
