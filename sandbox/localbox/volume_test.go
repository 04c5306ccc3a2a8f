//go:build linux

package localbox_test

import (
	"path"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/storagetest"
)

// Volumes keep what they promise in real sandboxes too.
func TestVolume(t *testing.T) {
	storagetest.ExerciseVolume(t, func(t *testing.T) (storage.Runner, string) {
		sb := sandboxtest.New(t, nil)
		return sb, path.Join(sb.Dir(), "volume")
	})
}
