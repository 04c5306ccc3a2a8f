package storage

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// Version is one stored state of a volume.
type Version struct {
	// ID names the version within its volume. IDs sort as text in the order of
	// their times.
	ID string
	// Time is when the version's Sync began, in UTC. It is always after the
	// times of the versions that existed then, whatever the clocks of the
	// machines that made them say.
	Time time.Time
	// Files counts regular files, hard links included.
	Files int64
	// Size is the sum of the files' lengths in bytes, holes included.
	Size int64
	// Stored is what the version takes in the bucket, in bytes.
	Stored int64
	// Changed names up to 100 files, as tar prints them, that were written to
	// or removed while they were read. Such a file may hold a mixture of moments
	// (zero bytes at its end if it shrank), or be absent. A Sync while nothing
	// writes leaves it empty.
	Changed []string
}

const (
	formatNumber = 1
	maxManifest  = 1 << 20
	maxChanged   = 100
)

// manifest is the JSON object whose presence makes a version exist.
type manifest struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Files   int64     `json:"files"`
	Size    int64     `json:"size"`
	Changed []string  `json:"changed,omitempty"`
	Archive archive   `json:"archive"`
}

// archive describes the tar.zst object of a version.
type archive struct {
	Size    int64  `json:"size"`     // bytes as stored
	TarSize int64  `json:"tar_size"` // bytes of tar inside
	SHA256  string `json:"sha256"`   // of the bytes as stored, lower-case hex
}

func (m *manifest) version() *Version {
	return &Version{ID: m.ID, Time: m.Time, Files: m.Files, Size: m.Size, Stored: m.Archive.Size, Changed: m.Changed}
}

// parseManifest reads the manifest of the version called id.
func parseManifest(data []byte, id string) (*manifest, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if head.Format != formatNumber {
		return nil, fmt.Errorf("manifest has format %d, and this program reads %d: %w", head.Format, formatNumber, errors.ErrUnsupported)
	}
	m := new(manifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := m.check(id); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

func (m *manifest) check(id string) error {
	t, ok := idTime(m.ID)
	switch {
	case m.ID != id:
		return fmt.Errorf("it is of version %q", clip(m.ID))
	case !ok || !t.Equal(m.Time):
		return errors.New("id and time differ")
	case m.Files < 0 || m.Size < 0 || m.Archive.Size < 0 || m.Archive.TarSize < 0:
		return errors.New("a number is negative")
	case len(m.Changed) > maxChanged:
		return errors.New("too many changed files")
	}
	sum, err := hex.DecodeString(m.Archive.SHA256)
	if err != nil || len(sum) != 32 || strings.ToLower(m.Archive.SHA256) != m.Archive.SHA256 {
		return errors.New("sha256 is not 64 lower-case hex digits")
	}
	m.Time = t
	return nil
}

func (m *manifest) encode() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// A version id is its time to the nanosecond and 13 random base32 digits, all in
// lower case so that stores which fold case keep them apart.
const idLayout = "20060102-150405.000000000"

var idShape = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}\.[0-9]{9}-[a-z2-7]{13}$`)

func newID(t time.Time) string {
	return t.UTC().Format(idLayout) + "-" + strings.ToLower(rand.Text())[:13]
}

// idTime gives the time in an id, and whether the id is well formed.
func idTime(id string) (time.Time, bool) {
	if !idShape.MatchString(id) {
		return time.Time{}, false
	}
	t, err := time.Parse(idLayout, id[:len(idLayout)])
	return t, err == nil
}

// readBounded reads a small object; more than limit bytes are an error.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return data, err
}
