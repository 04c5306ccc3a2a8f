package storage

import (
	"sync"
	"time"
)

// Phase is what a Sync or a Restore is doing.
type Phase string

// The phases. Sync goes through PhaseList, PhaseRead (which uploads at the same
// time) and PhaseCommit, Restore through PhaseList, PhaseWrite (which downloads
// at the same time) and PhaseApply.
const (
	PhaseList   Phase = "list"   // finding out what the directory holds
	PhaseRead   Phase = "read"   // contents of files, from the sandbox to the bucket
	PhaseCommit Phase = "commit" // writing the version
	PhaseWrite  Phase = "write"  // contents of files, from the bucket to the sandbox
	PhaseApply  Phase = "apply"  // exchanging old files for new ones
)

// Progress says how far a Sync or a Restore has come.
type Progress struct {
	Phase Phase
	// Files and Bytes are done in this phase, of TotalFiles and TotalBytes. They
	// are 0 in phases that cannot tell. A file that changes while it is read is
	// read, and counted, again.
	Files, TotalFiles int64
	Bytes, TotalBytes int64
}

// meter tells a callback of progress.
type meter struct {
	call func(Progress)
	mu   sync.Mutex
	now  Progress
	told time.Time
}

// progressEvery is how often a callback hears of progress within a phase.
const progressEvery = 100 * time.Millisecond

func (m *meter) begin(p Phase, files, bytes int64) {
	if m.call == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now.Phase != "" {
		m.call(m.now)
	}
	m.now, m.told = Progress{Phase: p, TotalFiles: files, TotalBytes: bytes}, time.Now()
	m.call(m.now)
}

func (m *meter) add(files, bytes int64) {
	if m.call == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Files += files
	m.now.Bytes += bytes
	if time.Since(m.told) >= progressEvery {
		m.told = time.Now()
		m.call(m.now)
	}
}

func (m *meter) end() {
	if m.call == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.call(m.now)
}
