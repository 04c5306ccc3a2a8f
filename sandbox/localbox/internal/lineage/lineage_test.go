//go:build unix

package lineage_test

import (
	"errors"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/lineage"
)

func TestTags(t *testing.T) {
	f, g := lineage.NewFamily(), lineage.NewFamily()
	if f == g {
		t.Fatal("two families are the same")
	}
	var before lineage.Tag
	for i, seq := range []uint64{0, 1, 2, 1<<24 - 1} {
		tag, err := f.Tag(seq)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && tag >= before {
			t.Errorf("tag %d is not lower than the one before: a limit cannot be raised", seq)
		}
		before = tag
		if !f.Has(uint64(tag)) || g.Has(uint64(tag)) || !tag.Is(uint64(tag)) || tag.Is(uint64(tag)-1) {
			t.Errorf("tag %d is not told apart", seq)
		}
	}
	for _, limit := range []uint64{0, 1 << 62, ^uint64(0), 200_000} {
		if f != 0 && f.Has(limit) {
			t.Errorf("limit %#x was set by nobody", limit)
		}
	}
	if _, err := f.Tag(1 << 24); !errors.Is(err, lineage.ErrExhausted) {
		t.Errorf("after the last: %v", err)
	}
}
