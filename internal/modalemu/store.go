package modalemu

import (
	"bytes"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// store keeps what has a name, and the images, in memory and, for a server with
// a state directory, in one file of it. Its methods are safe for concurrent
// use; what they return is not to be changed.
type store struct {
	path string // of the file; "" for none

	mu    sync.Mutex
	saved []byte // what the file holds
	records
}

// records are what the file holds.
type records struct {
	Environments map[string]*environmentRecord // by name
	Apps         map[string]*appRecord         // by id
	Secrets      map[string]*secretRecord      // by id
	Volumes      map[string]*volumeRecord      // by id
	Images       map[string]*imageRecord       // by id
	ImageTags    map[string]string             // image id by "environment/name:tag"
	Proxies      map[string]*proxyRecord       // by name
	BuildKey     []byte                        // what digests of secret values are keyed with
}

type environmentRecord struct {
	ID, Name string
	Created  time.Time
	Managed  bool
	Role     string
}

type appRecord struct {
	ID, Name, Environment string
	Created               time.Time
}

// secretRecord is a secret. One without a name is a client's own, and lives as
// long as the server.
type secretRecord struct {
	ID, Name, Environment string
	Created               time.Time
	Values                map[string]string
	Seeded                bool // given by Options; in every environment
}

// volumeRecord is a volume. One without a name lives as long as its client's
// heartbeats.
type volumeRecord struct {
	ID, Name, Environment string
	Created               time.Time
	Version               int32
	Heartbeat             time.Time `json:"-"`
}

// imageRecord is an image that was built or snapshot.
type imageRecord struct {
	ID      string
	Recipe  string // digest of what it was made from; "" for a snapshot
	Driver  string // the driver's id of it; "" means Base
	Base    string // what the driver calls it, where there is no id
	Created time.Time
	Expires time.Time // zero: never
	// Mountable is an image of one directory, from which no sandbox starts.
	Mountable bool
	// KeyDigest is that of the key that the client has encrypted it with.
	KeyDigest []byte
	// Env, Dir and Entrypoint are the image's own.
	Env        []string
	Dir        string
	Entrypoint []string
}

type proxyRecord struct {
	ID, Name string
	Created  time.Time
}

// openStore reads the file at path, if there is one.
func openStore(path string) (*store, error) {
	s := &store{path: path}
	raw, err := os.ReadFile(path)
	switch {
	case path == "" || errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(raw, &s.records); err != nil {
			return nil, errors.New("state file " + path + " is damaged: " + err.Error())
		}
	}
	s.fill()
	return s, nil
}

// fill makes the maps that are missing.
func (s *store) fill() {
	r := &s.records
	makeMap(&r.Environments)
	makeMap(&r.Apps)
	makeMap(&r.Secrets)
	makeMap(&r.Volumes)
	makeMap(&r.Images)
	makeMap(&r.ImageTags)
	makeMap(&r.Proxies)
	if len(r.BuildKey) == 0 {
		r.BuildKey = []byte(randomString(32))
	}
}

func makeMap[K comparable, V any](m *map[K]V) {
	if *m == nil {
		*m = make(map[K]V)
	}
}

// save writes the file anew, through one beside it; s.mu is held.
func (s *store) save() error {
	if s.path == "" {
		return nil
	}
	kept := s.records
	kept.Secrets = without(s.Secrets, func(r *secretRecord) bool { return r.Name == "" || r.Seeded })
	kept.Volumes = without(s.Volumes, func(r *volumeRecord) bool { return r.Name == "" })
	raw, err := json.MarshalIndent(&kept, "", "\t")
	if err != nil {
		return err
	}
	if bytes.Equal(raw, s.saved) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), "state-*.tmp") // mode 0600: it holds secrets
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	s.saved = raw
	return nil
}

func without[V any](m map[string]V, drop func(V) bool) map[string]V {
	kept := make(map[string]V, len(m))
	for k, v := range m {
		if !drop(v) {
			kept[k] = v
		}
	}
	return kept
}

// change runs f with the records, and saves them when f returns nil.
func (s *store) change(f func(r *records) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := f(&s.records); err != nil {
		return err
	}
	return s.save()
}

// read runs f with the records.
func (s *store) read(f func(r *records)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.records)
}

// image finds an image that has not expired, or nil.
func (s *store) image(id string) *imageRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	img := s.Images[id]
	if img == nil || img.expired(time.Now()) {
		return nil
	}
	return img
}

func (r *imageRecord) expired(now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

// opens reports whether key is the one that the image was encrypted with; an
// image without one opens without one.
func (r *imageRecord) opens(digest []byte) bool {
	return hmac.Equal(r.KeyDigest, digest) || len(r.KeyDigest) == 0 && len(digest) == 0
}

// names are the keys of m, sorted.
func names[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
