package sandboxhttp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

var _ driver.Watcher = (*placeBox)(nil)

// killAll kills the sandbox's processes, and those that they start meanwhile.
func (b *placeBox) killAll() {
	mark := []byte(placeVariable + b.temp + "\x00")
	for left := true; left; {
		left = false
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			env, err := os.ReadFile(dir + "/environ")
			if err != nil || !bytes.Contains(env, mark) {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
				left = true
			}
		}
	}
}

// Watch implements driver.Watcher.
func (b *placeBox) Watch(ctx context.Context, name string, _ bool) (iter.Seq2[driver.Change, error], error) {
	if err := b.over(); err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, name, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_DELETE_SELF); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func(yield func(driver.Change, error) bool) {
		over := make(chan struct{})
		defer close(over)
		defer f.Close()
		go func() {
			select {
			case <-ctx.Done():
			case <-b.ended:
			case <-over:
			}
			_ = f.Close()
		}()
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				yield(driver.Change{}, err)
				return
			}
			if !changes(name, buf[:n], yield) {
				return
			}
		}
	}, nil
}

// changes yields what inotify(7) says; false: there is no more.
func changes(dir string, events []byte, yield func(driver.Change, error) bool) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		name := string(bytes.TrimRight(events[unix.SizeofInotifyEvent:size], "\x00"))
		events = events[size:]
		if mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED) != 0 {
			return false
		}
		op := driver.ChangeModify
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			op = driver.ChangeOverflow
		case mask&unix.IN_CREATE != 0:
			op = driver.ChangeCreate
		}
		if !yield(driver.Change{Op: op, Names: []string{filepath.Join(dir, name)}}, nil) {
			return false
		}
	}
	return true
}
