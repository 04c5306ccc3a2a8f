package reap_test

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reap"
)

// reaper is the only one of this process, whose every child it waits for.
var reaper = sync.OnceValue(reap.New)

// start starts a shell that exits with code, with a pidfd or without.
func start(t *testing.T, code int, watched bool, exited func(began bool, ws syscall.WaitStatus)) (pid int) {
	t.Helper()
	var began bool
	err := reaper().StartWatched(func() (pid, pidfd int, err error) {
		pidfd = -1
		sys := &syscall.SysProcAttr{}
		if watched {
			sys.PidFD = &pidfd
		}
		pid, err = syscall.ForkExec("/bin/sh", []string{"sh", "-c", "exit " + strconv.Itoa(code)},
			&syscall.ProcAttr{Sys: sys, Files: []uintptr{0, 1, 2}})
		return pid, pidfd, err
	}, func(p int) { pid, began = p, true }, func(ws syscall.WaitStatus, _ *syscall.Rusage) { exited(began, ws) })
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestEachEndIsToldOnce starts many processes whose ends are seen by their pidfds
// and by the signal, whichever is first.
func TestEachEndIsToldOnce(t *testing.T) {
	const each = 100
	told := make(chan int, 10*each)
	for i := range each {
		start(t, i, i%2 == 0, func(began bool, ws syscall.WaitStatus) {
			if !began {
				t.Error("a process ended before it began")
			}
			told <- ws.ExitStatus()
		})
	}
	seen := make(map[int]int)
	for range each {
		seen[<-told]++
	}
	for i := range each {
		if seen[i] != 1 {
			t.Errorf("the end of process %d was told %d times", i, seen[i])
		}
	}
	if len(told) > 0 {
		t.Errorf("%d more ends were told", len(told))
	}
}

func TestSignalAfterTheEnd(t *testing.T) {
	done := make(chan struct{})
	pid := start(t, 0, true, func(bool, syscall.WaitStatus) { close(done) })
	<-done
	if err := reaper().Signal(pid, syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that was waited for: %v", err)
	}
}

func TestForkThatFails(t *testing.T) {
	want := errors.New("no")
	err := reaper().Start(func() (int, error) { return 0, want },
		func(int) { t.Error("it began") }, func(syscall.WaitStatus, *syscall.Rusage) { t.Error("it ended") })
	if !errors.Is(err, want) {
		t.Error(err)
	}
}
