package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount is a bucket that is shown. Its methods are safe for concurrent use.
type Mount struct {
	cfg    Config
	client *s3.Client
	log    *slog.Logger
	spool  string // for files that are being written
	point  string
	server *fuse.Server
	since  time.Time

	mu      sync.Mutex
	dirs    map[string]bool    // keys of directories that were made and have no file yet; they end in "/"
	writing map[string]*upload // by key
	closed  bool
}

// Open shows a bucket at dir/bucket; dir is a directory of the mount's own, with
// nothing in it. The caller closes the mount. What is the configuration's fault
// matches driver.ErrInvalid, what is this machine's ErrUnsupported.
func Open(ctx context.Context, cfg *Config, dir string) (*Mount, error) {
	m := &Mount{cfg: *cfg, log: cfg.Log, since: time.Now(), dirs: make(map[string]bool), writing: make(map[string]*upload)}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if m.client, err = cfg.open(ctx); err != nil {
		return nil, err
	}
	m.spool, m.point = filepath.Join(dir, "spool"), filepath.Join(dir, "bucket")
	for _, d := range []string{m.spool, m.point} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := m.serve(); err != nil {
		return nil, fmt.Errorf("%w: it takes /dev/fuse, and root or fusermount3: %w", ErrUnsupported, err)
	}
	return m, nil
}

// serve mounts the file system.
func (m *Mount) serve() error {
	root, never := os.Geteuid() == 0, time.Duration(0)
	opts := &fs.Options{
		AttrTimeout: &never, EntryTimeout: &never, // others change the bucket
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Logger: log.New(io.Discard, "", 0),
		MountOptions: fuse.MountOptions{
			Name: "bucket", FsName: "bucket", AllowOther: root, IDMappedMount: root,
			ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC,
			DisableXAttrs:     true, MaxWrite: maxWrite,
			Logger: log.New(io.Discard, "", 0),
		},
	}
	at := m.point
	if root {
		fd, err := mountFuse(m.point)
		if err != nil {
			return err
		}
		at = fmt.Sprintf("/dev/fd/%d", fd) // the server's from here on
	}
	var err error
	m.server, err = fs.Mount(at, &dirNode{m: m}, opts)
	if err != nil && root {
		err = errors.Join(err, os.NewSyscallError("umount", unix.Unmount(m.point, unix.MNT_DETACH)))
	}
	return err
}

// maxWrite is the most that one request reads or writes.
const maxWrite = 128 << 10

// mountFuse mounts a file system that whoever has the descriptor serves. No other
// process gets it, which go-fuse's own mounting does not see to.
func mountFuse(point string) (fd int, err error) {
	if fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d,allow_other,default_permissions",
		fd, os.Geteuid(), os.Getegid(), maxWrite)
	if err := unix.Mount("bucket", point, "fuse.bucket", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("mount", err)
	}
	return fd, nil
}

// Dir is where the bucket is shown.
func (m *Mount) Dir() string { return m.point }

// Writable reports whether owners can be mapped in the mount, as it takes for
// another user to write to it: from Linux 6.12 on.
func (m *Mount) Writable() bool {
	return os.Geteuid() != 0 || m.server.KernelSettings().Flags64()&fuse.CAP_ALLOW_IDMAP != 0
}

// Close takes the bucket away, when nothing uses it any more, and returns when
// what was closed is stored. Closing again does nothing.
func (m *Mount) Close(ctx context.Context) error {
	m.mu.Lock()
	was := m.closed
	m.closed = true
	m.mu.Unlock()
	if was {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- m.unmount() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("bucket %s is in use still: %w", m.cfg.Bucket, ctx.Err())
	}
}

// unmount waits for the kernel to let go of it.
func (m *Mount) unmount() error {
	if os.Geteuid() != 0 {
		return m.server.Unmount() // by fusermount3
	}
	if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	m.server.Wait()
	return nil
}

// Sweep takes away what a process that was killed has left mounted at dir/bucket.
func Sweep(dir string) error {
	err := unix.Unmount(filepath.Join(dir, "bucket"), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		return nil // nothing is mounted there, or it is not ours
	}
	return err
}

// mayChange refuses a change. One of this process's own is somebody who clears up
// the directory that the bucket is shown in.
func (m *Mount) mayChange(ctx context.Context) syscall.Errno {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg.ReadOnly || m.closed {
		return syscall.EROFS
	}
	if caller(ctx) == os.Getpid() {
		return syscall.EPERM
	}
	return 0
}

// caller is the process that a request comes from; the kernel names its thread. It
// is 0 for one that cannot be told.
func caller(ctx context.Context) int {
	c, ok := fuse.FromContext(ctx)
	if !ok || c.Pid == 0 {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "Tgid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(text))
			if err != nil {
				return 0
			}
			return pid
		}
	}
	return 0
}

// errno is what a program is told of an error of the bucket's.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		return syscall.EINTR
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		switch r.HTTPStatusCode() {
		case http.StatusNotFound:
			return syscall.ENOENT
		case http.StatusForbidden, http.StatusUnauthorized:
			return syscall.EACCES
		case http.StatusPreconditionFailed:
			return syscall.ESTALE // another object has its place
		}
	}
	return syscall.EIO
}

// key is an object's, of the path that is shown.
func (m *Mount) key(path string) *string {
	key := m.cfg.Prefix + path
	return &key
}

// under reports whether there is something local below the directory, which ends
// in "/"; m.mu is held.
func (m *Mount) under(dir string) bool {
	for path := range m.dirs {
		if path != dir && strings.HasPrefix(path, dir) {
			return true
		}
	}
	for path := range m.writing {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}
