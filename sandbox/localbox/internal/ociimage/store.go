//go:build linux

package ociimage

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Options vary a store. The zero value is a good default.
type Options struct {
	// MaxBytes bounds what the files of one image may hold together. 0 means 64 GiB.
	MaxBytes int64
	// MaxFiles bounds how many files one image may have. 0 means 4 million.
	MaxFiles int64
	// DockerLogin logs in at registries as this user's Docker does, where an
	// image brings no credentials.
	DockerLogin bool
	// Transport is for requests to registries. nil means one that uses the
	// proxy of the environment.
	Transport http.RoundTripper
	// Stall is how long a registry may send nothing. 0 means a minute.
	Stall time.Duration
}

const (
	defaultBytes = 64 << 30
	defaultFiles = 4 << 20
	defaultStall = time.Minute
)

// Store is a directory of images. Its methods are safe for concurrent use, also
// by several processes.
type Store struct {
	dir    string
	opts   Options
	owners bool // files get the owners that the image says
	secret []byte
}

// Open opens the store in dir, making it where it is missing, and removes what
// is left of processes that died and of images that were deleted while in use.
func Open(dir string, opts Options) (*Store, error) {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = defaultBytes
	}
	if opts.MaxFiles == 0 {
		opts.MaxFiles = defaultFiles
	}
	if opts.Stall == 0 {
		opts.Stall = defaultStall
	}
	s := &Store{dir: dir, opts: opts, owners: os.Geteuid() == 0 && ownsAllIDs()}
	for _, sub := range []string{"layers", "records", "keys", "locks", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.readSecret(); err != nil {
		return nil, err
	}
	return s, s.collect()
}

// readSecret reads the key of Key, making it for the first time.
func (s *Store) readSecret() (err error) {
	path := filepath.Join(s.dir, "secret")
	if s.secret, err = os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails, it says
	tmp := filepath.Join(s.dir, "secret."+rand.Text())
	if err := os.WriteFile(tmp, fresh, 0o600); err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.secret, err = os.ReadFile(path) // perhaps another process's
	return err
}

// Key makes a name from what an image is made of, from which nobody without the
// store can tell whether he guessed a part of it, such as a password.
func (s *Store) Key(parts ...string) string {
	h := hmac.New(sha256.New, s.secret)
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Config is what an image says beside its files.
type Config struct {
	Env        []string          `json:",omitempty"`
	Dir        string            `json:",omitempty"`
	User       string            `json:",omitempty"`
	Entrypoint []string          `json:",omitempty"`
	Command    []string          `json:",omitempty"`
	Shell      []string          `json:",omitempty"` // of RUN, CMD and ENTRYPOINT without brackets
	OnBuild    []string          `json:",omitempty"` // commands to run first in a build on top
	Labels     map[string]string `json:",omitempty"`
	Ports      []string          `json:",omitempty"` // EXPOSE, such as "80/tcp"
	Volumes    []string          `json:",omitempty"`
	StopSignal string            `json:",omitempty"`
	Health     string            `json:",omitempty"` // HEALTHCHECK, as it was written
}

// Record is an image.
type Record struct {
	ID      string
	Base    string   `json:",omitempty"` // what was pulled
	Digest  string   `json:",omitempty"` // of the manifest that was pulled
	Parent  string   `json:",omitempty"` // the image it was built on
	Step    bool     `json:",omitempty"` // made on the way to another: goes with the last one on top of it
	Host    bool     `json:",omitempty"`
	Layers  []string `json:",omitempty"` // chains, lowest first
	Config  Config
	Created time.Time
}

// Clone returns a copy that shares nothing.
func (r *Record) Clone() *Record {
	c := new(Record)
	text, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	if err != nil {
		panic(err) // only strings, and a time that was read or is now
	}
	return c
}

var validID = regexp.MustCompile(`^img-[0-9a-f]{20}$`)

// IsID reports whether id can be an image's.
func IsID(id string) bool { return validID.MatchString(id) }

func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:])
	return "img-" + hex.EncodeToString(b[:])
}

func (s *Store) record(id string) string { return filepath.Join(s.dir, "records", id+".json") }
func (s *Store) layer(chain string) string {
	return filepath.Join(s.dir, "layers", chain)
}

// treeName is the layer's files in its directory: a name of their own, since
// what they say of their root may forbid to move it.
const treeName = "fs"

func (s *Store) tree(chain string) string { return filepath.Join(s.layer(chain), treeName) }

// Lookup reads a record. An unknown id matches driver.ErrNotFound.
func (s *Store) Lookup(id string) (*Record, error) {
	if !IsID(id) {
		return nil, fmt.Errorf("image %q: %w", id, driver.ErrNotFound)
	}
	text, err := os.ReadFile(s.record(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image %s: %w", id, driver.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	rec := new(Record)
	if err := json.Unmarshal(text, rec); err != nil {
		return nil, fmt.Errorf("record of image %s: %w", id, err)
	}
	return rec, nil
}

// Root says where the files of an image are.
func (s *Store) Root(rec *Record) *Root {
	r := &Root{ID: rec.ID, Host: rec.Host, Record: s.record(rec.ID), Env: slices.Clone(rec.Config.Env),
		Dir: rec.Config.Dir, User: rec.Config.User,
		Entrypoint: slices.Clone(rec.Config.Entrypoint), Command: slices.Clone(rec.Config.Command)}
	for _, chain := range rec.Layers {
		r.Layers = append(r.Layers, s.tree(chain))
	}
	return r
}

// Put writes the record of a new image, whose ID it sets, or with an ID over the
// one that is there. Its layers must be those of an image that the caller holds.
func (s *Store) Put(ctx context.Context, rec *Record) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	return s.put(rec)
}

// put must be called between begin and end, as its layers have been made.
func (s *Store) put(rec *Record) error {
	if rec.ID == "" {
		rec.ID, rec.Created = newID(), time.Now().UTC()
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	tmp := s.record(rec.ID) + "." + rand.Text() // collect knows the form
	if err := writeSynced(tmp, text); err != nil {
		return plain(err, s.dir)
	}
	return os.Rename(tmp, s.record(rec.ID))
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Find returns the image that SetKey has named by key, or driver.ErrNotFound.
func (s *Store) Find(key string) (*Record, error) {
	id, err := os.Readlink(filepath.Join(s.dir, "keys", key))
	if err != nil {
		return nil, driver.ErrNotFound
	}
	return s.Lookup(id)
}

// SetKey makes Find find the image by key, and not the one before.
func (s *Store) SetKey(ctx context.Context, key, id string) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	path := filepath.Join(s.dir, "keys", key)
	tmp := path + "." + rand.Text()
	if err := os.Symlink(id, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// plain says in words what a full disk means.
func plain(err error, dir string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: the disk of %s is full; free some space, or delete images with DeleteSnapshot: %w",
			driver.ErrExhausted, dir, err)
	}
	return err
}

// ownsAllIDs reports whether this process is root outside of any user
// namespace, so that it may give a file to anybody.
func ownsAllIDs() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var inside, outside, count uint64
	n, err := fmt.Sscan(string(text), &inside, &outside, &count)
	return err == nil && n == 3 && inside == 0 && outside == 0 && count >= 1<<32-1
}
