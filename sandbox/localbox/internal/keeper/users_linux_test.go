//go:build linux && (amd64 || arm64)

package keeper

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUsersAreShared(t *testing.T) {
	shared := t.TempDir()
	a, b := users{shared: shared}, users{shared: shared}
	first, err := a.claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if first == second || first < firstUser || second >= firstUser+userCount {
		t.Errorf("users %d and %d", first, second)
	}
	a.release(first)
	if third, err := b.claim(""); err != nil || third == second {
		t.Errorf("user %d once more, %v", third, err)
	}
}

// TestUsersWithoutSharedDirectory: state directories that do not see one
// another's file do not begin with the same users.
func TestUsersWithoutSharedDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for range 4 {
		u := users{shared: filepath.Join(file, "nothing can be here")}
		uid, err := u.claim(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		seen[uid] = true
	}
	if len(seen) < 2 { // by chance once in 10^14
		t.Errorf("all of them gave out %v first", seen)
	}
}
