//go:build linux && (amd64 || arm64)

package localbox

// This program can be started again as the process that makes a sandbox.
import _ "github.com/vivarium-go/vivarium/sandbox/localbox/internal/setup"
