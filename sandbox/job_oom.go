package sandbox

import (
	"context"
	"strconv"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// oomFile has how often the sandbox had run out of memory when the job was started.
const oomFile = "oom"

// countOOM notes that, where it can be known. A job that ends before is one whose end
// was not explained.
func (j *Job) countOOM(ctx context.Context) {
	if counter, ok := j.sb.driver.(driver.OOMCounter); ok {
		if n, err := counter.OOMKills(ctx); err == nil {
			_ = j.sb.FSAt(ctx, j.dir).WriteFile(oomFile, strconv.AppendUint(nil, n, 10), 0o600) // else it is not known
		}
	}
}

// explain sets OOM of an exit by SIGKILL, where it is known that the sandbox has run out
// of memory since the job was started.
func (j *Job) explain(ctx context.Context, exit *Exit) {
	counter, ok := j.sb.driver.(driver.OOMCounter)
	if !ok || exit == nil || exit.Signal != SIGKILL {
		return
	}
	data, err := j.read(ctx, oomFile)
	if err != nil {
		return
	}
	before, err := strconv.ParseUint(string(data), 10, 64)
	if err != nil {
		return
	}
	now, err := counter.OOMKills(ctx)
	exit.OOM = err == nil && now > before
}
