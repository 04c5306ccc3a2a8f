package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// followGoRun lets the signal that ends "go run" end this program too: the go
// command passes interrupts on, but dies of a SIGTERM without a word. Any
// other parent may end and leave the server running.
func followGoRun() error {
	parent := os.Getppid()
	if name := comm(parent); name != "go" {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent { // it ended meanwhile
		return syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}
	return nil
}

// comm is the name of a process, "" when it cannot be told.
func comm(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// childWait bounds awaitChildren.
const childWait = 3 * time.Second

// awaitChildren waits until the processes that this one has started are gone:
// the last of the sandboxes' keepers ends a moment after them. Nothing else
// waits for them any more when it is called.
func awaitChildren() {
	for end := time.Now().Add(childWait); time.Now().Before(end); {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			return
		case pid == 0:
			time.Sleep(2 * time.Millisecond)
		}
	}
}
