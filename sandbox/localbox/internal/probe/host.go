//go:build linux

package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Host is what the probes look for, set up in and around the process that runs
// the sandbox.
type Host struct {
	// Facts tell of it. The workspace, the read-only mount and the limits are
	// the caller's to fill in.
	Facts Facts

	cmd     *exec.Cmd
	stdin   io.Closer
	undo    []func()
	serving sync.WaitGroup
}

// StartHost sets everything up. dir is an existing directory; all the files go
// there, and anybody may read them. The caller closes the Host.
func StartHost(dir string) (*Host, error) {
	id := strings.ToLower(rand.Text())
	h := &Host{Facts: Facts{EnvName: "PROBE_" + id, Marker: "probe-" + id, Abstract: "probe-" + id}}
	steps := []func() error{
		func() error { return h.files(dir) },
		func() error { return h.environment(id) },
		func() error { return h.listeners(dir) },
		func() error { return h.ipc(id) },
		h.process,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

// files makes a home with a key in it, and leaves a descriptor of the key open
// that every program started without care inherits.
func (h *Host) files(dir string) error {
	h.Facts.SecretDir = filepath.Join(dir, "home")
	h.Facts.SecretFile = filepath.Join(h.Facts.SecretDir, "id_probe")
	if err := os.Mkdir(h.Facts.SecretDir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(h.Facts.SecretFile, []byte("secret\n"), 0o600); err != nil {
		return err
	}
	for name, mode := range map[string]os.FileMode{h.Facts.SecretFile: 0o666, h.Facts.SecretDir: 0o777} { // whatever the umask
		if err := os.Chmod(name, mode); err != nil {
			return err
		}
	}
	fd, err := unix.Open(h.Facts.SecretFile, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	h.undo = append(h.undo, func() { unix.Close(fd) })
	return nil
}

func (h *Host) environment(value string) error {
	name := h.Facts.EnvName
	h.undo = append(h.undo, func() { os.Unsetenv(name) })
	return os.Setenv(name, value)
}

func (h *Host) listeners(dir string) error {
	h.Facts.UnixPath = filepath.Join(dir, "s")
	for _, a := range []struct{ network, address string }{{"tcp", "127.0.0.1:0"}, {"unix", "@" + h.Facts.Abstract}, {"unix", h.Facts.UnixPath}} {
		l, err := net.Listen(a.network, a.address)
		if err != nil {
			return err
		}
		h.undo = append(h.undo, func() { l.Close() })
		if a.network == "tcp" {
			h.Facts.TCP = l.Addr().String()
		}
		h.serving.Go(func() { accept(l) })
	}
	if err := os.Chmod(h.Facts.UnixPath, 0o777); err != nil {
		return err
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h.undo = append(h.undo, func() { c.Close() })
	h.Facts.DNS = c.LocalAddr().String()
	h.serving.Go(func() { echo(c) })
	return nil
}

func accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

func echo(c net.PacketConn) {
	b := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// ipc makes a segment and a queue. A kernel without queues leaves theirs out.
func (h *Host) ipc(id string) error {
	var b [4]byte
	rand.Read(b[:])
	key := int(binary.LittleEndian.Uint32(b[:])&0x3fffffff | 0x40000000)
	shm, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o666)
	if err != nil {
		return fmt.Errorf("make a System V segment: %w", err)
	}
	h.Facts.ShmKey = key
	h.undo = append(h.undo, func() { _, _ = unix.SysvShmCtl(shm, unix.IPC_RMID, nil) })
	queue := "probe-" + id
	if fd, err := call(unix.SYS_MQ_OPEN, cstr(queue), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o666, 0); err == nil {
		h.Facts.Queue = queue
		h.undo = append(h.undo, func() { unix.Close(int(fd)); _, _ = call(unix.SYS_MQ_UNLINK, cstr(queue)) })
	}
	return nil
}

// process starts one that lives until the Host is closed.
func (h *Host) process() error {
	var err error
	h.cmd = exec.Command("/proc/self/exe", child, "wait", h.Facts.Marker)
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	h.Facts.Pid = h.cmd.Process.Pid
	return nil
}

// Close takes everything down again. Its error says what the probes, or
// anything else, did to it: the process has to have lived to the end, and the
// files to be as they were.
func (h *Host) Close() error {
	var errs []error
	if h.Facts.SecretFile != "" {
		b, err := os.ReadFile(h.Facts.SecretFile)
		errs = append(errs, err)
		if err == nil && string(b) != "secret\n" {
			errs = append(errs, fmt.Errorf("the host's file is %q", b))
		}
		entries, err := os.ReadDir(h.Facts.SecretDir)
		errs = append(errs, err)
		if err == nil && len(entries) != 1 {
			errs = append(errs, fmt.Errorf("the host's directory holds %v", entries))
		}
	}
	if h.Facts.Pid != 0 {
		h.stdin.Close()
		if err := h.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("the host's process: %w", err))
		}
	}
	for _, undo := range h.undo {
		undo()
	}
	h.serving.Wait()
	return errors.Join(errs...)
}
