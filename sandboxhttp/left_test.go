package sandboxhttp_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// leftBox makes a sandbox in the place as a server that was killed leaves it: with a
// record of its own in each store, and where made is set a sandbox.
func leftBox(t *testing.T, p *place, store sandboxhttp.Store, id, state, volume string, made bool, at time.Time) {
	t.Helper()
	key := "key-" + id
	tags := map[string]string{"vivarium.id": id, "vivarium.account": "acme", pool.TagPool: "pool", pool.TagBox: key + "-1"}
	rec := &sandboxhttp.Sandbox{ID: id, Account: "acme", State: state, CreatedAt: at, VolumeName: volume}
	r := &pool.Record{
		Pool: "pool", Key: key, ID: id, Owner: "acme", State: pool.State(state), CreatedAt: at.UTC(), ActiveAt: time.Now().UTC(),
		ExpiresAt: time.Now().Add(24 * time.Hour).UTC(), Boxes: 1, Box: pool.Box{Name: key + "-1", ExpiresAt: time.Now().Add(25 * time.Hour).UTC()},
		Lease: pool.Lease{Holder: "killed", Until: time.Now().UTC()},
	}
	if made {
		if _, err := p.Create(t.Context(), &driver.Config{Name: key + "-1", Tags: tags, Timeout: 25 * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if state == sandboxhttp.StateRunning {
		r.Box.ID = boxOf(p, map[string]any{"id": id}).info.ID
		rec.ProviderID = r.Box.ID
	}
	if err := p.pools.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveSandbox(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
}

// becomes waits for a sandbox to be in a state.
func (s *server) becomes(id, state string) map[string]any {
	s.t.Helper()
	var got map[string]any
	until(s.t, id+" is "+state, func() bool {
		got = s.ask(200, "GET", "/sandbox/"+strings.TrimPrefix(id, "/sandbox/"), "")
		return got["state"] == state
	})
	return got
}
