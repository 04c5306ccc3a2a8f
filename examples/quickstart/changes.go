package main

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// entry is what tells whether a file changed.
type entry struct {
	size int64
	mod  time.Time
	mode fs.FileMode
}

// listing describes every file below a directory, by name.
func listing(fsys fs.FS) (map[string]entry, error) {
	entries := map[string]entry{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			entries[name] = entry{info.Size(), info.ModTime(), info.Mode()}
		}
		return err
	})
	return entries, err
}

// changes says in a line each what was added, changed and deleted.
func changes(before, after map[string]entry) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(after)) {
		old, was := before[name]
		switch {
		case !was:
			lines = append(lines, fmt.Sprintf("added    %s (%d bytes)", name, after[name].size))
		case old != after[name]:
			lines = append(lines, fmt.Sprintf("changed  %s (%d bytes)", name, after[name].size))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, is := after[name]; !is {
			lines = append(lines, "deleted  "+name)
		}
	}
	if lines == nil {
		return []string{"no file changed"}
	}
	return lines
}
