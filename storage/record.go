package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// The objects below _versions/ are numbered slots, and each holds a record. A
// record is written once, when its slot is still empty, and that is the moment at
// which what it says becomes true. See docs/storage-format.md.
const (
	formatNumber  = 2
	kindVersion   = "version"
	kindConflict  = "conflict" // a version beside the line of the others
	kindFence     = "fence"    // what Prune left of the slots before it
	recordMagic   = "vivarium-volume 2 "
	maxRecordHead = 1 << 20
	maxFence      = 64 << 20 // of about 700,000 versions
	maxSlot       = 9_999_999_999
	maxTree       = 1 << 31 // bytes of a listing, unpacked
)

// record is what a slot holds: a line with the magic and the SHA-256 of the
// next, a line of JSON, and for a version the bytes of its delta.
type record struct {
	Format int       `json:"format"`
	Kind   string    `json:"kind"`
	Slot   uint64    `json:"slot"`
	ID     string    `json:"id,omitempty"`
	Time   time.Time `json:"time"`
	// Head is the slot of the newest version once this record stands: its own
	// unless it is a conflict or a fence. 0: there is none.
	Head uint64 `json:"head"`
	// Fence is the slot of the newest fence before this record, 0: none.
	Fence uint64 `json:"fence,omitempty"`

	// Of versions:
	Parent  string   `json:"parent,omitempty"`
	Author  string   `json:"author,omitempty"`
	Note    string   `json:"note,omitempty"`
	Files   int64    `json:"files,omitempty"`
	Dirs    int64    `json:"dirs,omitempty"`
	Links   int64    `json:"links,omitempty"`
	Size    int64    `json:"size,omitempty"`
	Stored  int64    `json:"stored,omitempty"`
	Added   int64    `json:"added,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Skipped []string `json:"skipped,omitempty"`
	Skips   int64    `json:"skipped_count,omitempty"`
	// Origin says which directory of which machine was read, and Listed when the
	// listing began there, by its clock.
	Origin string `json:"origin,omitempty"`
	Listed string `json:"listed,omitempty"`
	// Tree is the listing that the version builds on, Delta what it changes there.
	Tree  *stored `json:"tree,omitempty"`
	Delta *stored `json:"delta,omitempty"`

	// Of fences:
	Grace     time.Duration `json:"grace_ns,omitempty"`
	Valid     []slotID      `json:"valid,omitempty"`
	Forgotten []slotID      `json:"forgotten,omitempty"`

	delta []byte // the bytes that Delta describes
}

// stored describes a listing in the bucket, a zstd frame.
type stored struct {
	Name   string `json:"name,omitempty"` // of the object; "" where it is part of the record
	Size   int64  `json:"size"`           // bytes as stored
	Raw    int64  `json:"raw"`            // bytes unpacked
	SHA256 string `json:"sha256"`         // of the bytes as stored
}

// slotID names a version in a fence. Since is when a version was forgotten, by the
// bucket's clock; zero means with the fence itself.
type slotID struct {
	Slot  uint64    `json:"slot"`
	ID    string    `json:"id"`
	Since time.Time `json:"since,omitzero"`
}

func (r *record) version() *Version {
	return &Version{
		ID: r.ID, Time: r.Time, Parent: r.Parent, Conflict: r.Kind == kindConflict, Author: r.Author, Note: r.Note,
		Files: r.Files, Dirs: r.Dirs, Links: r.Links, Size: r.Size, Stored: r.Stored, Added: r.Added,
		Changed: r.Changed, Skipped: r.Skipped, SkippedCount: r.Skips,
	}
}

func (r *record) isVersion() bool { return r.Kind == kindVersion || r.Kind == kindConflict }

func (r *record) encode() ([]byte, error) {
	var head bytes.Buffer
	enc := json.NewEncoder(&head)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, err
	}
	switch {
	case r.Kind == kindFence && head.Len() > maxFence:
		return nil, fmt.Errorf("its record would have %d bytes, and %d are allowed: keep fewer versions", head.Len(), maxFence)
	case r.Kind != kindFence && head.Len() > maxRecordHead:
		return nil, fmt.Errorf("its record would have %d bytes, and %d are allowed: shorten the note", head.Len(), maxRecordHead)
	}
	sum := sha256.Sum256(head.Bytes())
	out := make([]byte, 0, len(recordMagic)+65+head.Len()+len(r.delta))
	out = fmt.Appendf(out, "%s%x\n", recordMagic, sum)
	out = append(out, head.Bytes()...)
	return append(out, r.delta...), nil
}

var errCutRecord = errors.New("record is cut short")

// parseRecord reads what slot holds. With whole false the delta may be missing or
// cut, and is not read.
func parseRecord(data []byte, slot uint64, whole bool) (*record, error) {
	first, rest, ok := bytes.Cut(data, []byte("\n"))
	if !ok || !bytes.HasPrefix(first, []byte(recordMagic)) {
		if isOldManifest(data) {
			return nil, fmt.Errorf("it has format 1, which only development builds before this one wrote: %w", errors.ErrUnsupported)
		}
		if strings.HasPrefix(string(first), recordMagic[:len(recordMagic)-2]) {
			return nil, fmt.Errorf("it has a later format than this program knows, which is %d: %w", formatNumber, errors.ErrUnsupported)
		}
		return nil, fmt.Errorf("%w: not a record", ErrCorrupt)
	}
	end := bytes.IndexByte(rest, '\n') + 1
	if end == 0 {
		return nil, errCutRecord
	}
	sum := sha256.Sum256(rest[:end])
	if hex.EncodeToString(sum[:]) != string(first[len(recordMagic):]) {
		return nil, fmt.Errorf("%w: the record's SHA-256 differs", ErrCorrupt)
	}
	r := new(record)
	if err := json.Unmarshal(rest[:end], r); err != nil {
		return nil, fmt.Errorf("%w: record: %w", ErrCorrupt, err)
	}
	if why := r.fault(slot); why != "" {
		return nil, fmt.Errorf("%w: record: %s", ErrCorrupt, why)
	}
	if !whole || r.Delta == nil {
		return r, nil
	}
	r.delta = rest[end:]
	if sum := sha256.Sum256(r.delta); hex.EncodeToString(sum[:]) != r.Delta.SHA256 {
		return nil, fmt.Errorf("%w: the delta's SHA-256 differs", ErrCorrupt)
	}
	return r, nil
}

func isOldManifest(data []byte) bool {
	var head struct {
		Format int `json:"format"`
	}
	return json.Unmarshal(data, &head) == nil && head.Format == 1
}

func (r *record) fault(slot uint64) string {
	switch {
	case r.Format != formatNumber:
		return "its format and its first line differ"
	case r.Slot != slot:
		return fmt.Sprintf("it is of slot %d", r.Slot)
	case r.Head > slot || r.Fence >= slot:
		return "it refers to a later slot"
	case r.Kind == kindFence:
		return r.fenceFault()
	case !r.isVersion():
		return "of an unknown kind"
	}
	t, in, ok := parseID(r.ID)
	switch {
	case !ok || in != slot || !t.Equal(r.Time):
		return "its id, its slot and its time do not agree"
	case (r.Kind == kindVersion) != (r.Head == slot):
		return "it is and is not the newest version"
	case min(r.Files, r.Dirs, r.Links, r.Size, r.Stored, r.Added, r.Skips) < 0:
		return "a number is negative"
	case len(r.Changed) > maxNames || len(r.Skipped) > maxNames:
		return "too many names"
	case r.Tree == nil || !r.Tree.sound(true):
		return "no usable listing"
	case r.Delta != nil && !r.Delta.sound(false):
		return "no usable delta"
	}
	r.Time = t
	return ""
}

func (r *record) fenceFault() string {
	for _, list := range [][]slotID{r.Valid, r.Forgotten} {
		for _, v := range list {
			if _, slot, ok := parseID(v.ID); !ok || slot != v.Slot || slot >= r.Slot {
				return "a fence that names what is no version before it"
			}
		}
	}
	return ""
}

// What trees are named, and packs: the latter after a SHA-256 too, or else after a
// CRC-32C and a number.
var (
	nameShape = regexp.MustCompile(`^[0-9a-f]{64}\.[a-z2-7]{8}$`)
	packShape = regexp.MustCompile(`^([0-9a-f]{64}|[0-9a-f]{16})\.[a-z2-7]{8}$`)
)

func (s *stored) sound(named bool) bool {
	sum, err := hex.DecodeString(s.SHA256)
	return err == nil && len(sum) == 32 && s.Size >= 0 && s.Size <= maxTree && s.Raw >= 0 && s.Raw <= maxTree &&
		named == nameShape.MatchString(s.Name)
}

// readBounded reads an object; more than limit bytes are an error.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: longer than the %d bytes it may have", ErrCorrupt, limit)
	}
	return data, err
}
