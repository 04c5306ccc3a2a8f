//go:build unix

package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/helper"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/lineage"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// box is a sandbox of this keeper.
type box struct {
	k      *keeper
	dir    *state.Dir
	rec    state.Record
	req    *wire.KeeperRequest
	alive  *os.File // its lock says that the sandbox lives
	done   *os.File // write end: closed when all is removed
	seat   seat     // what the place gave: user, groups, limits
	stderr *os.File
	client *wire.Client
	pid    int
	exited chan struct{}
	closer []io.Closer // ports, way out
	way    wayOut
	shown  shown

	mu     sync.Mutex
	why    driver.End
	status syscall.WaitStatus
}

// create makes a sandbox. When it fails, or ctx ends first, nothing is left.
func (k *keeper) create(ctx context.Context, req *wire.KeeperRequest) (id string, err error) {
	dir, err := k.open(req.Dir)
	if err != nil {
		return "", err
	}
	b := &box{k: k, dir: dir, req: req, exited: make(chan struct{}), seat: noSeat{}}
	b.rec = newRecord(&req.Config, req.Plain)
	b.rec.Root = req.Root
	id = b.rec.Info.ID
	if b.alive, err = dir.Reserve(id, req.Config.Name); err != nil {
		return "", errors.Join(err, b.discard())
	}
	if err = b.make(ctx); err == nil {
		err = ctx.Err()
	}
	req.Config.Secrets = nil // the helper has them; here nobody needs them any more
	if err == nil {
		err = dir.Write(&b.rec)
	}
	if err != nil {
		return "", errors.Join(err, b.discard())
	}
	k.count(1)
	go b.watch()
	return id, nil
}

func newRecord(cfg *driver.Config, plain bool) state.Record {
	now := time.Now()
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	return state.Record{
		Plain:  plain,
		Family: uint64(lineage.NewFamily()),
		Probe:  cfg.Probe,
		Info: driver.Info{
			ID: state.NewID(), Name: cfg.Name, Driver: "localbox", State: driver.StateRunning,
			CreatedAt: now, ExpiresAt: now.Add(cfg.Timeout), Tags: cfg.Tags, Isolated: !plain,
			Dir: cfg.Dir, Unenforced: make(map[string]string),
		},
	}
}

func (b *box) make(ctx context.Context) error {
	boot, err := b.takeSeat()
	if err != nil {
		return err
	}
	mine, theirs, err := reexec.Pair()
	if err != nil {
		return err
	}
	defer mine.Close()
	if b.stderr, err = newStderr(); err != nil {
		theirs.Close()
		return err
	}
	err = b.fork(theirs)
	theirs.Close()
	if err != nil {
		return forkError(err)
	}
	fd, err := unix.FcntlInt(mine.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	uc, err := reexec.Conn(fd)
	if err != nil {
		return err
	}
	conn := wire.NewConn(uc)
	if err := b.start(ctx, conn, boot); err != nil {
		conn.Close()
		return err
	}
	return b.serve(ctx)
}

// forkError tells a machine that is full from one that refuses.
func forkError(err error) error {
	for _, full := range []syscall.Errno{syscall.EAGAIN, syscall.ENOMEM, syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: start a process: %w", driver.ErrExhausted, err)
		}
	}
	return fmt.Errorf("start a process: %w", err)
}

// fork starts the first process.
func (b *box) fork(sock *os.File) error {
	role, env, attr := b.seat.role()
	return b.k.reaper.Start(func() (int, error) {
		return b.k.onMain(func() (int, error) {
			return reexec.Start(role, sock, b.stderr, env, attr)
		})
	}, func(pid int) { b.pid = pid }, func(ws syscall.WaitStatus, _ *syscall.Rusage) {
		b.mu.Lock()
		b.status = ws
		b.mu.Unlock()
		close(b.exited)
	})
}

// start sends a new process what it is to be, and waits until it is.
func (b *box) start(ctx context.Context, conn *wire.Conn, boot *wire.Boot) error {
	defer context.AfterFunc(ctx, b.kill)()
	if err := b.seat.setUp(conn, b); err != nil {
		return b.startError(ctx, "set up", err)
	}
	fds, err := b.bootFiles(boot)
	if err == nil && boot.Image {
		var uppers []*os.File
		uppers, err = b.receiveUppers(conn, boot)
		fds = append(fds, uppers...)
	}
	if err == nil {
		err = conn.Send(boot, descriptors(fds)...)
	}
	for _, f := range fds {
		f.Close()
	}
	var said *stepError
	if errors.As(err, &said) {
		return said
	}
	if err != nil {
		return b.startError(ctx, "start", err)
	}
	var st wire.Status
	if _, err := conn.Receive(&st); err != nil {
		return b.startError(ctx, "start", err)
	}
	if st.Err != nil {
		return &stepError{st.Step, st.Err}
	}
	b.stderr.Close()
	b.stderr = nil
	b.client = wire.NewClient(conn, b.word)
	go b.client.Serve()
	return nil
}

// startError says why a process was silent: it was told to end, or it wrote why
// to its standard error, as the dynamic loader does.
func (b *box) startError(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.kill()
	<-b.exited
	var buf [2048]byte
	if n, rerr := b.stderr.ReadAt(buf[:], 0); n > 0 && (rerr == nil || rerr == io.EOF) {
		return fmt.Errorf("%s the sandbox: %w: %s", what, err, buf[:n])
	}
	return fmt.Errorf("%s the sandbox: %w", what, err)
}

// bootFiles opens what travels with the boot message.
func (b *box) bootFiles(boot *wire.Boot) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	l, err := b.dir.Listen(b.rec.Info.ID)
	if err != nil {
		return nil, err
	}
	f, err := l.File()
	l.Close()
	if err != nil {
		return nil, err
	}
	files = append(files, f)
	r, w, err := os.Pipe()
	if err != nil {
		return files, err
	}
	b.done = w
	files = append(files, r)
	if f, err = dup(b.alive); err != nil {
		return files, err
	}
	files = append(files, f)
	if path := b.seat.oomFile(); path != "" {
		if f, err = os.Open(path); err != nil {
			return files, err
		}
		files = append(files, f)
		boot.OOM = true
	}
	return files, nil
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func descriptors(files []*os.File) (fds []int) {
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// word is what the helper says unasked: why the sandbox is to end.
func (b *box) word(why string) { go b.end(driver.End(why)) }

// end ends the sandbox for a reason; the first reason counts.
func (b *box) end(why driver.End) {
	b.mu.Lock()
	if b.why == "" {
		b.why = why
	}
	b.mu.Unlock()
	b.kill()
}

// kill kills the helper, and in an isolated sandbox with it everything.
func (b *box) kill() {
	if b.pid != 0 {
		_ = b.k.reaper.Signal(b.pid, syscall.SIGKILL)
	}
}

// watch waits for the end of the sandbox and removes what it held.
func (b *box) watch() {
	lifetime := time.AfterFunc(time.Until(b.rec.Info.ExpiresAt), func() { b.end(driver.EndLifetime) })
	<-b.exited
	lifetime.Stop()
	b.finish()
}

// finish removes what the sandbox held and writes how it ended. What cannot be
// removed now stays for the next sweep, which the record then asks for.
func (b *box) finish() {
	info := &b.rec.Info
	info.State, info.EndedAt, info.End = driver.StateEnded, time.Now(), b.reason()
	_ = b.close()
	_ = b.dir.Bury(&b.rec)
	_ = b.dir.Release(info.ID, info.Name)
	b.k.count(-1) // before those who wait hear of it: they may close the provider next
	b.letGo()
}

func (b *box) reason() driver.End {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.why != "":
		return b.why
	case b.status.Signaled() && b.oomKills() > 0:
		return driver.EndOOM
	default:
		return driver.EndProviderLost
	}
}

func (b *box) oomKills() uint64 {
	text, err := os.ReadFile(b.seat.oomFile())
	if err != nil {
		return 0
	}
	return helper.OOMKills(text)
}

// close closes what serves the sandbox.
func (b *box) close() error {
	var errs []error
	for _, c := range b.closer {
		errs = append(errs, c.Close())
	}
	if b.client != nil {
		errs = append(errs, b.client.Close())
	}
	return errors.Join(errs...)
}

// letGo gives back what outlasts the files, and tells those who wait.
func (b *box) letGo() {
	b.seat.leave()
	b.shown.letGo()
	for _, f := range []*os.File{b.stderr, b.alive, b.done} {
		if f != nil {
			f.Close()
		}
	}
}

// discard undoes a creation that failed. What cannot be undone now gets a
// record, so that the next sweep tries again.
func (b *box) discard() error {
	info := &b.rec.Info
	left := b.clear()
	errs := []error{b.close(), left}
	if left != nil {
		errs = append(errs, b.dir.Write(&b.rec))
	} else {
		errs = append(errs, b.dir.Forget(info.ID))
	}
	errs = append(errs, b.dir.Release(info.ID, info.Name))
	b.letGo()
	return errors.Join(errs...)
}

// clear ends the processes and removes the groups of a creation that failed.
func (b *box) clear() error {
	if b.pid == 0 {
		return b.seat.removeGroups()
	}
	b.kill()
	<-b.exited
	var err error
	if b.rec.Plain {
		err = lineage.Family(b.rec.Family).End(5 * time.Second)
	}
	return errors.Join(err, b.seat.removeGroups())
}
