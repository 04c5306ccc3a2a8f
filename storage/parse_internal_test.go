package storage

import (
	"bufio"
	"bytes"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

func FuzzRecord(f *testing.F) {
	t := time.Unix(1_700_000_000, 5).UTC()
	r := &record{
		Format: formatNumber, Kind: kindVersion, Slot: 3, Head: 3, ID: newID(t, 3), Time: t,
		Tree: &stored{Name: "0000000000000000000000000000000000000000000000000000000000000000.aaaaaaaa", SHA256: "0000000000000000000000000000000000000000000000000000000000000000"},
	}
	data, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, uint64(3))
	f.Add([]byte(`{"format":1}`), uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, slot uint64) {
		r, err := parseRecord(data, slot, true)
		if err != nil {
			return
		}
		if r.Slot != slot || r.Head > slot || r.Fence >= slot || r.isVersion() && r.Tree == nil {
			t.Errorf("accepted %+v for slot %d", r, slot)
		}
	})
}

// A sandbox can print anything for a listing.
func FuzzListing(f *testing.F) {
	f.Add([]byte("gnu 1700000000.5 boot\nd 755 4096 1.5 1.5 2 1 2049 0 0 8 \x00\x00f 644 3 1.5 1.5 1 2 2049 0 0 8 a\x00\x00\x00"))
	f.Add([]byte("plain 1700000000 - 1700000000 2023-11-14 22:13:20.5 +0000\n41ed 4096 1 x.5|1 x.5|2 1 2049 0 0 8 .\n//\n.\n//\n//\n"))
	f.Add([]byte("gnu 1 -\nf 644 3 1 1 1 2 3 0 0 8 ../a\x00\x00\x00"))
	v := NewVolume(nil, "acme", &Options{MaxFiles: 1000})
	f.Fuzz(func(t *testing.T, data []byte) {
		l := &lister{v: v}
		if err := l.parse(bufio.NewReader(bytes.NewReader(data))); err != nil {
			return
		}
		listing, err := l.finish()
		if err != nil {
			return
		}
		whole := &tree.Tree{}
		for _, e := range listing.entries {
			if e.Kind == tree.Symlink && e.Link == "" {
				return // its target is read later
			}
			entry := e.Entry
			entry.Size = 0
			whole.Entries = append(whole.Entries, entry)
		}
		if err := whole.Check(); err != nil {
			t.Errorf("a listing was accepted that is none: %v", err)
		}
	})
}
