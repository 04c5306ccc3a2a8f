//go:build linux

package probe

import "unsafe"

// kept holds what system calls were given the addresses of, on the heap, where
// it does not move.
var kept []any

// ptr is a value's address for a system call.
func ptr[T any](v *T) uintptr {
	kept = append(kept, v)
	return uintptr(unsafe.Pointer(v))
}

// cstr is the address of a string with a final NUL.
func cstr(s string) uintptr {
	b := append([]byte(s), 0)
	return ptr(&b[0])
}
