// Package runner holds a program that starts commands inside a sandbox, in place
// of a line of shell. It is 2 KB of C without a library, built ahead, because a
// shell takes longer to start than most commands take, and a Go program longer
// still. Package modalbox works without it too, only slower.
package runner

import _ "embed"

//go:generate gcc -Os -static -nostdlib -ffreestanding -fno-pic -no-pie -fno-builtin -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fomit-frame-pointer -Wall -Wextra -Werror -Wl,--build-id=none,-z,norelro,-z,noseparate-code -s -o runner_amd64 source/runner.c
//go:generate strip -R .comment -R .note.gnu.property runner_amd64

//go:embed runner_amd64
var binary string

// Binary is the program, an ELF executable for Linux on amd64.
func Binary() string { return binary }

// Usage is the status it ends with when it has no arguments, which shows that it
// can be executed.
const Usage = 7
