package modalemu

import (
	"sync"
	"time"
)

// entryLog knows when a command wrote what: the pieces of its output, in the
// order they came.
type entryLog struct {
	mu      sync.Mutex
	pieces  []piece
	changed chan struct{} // closed with the next piece
}

// piece is a stretch of output.
type piece struct {
	stderr bool
	off    int64
	n      int
	at     time.Time
}

func newEntryLog() *entryLog { return &entryLog{changed: make(chan struct{})} }

// written is process.Options.Written.
func (l *entryLog) written(stderr bool, off int64, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pieces = append(l.pieces, piece{stderr: stderr, off: off, n: n, at: time.Now()})
	close(l.changed)
	l.changed = make(chan struct{})
}

// since gives the pieces from number i on, and a channel that is closed when
// there are more.
func (l *entryLog) since(i int) ([]piece, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i > len(l.pieces) {
		i = len(l.pieces)
	}
	return l.pieces[i:len(l.pieces):len(l.pieces)], l.changed
}
