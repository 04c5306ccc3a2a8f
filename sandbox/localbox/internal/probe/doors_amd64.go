//go:build linux

package probe

import "golang.org/x/sys/unix"

// int80 makes a system call by the i386 door: number 20 is getpid there.
func int80(nr uint32) int32

func i386() error {
	if n := int80(20); n <= 0 {
		return unix.Errno(-n)
	}
	return nil
}

func x32() error {
	const bit = 0x40000000
	_, err := call(bit|unix.SYS_GETPID, 0)
	return err
}

// elf386 is a program for i386 that exits with 42: a file header, a program
// header that loads the whole file at 0x08048000, and
// mov eax, 1; mov ebx, 42; int 0x80.
var elf386 = []byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x03\x00\x01\x00\x00\x00\x54\x80\x04\x08\x34\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x34\x00\x20\x00\x01\x00\x00\x00\x00\x00\x00\x00" +
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x80\x04\x08\x00\x80\x04\x08\x60\x00\x00\x00\x60\x00\x00\x00\x05\x00\x00\x00\x00\x10\x00\x00" +
	"\xb8\x01\x00\x00\x00\xbb\x2a\x00\x00\x00\xcd\x80")
