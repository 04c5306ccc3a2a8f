package storage

import (
	"slices"
	"testing"

	"github.com/vivarium-go/vivarium/storage/internal/tree"
)

// What is on another file system is outside, but for the layers of an overlayfs: of
// the files of a sandbox that was made of an image, none was kept.
func TestListingKnowsMountsFromLayers(t *testing.T) {
	entry := func(path string, kind tree.Kind, dev uint64) *found {
		return &found{Entry: tree.Entry{Path: path, Kind: kind}, links: 1, dev: dev}
	}
	for _, tt := range []struct {
		name string
		all  []*found
		want []string
	}{
		{"one file system", []*found{
			entry("", tree.Dir, 1), entry("a", tree.File, 1), entry("m", tree.Dir, 2), entry("m/x", tree.File, 2), entry("n", tree.File, 3),
		}, []string{"", "a"}},
		{"layers", []*found{
			entry("", tree.Dir, 1), entry("a", tree.File, 7), entry("b", tree.Symlink, 8), entry("d", tree.Dir, 1), entry("d/x", tree.File, 7),
			entry("m", tree.Dir, 2), entry("m/x", tree.File, 2),
		}, []string{"", "a", "b", "d", "d/x"}},
		{"nothing but directories", []*found{entry("", tree.Dir, 1), entry("d", tree.Dir, 1), entry("m", tree.Dir, 2)}, []string{"", "d"}},
	} {
		l := lister{v: NewVolume(nil, "w", nil)}
		l.out.entries = tt.all
		out, err := l.finish()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range out.entries {
			got = append(got, f.Path)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: kept %q, want %q", tt.name, got, tt.want)
		}
	}
}
