package localbox

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// Options vary Open. The zero value, and nil, are good defaults.
type Options struct {
	// Dir is the state directory, made when it is missing: sockets and records
	// of sandboxes, and snapshots. Processes with the same Dir see the same
	// sandboxes. Only this user may be able to write to it. Empty means
	// vivarium/localbox in the user's cache directory (os.UserCacheDir), or
	// where there is none, in the system's directory for temporary files.
	Dir string

	// AllowUnisolated lets sandboxes be plain processes of this user where the
	// machine cannot isolate them. They can read and change whatever this user
	// can. Where it can isolate them, it does.
	AllowUnisolated bool

	// Images is for sandboxes that start from an image (sandbox.Config.Image).
	Images ImageOptions

	// Log is told, once, which limits this machine cannot enforce, and when
	// sandboxes are not isolated. Nil means no log.
	Log *slog.Logger
}

// dir is the state directory.
func (o *Options) dir() (string, error) {
	if o.Dir != "" {
		return filepath.Abs(o.Dir)
	}
	if cache, err := os.UserCacheDir(); err == nil && filepath.IsAbs(cache) {
		return filepath.Join(cache, "vivarium", "localbox"), nil
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("vivarium-%d", os.Geteuid()), "localbox"), nil
}
