package main

import (
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChanges(t *testing.T) {
	day := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	before := fstest.MapFS{
		"same":      {Data: []byte("a"), ModTime: day},
		"edited":    {Data: []byte("a"), ModTime: day},
		"grown":     {Data: []byte("a"), ModTime: day},
		"gone/file": {Data: []byte("a"), ModTime: day},
	}
	after := fstest.MapFS{
		"same":     {Data: []byte("a"), ModTime: day},
		"edited":   {Data: []byte("b"), ModTime: day.Add(1)},
		"grown":    {Data: []byte("ab"), ModTime: day},
		"new/file": {Data: []byte("abc"), ModTime: day},
	}
	b, err := listing(before)
	if err != nil {
		t.Fatal(err)
	}
	a, err := listing(after)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"changed  edited (1 bytes)", "changed  grown (2 bytes)", "added    new/file (3 bytes)", "deleted  gone/file"}
	if diff := cmp.Diff(want, changes(b, a)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"no file changed"}, changes(b, b)); diff != "" {
		t.Errorf("changes of nothing (-want +got):\n%s", diff)
	}
}
