package sandboxtest

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

type faultyProvider struct {
	driver.Provider
	faults *Faults
}

var _ driver.SnapshotDeleter = (*faultyProvider)(nil)

func (p *faultyProvider) wrap(sb driver.Sandbox) driver.Sandbox {
	return &faultySandbox{Sandbox: sb, faults: p.faults}
}

func (p *faultyProvider) Create(ctx context.Context, cfg *driver.Config) (made driver.Sandbox, err error) {
	err = p.faults.do(ctx, OpCreate, nil, func(Fault) (err error) {
		made, err = p.Provider.Create(ctx, cfg)
		return err
	})
	return p.handle(made, err)
}

func (p *faultyProvider) Attach(ctx context.Context, id string) (found driver.Sandbox, err error) {
	err = p.faults.do(ctx, OpAttach, nil, func(Fault) (err error) {
		found, err = p.Provider.Attach(ctx, id)
		return err
	})
	return p.handle(found, err)
}

// handle wraps a sandbox, or lets go of one whose answer was lost.
func (p *faultyProvider) handle(sb driver.Sandbox, err error) (driver.Sandbox, error) {
	if err == nil {
		return p.wrap(sb), nil
	}
	if sb != nil {
		err = errors.Join(err, sb.Close())
	}
	return nil, err
}

func (p *faultyProvider) Lookup(ctx context.Context, name string) (id string, err error) {
	err = p.faults.do(ctx, OpLookup, nil, func(Fault) (err error) {
		id, err = p.Provider.Lookup(ctx, name)
		return err
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

func (p *faultyProvider) List(ctx context.Context, filter *driver.Filter) iter.Seq2[*driver.Info, error] {
	return func(yield func(*driver.Info, error) bool) {
		stopped := false
		err := p.faults.do(ctx, OpList, nil, func(Fault) error {
			for info, err := range p.Provider.List(ctx, filter) {
				if err != nil {
					return err
				}
				if stopped = !yield(info, nil); stopped {
					break
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(nil, err)
		}
	}
}

func (p *faultyProvider) DeleteSnapshot(ctx context.Context, id string) error {
	d, ok := p.Provider.(driver.SnapshotDeleter)
	if !ok {
		return errors.ErrUnsupported
	}
	return d.DeleteSnapshot(ctx, id)
}

type faultySandbox struct {
	driver.Sandbox
	faults *Faults
}

var (
	_ driver.Snapshotter = (*faultySandbox)(nil)
	_ driver.Listener    = (*faultySandbox)(nil)
	_ driver.Dialer      = (*faultySandbox)(nil)
)

func (s *faultySandbox) do(ctx context.Context, op Op, act func(Fault) error) error {
	return s.faults.do(ctx, op, s.Sandbox.Terminate, act)
}

func (s *faultySandbox) Info(ctx context.Context) (info *driver.Info, err error) {
	err = s.do(ctx, OpInfo, func(Fault) (err error) {
		info, err = s.Sandbox.Info(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (s *faultySandbox) Start(ctx context.Context, e *driver.Exec) (proc driver.Process, err error) {
	var met Fault
	err = s.do(ctx, OpStart, func(f Fault) (err error) {
		met = f
		proc, err = s.Sandbox.Start(ctx, e)
		return err
	})
	if err != nil {
		if proc != nil { // it runs, and nobody knows
			err = errors.Join(err, closeStreams(proc))
		}
		return nil, err
	}
	return &faultyProcess{
		Process: proc, sb: s,
		stdout: cut(proc.Stdout(), met.CutStdout, met.Cut),
		stderr: cut(proc.Stderr(), met.CutStderr, met.Cut),
	}, nil
}

func closeStreams(proc driver.Process) error {
	var errs []error
	for _, c := range []io.Closer{proc.Stdin(), proc.Stdout(), proc.Stderr()} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *faultySandbox) Wait(ctx context.Context) (info *driver.Info, err error) {
	err = s.do(ctx, OpWait, func(Fault) (err error) {
		info, err = s.Sandbox.Wait(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (s *faultySandbox) Terminate(ctx context.Context) error {
	return s.do(ctx, OpTerminate, func(Fault) error { return s.Sandbox.Terminate(ctx) })
}

func (s *faultySandbox) Files() driver.FileSystem {
	return &faultyFiles{fsys: s.Sandbox.Files(), sb: s}
}

func (s *faultySandbox) Snapshot(ctx context.Context) (id string, err error) {
	d, ok := s.Sandbox.(driver.Snapshotter)
	if !ok {
		return "", errors.ErrUnsupported
	}
	err = s.do(ctx, OpSnapshot, func(Fault) (err error) {
		id, err = d.Snapshot(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

func (s *faultySandbox) Listen(ctx context.Context, address string) (l net.Listener, err error) {
	d, ok := s.Sandbox.(driver.Listener)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	err = s.do(ctx, OpListen, func(Fault) (err error) {
		l, err = d.Listen(ctx, address)
		return err
	})
	if err != nil && l != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, err
}

func (s *faultySandbox) Dial(ctx context.Context, address string) (c net.Conn, err error) {
	d, ok := s.Sandbox.(driver.Dialer)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	err = s.do(ctx, OpDial, func(Fault) (err error) {
		c, err = d.Dial(ctx, address)
		return err
	})
	if err != nil && c != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, err
}

type faultyProcess struct {
	driver.Process
	sb             *faultySandbox
	stdout, stderr io.ReadCloser
}

func (p *faultyProcess) Stdout() io.ReadCloser { return p.stdout }
func (p *faultyProcess) Stderr() io.ReadCloser { return p.stderr }

func (p *faultyProcess) Wait(ctx context.Context) (exit driver.Exit, err error) {
	err = p.sb.do(ctx, OpExit, func(Fault) (err error) {
		exit, err = p.Process.Wait(ctx)
		return err
	})
	if err != nil {
		return driver.Exit{}, err
	}
	return exit, nil
}

func (p *faultyProcess) Signal(ctx context.Context, sig driver.Signal) error {
	return p.sb.do(ctx, OpSignal, func(Fault) error { return p.Process.Signal(ctx, sig) })
}

func (p *faultyProcess) Kill(ctx context.Context) error {
	return p.sb.do(ctx, OpKill, func(Fault) error { return p.Process.Kill(ctx) })
}

// cut ends a stream after n bytes.
func cut(r io.ReadCloser, n int64, with error) io.ReadCloser {
	if r == nil || n == 0 {
		return r
	}
	if with == nil {
		with = driver.ErrUnavailable
	}
	return &cutStream{ReadCloser: r, left: max(n, 0), with: with}
}

type cutStream struct {
	io.ReadCloser
	mu   sync.Mutex
	left int64
	with error
}

func (c *cutStream) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return 0, c.with
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
