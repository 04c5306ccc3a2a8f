package modalbox

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Modal keeps of a sandbox only its tags: what Info tells is in some of our own.
const (
	tagPrefix = "vivarium-"
	tagIntent = tagPrefix + "intent" // a random word that finds the sandbox of a lost answer
	tagLife   = tagPrefix + "life"   // created (Unix milliseconds), Timeout and IdleTimeout (seconds)
	tagName   = tagPrefix + "name"
	tagDir    = tagPrefix + "dir"
	tagPorts  = tagPrefix + "ports"
	tagProbe  = tagPrefix + "probe"
	tagEnd    = tagPrefix + "end" // set by Terminate
)

// maxTagValue is how long a value may be, in bytes.
const maxTagValue = 255

// record is what is known of a sandbox that never changes.
type record struct {
	name      string
	dir       string
	created   time.Time
	timeout   time.Duration // 0: not known
	idle      time.Duration
	ports     []int
	encrypted bool
	probe     bool
	tags      map[string]string
}

// all are the tags to give to Modal: the user's and our own.
func (r *record) all(intent string) map[string]string {
	tags := maps.Clone(r.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[tagIntent] = intent
	tags[tagLife] = fmt.Sprintf("%d %d %d", r.created.UnixMilli(), r.timeout/time.Second, r.idle/time.Second)
	tags[tagDir] = r.dir
	if r.name != "" {
		tags[tagName] = r.name
	}
	if len(r.ports) > 0 {
		kind := "tcp"
		if r.encrypted {
			kind = "tls"
		}
		for _, p := range r.ports {
			kind += " " + strconv.Itoa(p)
		}
		tags[tagPorts] = kind
	}
	if r.probe {
		tags[tagProbe] = "yes"
	}
	return tags
}

// parseRecord reads them again. A sandbox that something else has made has none.
func parseRecord(tags map[string]string) *record {
	r := &record{name: tags[tagName], dir: tags[tagDir], probe: tags[tagProbe] != "", tags: map[string]string{}}
	var created, timeout, idle int64
	if _, err := fmt.Sscan(tags[tagLife], &created, &timeout, &idle); err == nil {
		r.created = time.UnixMilli(created)
		r.timeout, r.idle = time.Duration(timeout)*time.Second, time.Duration(idle)*time.Second
	}
	if kind, list, ok := strings.Cut(tags[tagPorts], " "); ok {
		r.encrypted = kind == "tls"
		for word := range strings.FieldsSeq(list) {
			if port, err := strconv.Atoi(word); err == nil {
				r.ports = append(r.ports, port)
			}
		}
	}
	for k, v := range tags {
		if !strings.HasPrefix(k, tagPrefix) {
			r.tags[k] = v
		}
	}
	return r
}

func readRecord(ctx context.Context, sb *modal.Sandbox) (*record, error) {
	tags, err := sb.GetTags(ctx, nil)
	if err != nil {
		return nil, called(ctx, "read the sandbox's tags", err)
	}
	return parseRecord(tags), nil
}

// info is the sandbox's description while it runs.
func (r *record) info(id string) *driver.Info {
	info := &driver.Info{
		ID: id, Name: r.name, Driver: "modalbox", Dir: r.dir, State: driver.StateRunning,
		CreatedAt: r.created, Tags: maps.Clone(r.tags), Isolated: true,
	}
	if r.timeout > 0 {
		info.ExpiresAt = r.created.Add(r.timeout)
	}
	return info
}

// soon is how much the clocks of Modal and of this machine may differ, and how
// late Modal may be, when it is told from the time why a sandbox has ended.
const soon = time.Second

// ended is the final description of a sandbox that ended with an exit code,
// which is all that the client tells: 137 when it was terminated, 124 when its
// time was over.
func (r *record) ended(id string, code int, now time.Time) *driver.Info {
	info := r.info(id)
	info.State, info.End, info.EndedAt = driver.StateEnded, driver.EndUnknown, now
	over := r.timeout > 0 && !now.Before(info.ExpiresAt.Add(-soon))
	switch {
	case code == 137:
		info.End = driver.EndCancelled
	case code == 124 && r.idle > 0 && !over:
		info.End = driver.EndIdle
	case code == 124 || over:
		info.End = driver.EndLifetime
	}
	if info.End == driver.EndLifetime && !info.ExpiresAt.IsZero() && info.ExpiresAt.Before(now) {
		info.EndedAt = info.ExpiresAt
	}
	if info.EndedAt.Before(info.CreatedAt) {
		info.EndedAt = info.CreatedAt
	}
	return info
}

// reserved names the user's tags that would be mistaken for our own.
func reserved(tags map[string]string) []string {
	var bad []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if strings.HasPrefix(k, tagPrefix) {
			bad = append(bad, k)
		}
	}
	return bad
}
