package sandboxtest

import (
	"context"
	"errors"
	"iter"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

var (
	_ driver.Terminator     = (*faultyProvider)(nil)
	_ driver.ImageBuilder   = (*faultyProvider)(nil)
	_ driver.ImageInspector = (*faultyProvider)(nil)
	_ driver.DirSnapshotter = (*faultySandbox)(nil)
	_ driver.ImageMounter   = (*faultySandbox)(nil)
	_ driver.NetworkSetter  = (*faultySandbox)(nil)
	_ driver.OOMCounter     = (*faultySandbox)(nil)
	_ driver.ReadyWaiter    = (*faultySandbox)(nil)
	_ driver.Watcher        = (*faultySandbox)(nil)
)

// Terminate attaches where the driver cannot do without.
func (p *faultyProvider) Terminate(ctx context.Context, id string) error {
	d, ok := p.Provider.(driver.Terminator)
	if ok {
		return p.faults.do(ctx, OpTerminate, nil, func(Fault) error { return d.Terminate(ctx, id) })
	}
	sb, err := p.Attach(ctx, id)
	if errors.Is(err, driver.ErrEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(sb.Terminate(ctx), sb.Close())
}

func (p *faultyProvider) BuildImage(ctx context.Context, b *driver.Build) (info *driver.ImageInfo, err error) {
	d, ok := p.Provider.(driver.ImageBuilder)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	err = p.faults.do(ctx, OpBuild, nil, func(Fault) (err error) {
		info, err = d.BuildImage(ctx, b)
		return err
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (p *faultyProvider) Image(ctx context.Context, id string) (*driver.ImageInfo, error) {
	d, ok := p.Provider.(driver.ImageInspector)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return d.Image(ctx, id)
}

func (s *faultySandbox) SnapshotDir(ctx context.Context, dir string) (id string, err error) {
	d, ok := s.Sandbox.(driver.DirSnapshotter)
	if !ok {
		return "", errors.ErrUnsupported
	}
	err = s.do(ctx, OpSnapshot, func(Fault) (err error) {
		id, err = d.SnapshotDir(ctx, dir)
		return err
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

func (s *faultySandbox) OOMKills(ctx context.Context) (uint64, error) {
	d, ok := s.Sandbox.(driver.OOMCounter)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	return d.OOMKills(ctx)
}

func (s *faultySandbox) MountImage(ctx context.Context, dir, id string) error {
	d, ok := s.Sandbox.(driver.ImageMounter)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.do(ctx, OpMount, func(Fault) error { return d.MountImage(ctx, dir, id) })
}

func (s *faultySandbox) UnmountImage(ctx context.Context, dir string) error {
	d, ok := s.Sandbox.(driver.ImageMounter)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.do(ctx, OpMount, func(Fault) error { return d.UnmountImage(ctx, dir) })
}

func (s *faultySandbox) SetNetwork(ctx context.Context, n driver.Network) error {
	d, ok := s.Sandbox.(driver.NetworkSetter)
	if !ok {
		return errors.ErrUnsupported
	}
	return s.do(ctx, OpNetwork, func(Fault) error { return d.SetNetwork(ctx, n) })
}

// WaitReady is at its end at once where the driver has no probes.
func (s *faultySandbox) WaitReady(ctx context.Context) error {
	return s.do(ctx, OpReady, func(Fault) error {
		if d, ok := s.Sandbox.(driver.ReadyWaiter); ok {
			return d.WaitReady(ctx)
		}
		return nil
	})
}

func (s *faultySandbox) Watch(ctx context.Context, name string, recursive bool) (seq iter.Seq2[driver.Change, error], err error) {
	d, ok := s.Sandbox.(driver.Watcher)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	ctx, stop := context.WithCancel(ctx)
	err = s.do(ctx, OpWatch, func(Fault) (err error) {
		seq, err = d.Watch(ctx, name, recursive)
		return err
	})
	if err != nil {
		stop() // a watch whose answer was lost is not left behind
		return nil, err
	}
	return func(yield func(driver.Change, error) bool) {
		defer stop()
		seq(yield)
	}, nil
}
