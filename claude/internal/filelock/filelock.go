// Package filelock locks a file against other processes and other callers in
// this one. The operating system lets go of it when the process dies.
package filelock

import "errors"

// ErrLocked matches the error of [Try] where somebody else has the lock.
var ErrLocked = errors.New("locked by another process")
