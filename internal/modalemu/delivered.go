package modalemu

import (
	"sync"
	"time"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

const (
	// deliveredLarge is from which size on an output is given up once it was
	// delivered. Smaller ones are kept with their command.
	deliveredLarge = 1 << 20
	// deliveredFor is how long such an output can be asked for again: a client
	// whose stream broke at its end tries for ten seconds.
	deliveredFor = 30 * time.Second
	// deliveredKept is how many bytes of them are kept together. Over it the
	// oldest are given up at once, so that a program that moves much does not
	// fill the disk, or a sandbox with files that it has removed.
	deliveredKept = 1 << 30
)

// delivered are large outputs of which clients have had every byte. The zero
// value is ready.
type delivered struct {
	mu    sync.Mutex
	order []*deliveredOutput // the oldest first
	known map[*process.Output]bool
	bytes int64
}

type deliveredOutput struct {
	output *process.Output
	size   int64
	at     time.Time
}

// add takes an output that was sent to its end.
func (d *delivered) add(o *process.Output, now time.Time) {
	size, ended := o.Size()
	if size < deliveredLarge || !ended {
		return
	}
	d.mu.Lock()
	if !d.known[o] {
		makeMap(&d.known)
		d.known[o] = true
		d.order = append(d.order, &deliveredOutput{output: o, size: size, at: now})
		d.bytes += size
	}
	d.mu.Unlock()
	d.trim(now)
}

// trim gives up those whose time is over, or for which there is no room.
func (d *delivered) trim(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.order) > 0 {
		oldest := d.order[0]
		if d.bytes <= deliveredKept && now.Sub(oldest.at) < deliveredFor {
			return
		}
		_ = oldest.output.Discard() // what it held is a file without a name, or one that was only read
		delete(d.known, oldest.output)
		d.bytes -= oldest.size
		d.order = d.order[1:]
	}
}
