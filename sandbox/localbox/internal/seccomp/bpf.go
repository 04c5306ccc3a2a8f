//go:build linux && (amd64 || arm64)

package seccomp

import "golang.org/x/sys/unix"

// Offsets into struct seccomp_data (seccomp(2)). Both architectures are little
// endian: the low half of an argument comes first.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

func low(arg int) uint32  { return uint32(offArgs + 8*arg) }
func high(arg int) uint32 { return uint32(offArgs + 8*arg + 4) }

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retKill  = unix.SECCOMP_RET_KILL_PROCESS
)

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func load(off uint32) unix.SockFilter { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, off) }

func ret(action uint32) unix.SockFilter { return stmt(unix.BPF_RET|unix.BPF_K, action) }

func jump(test uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

// forCall puts body, which must return on every path, behind a test for the
// call. The accumulator holds the call's number before it and, when the test
// fails, after it.
func forCall(nr uint32, body ...unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{jump(unix.BPF_JEQ, nr, 0, uint8(len(body)))}, body...)
}

// allowOnly allows the call when the low half of its argument is one of values.
func allowOnly(nr uint32, arg int, values []uint32, otherwise uint32) []unix.SockFilter {
	body := []unix.SockFilter{load(low(arg))}
	for i, v := range values {
		body = append(body, jump(unix.BPF_JEQ, v, uint8(len(values)-i), 0))
	}
	body = append(body, ret(otherwise), ret(retAllow))
	return forCall(nr, body...)
}

// denyOnly denies the call when the low half of its argument is one of values.
func denyOnly(nr uint32, arg int, values []uint32, denied uint32) []unix.SockFilter {
	body := []unix.SockFilter{load(low(arg))}
	for i, v := range values {
		body = append(body, jump(unix.BPF_JEQ, v, uint8(len(values)-i), 0))
	}
	body = append(body, ret(retAllow), ret(denied))
	return forCall(nr, body...)
}
