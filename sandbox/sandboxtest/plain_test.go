package sandboxtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// plain is the least that can be called a driver: processes of this machine in
// a directory each, nothing isolated. The suite and the faults are tested on it.
type plain struct {
	mu  sync.Mutex
	all map[string]*plainSandbox
	dir string
}

func newPlain(t *testing.T) *plain {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &plain{all: map[string]*plainSandbox{}, dir: dir}
}

func (p *plain) open(*testing.T) *sandbox.Provider { return sandbox.NewProvider(p) }

func (p *plain) Close() error { return nil }

func (p *plain) Create(ctx context.Context, cfg *driver.Config) (driver.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := refuse(cfg); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := fmt.Sprintf("plain-%d", len(p.all))
	home := filepath.Join(p.dir, id)
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	sb := &plainSandbox{
		env: append(append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}, cfg.Env...), cfg.Secrets...), ended: make(chan struct{}),
		home: home, procs: map[*plainProcess]bool{},
		info: driver.Info{
			ID: id, Driver: "plain", Dir: cmp.Or(cfg.Dir, home), State: driver.StateRunning, CreatedAt: time.Now(),
			ExpiresAt: time.Now().Add(cfg.Timeout), Tags: maps.Clone(cfg.Tags), Unenforced: map[string]string{"Network": "plain processes"},
		},
	}
	p.all[id] = sb
	if cfg.Timeout > 0 {
		context.AfterFunc(sb.lifetime(cfg.Timeout), func() { sb.end(driver.EndLifetime) })
	}
	return sb, nil
}

func refuse(cfg *driver.Config) error {
	for setting, set := range map[string]bool{
		"Name": cfg.Name != "", "CPU": cfg.CPU != 0, "Memory": cfg.Memory != 0, "Pids": cfg.Pids != 0, "Disk": cfg.Disk != 0,
		"IdleTimeout": cfg.IdleTimeout != 0, "Network.Mode": cfg.Network.Mode != 0, "Ports": cfg.Ports != nil, "Mounts": cfg.Mounts != nil,
		"Image.Base": cfg.Image.Base != "", "Image.Snapshot": cfg.Image.Snapshot != "", "Probe": cfg.Probe != nil,
	} {
		if set {
			return &driver.UnsupportedError{Setting: setting}
		}
	}
	return nil
}

func (p *plain) Attach(ctx context.Context, id string) (driver.Sandbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sb := p.all[id]
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case sb == nil:
		return nil, driver.ErrNotFound
	case sb.over():
		return nil, driver.ErrEnded
	}
	return sb, nil
}

func (p *plain) Lookup(context.Context, string) (string, error) { return "", driver.ErrNotFound }

func (p *plain) List(ctx context.Context, f *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		p.mu.Lock()
		all := slices.Collect(maps.Values(p.all))
		p.mu.Unlock()
		if ctx.Err() != nil {
			yield(nil, ctx.Err())
			return
		}
		for _, sb := range all {
			info, _ := sb.Info(ctx)
			if info.State == driver.StateEnded && !f.Ended || !hasTags(info.Tags, f.Tags) {
				continue
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

func hasTags(tags, want map[string]string) bool {
	for k, v := range want {
		if got, ok := tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

type plainSandbox struct {
	env   []string
	home  string
	mu    sync.Mutex
	info  driver.Info
	procs map[*plainProcess]bool
	ended chan struct{}
}

func (s *plainSandbox) lifetime(d time.Duration) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), d)
	go func() {
		<-s.ended
		stop()
	}()
	return ctx
}

func (s *plainSandbox) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *plainSandbox) end(why driver.End) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() {
		return
	}
	s.info.State, s.info.End, s.info.EndedAt = driver.StateEnded, why, time.Now()
	close(s.ended)
	for p := range s.procs {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = os.RemoveAll(s.home)
}

func (s *plainSandbox) ID() string { return s.info.ID }

func (s *plainSandbox) Info(context.Context) (*driver.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.info
	return &info, nil
}

func (s *plainSandbox) Wait(ctx context.Context) (*driver.Info, error) {
	select {
	case <-s.ended:
		return s.Info(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *plainSandbox) Terminate(context.Context) error { s.end(driver.EndCancelled); return nil }
func (s *plainSandbox) Close() error                    { return nil }
func (s *plainSandbox) Files() driver.FileSystem        { return plainFiles{s} }

func (s *plainSandbox) Start(ctx context.Context, e *driver.Exec) (driver.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() {
		return nil, driver.ErrEnded
	}
	if e.TTY != nil {
		return nil, &driver.UnsupportedError{Setting: "TTY"}
	}
	cmd := exec.Command(e.Args[0], e.Args[1:]...)
	cmd.Env, cmd.Dir = append(slices.Clone(s.env), e.Env...), cmp.Or(e.Dir, s.info.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if info, err := os.Stat(cmd.Dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, syscall.ENOTDIR
	}
	p := &plainProcess{cmd: cmd, sb: s, done: make(chan struct{})}
	if err := p.start(e); err != nil {
		return nil, err
	}
	s.procs[p] = true
	go p.reap()
	return p, nil
}

type plainProcess struct {
	cmd            *exec.Cmd
	sb             *plainSandbox
	stdin          io.WriteCloser
	stdout, stderr io.ReadCloser
	done           chan struct{}
}

func (p *plainProcess) start(e *driver.Exec) error {
	var theirs []*os.File
	pipe := func(wanted, write bool) (ours, other *os.File) {
		if !wanted {
			return nil, nil
		}
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		if write {
			r, w = w, r
		}
		theirs = append(theirs, w)
		return r, w
	}
	if ours, other := pipe(e.Stdin, true); ours != nil {
		p.stdin, p.cmd.Stdin = ours, other
	}
	if ours, other := pipe(e.Stdout, false); ours != nil {
		p.stdout, p.cmd.Stdout = ours, other
		if e.Merge {
			p.cmd.Stderr = other
		}
	}
	if ours, other := pipe(e.Stderr, false); ours != nil {
		p.stderr, p.cmd.Stderr = ours, other
	}
	err := p.cmd.Start()
	for _, f := range theirs {
		_ = f.Close()
	}
	if err != nil {
		_ = closeStreams(p)
		if errors.Is(err, fs.ErrNotExist) {
			err = exec.ErrNotFound
		}
	}
	return err
}

func (p *plainProcess) reap() {
	_ = p.cmd.Wait()
	close(p.done)
	p.sb.mu.Lock()
	delete(p.sb.procs, p)
	p.sb.mu.Unlock()
}

func (p *plainProcess) Stdin() io.WriteCloser { return p.stdin }
func (p *plainProcess) Stdout() io.ReadCloser { return p.stdout }
func (p *plainProcess) Stderr() io.ReadCloser { return p.stderr }

func (p *plainProcess) Wait(ctx context.Context) (driver.Exit, error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		return driver.Exit{}, ctx.Err()
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if p.sb.over() && status.Signaled() {
		return driver.Exit{}, driver.ErrEnded
	}
	exit := driver.Exit{Code: status.ExitStatus(), UserTime: p.cmd.ProcessState.UserTime()}
	if status.Signaled() {
		exit.Signal = driver.Signal(status.Signal())
	}
	return exit, nil
}

func (p *plainProcess) Signal(_ context.Context, sig driver.Signal) error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return syscall.Kill(-p.cmd.Process.Pid, syscall.Signal(sig))
	}
}

func (p *plainProcess) Kill(context.Context) error {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	return nil
}

func (p *plainProcess) Resize(context.Context, driver.Winsize) error { return errors.ErrUnsupported }

// plainFiles is package os, for as long as the sandbox runs.
type plainFiles struct{ sb *plainSandbox }

func (f plainFiles) check(ctx context.Context, name string) error {
	if f.sb.over() {
		return driver.ErrEnded
	}
	for _, kernel := range []string{"/proc", "/sys", "/dev"} {
		if rel, err := filepath.Rel(kernel, name); err == nil && filepath.IsLocal(rel) {
			return fs.ErrPermission
		}
	}
	return ctx.Err()
}

func (f plainFiles) OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (driver.File, error) {
	if err := f.check(ctx, name); err != nil {
		return nil, err
	}
	if info, err := os.Stat(name); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		return nil, fs.ErrPermission
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		if err := f.check(ctx, real); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (f plainFiles) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	if err := f.check(ctx, name); err != nil {
		return nil, err
	}
	return os.Stat(name)
}

func (f plainFiles) Lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	if err := f.check(ctx, name); err != nil {
		return nil, err
	}
	return os.Lstat(name)
}

func (f plainFiles) ReadDir(ctx context.Context, name string) ([]fs.FileInfo, error) {
	if err := f.check(ctx, name); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(name)
	infos := make([]fs.FileInfo, 0, len(entries))
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			infos = append(infos, info)
		}
	}
	return infos, err
}

func (f plainFiles) ReadLink(ctx context.Context, name string) (string, error) {
	if err := f.check(ctx, name); err != nil {
		return "", err
	}
	return os.Readlink(name)
}

func (f plainFiles) Mkdir(ctx context.Context, name string, perm fs.FileMode) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.Mkdir(name, perm)
}

func (f plainFiles) MkdirAll(ctx context.Context, name string, perm fs.FileMode) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.MkdirAll(name, perm)
}

func (f plainFiles) Rename(ctx context.Context, from, to string) error {
	if err := f.check(ctx, from); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (f plainFiles) Remove(ctx context.Context, name string) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.Remove(name)
}

func (f plainFiles) RemoveAll(ctx context.Context, name string) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.RemoveAll(name)
}

func (f plainFiles) Symlink(ctx context.Context, target, name string) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.Symlink(target, name)
}

func (f plainFiles) Chmod(ctx context.Context, name string, mode fs.FileMode) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

func (f plainFiles) Chtimes(ctx context.Context, name string, atime, mtime time.Time) error {
	if err := f.check(ctx, name); err != nil {
		return err
	}
	return os.Chtimes(name, atime, mtime)
}
