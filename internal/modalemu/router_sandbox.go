package modalemu

import (
	"context"
	"math"
	"net"
	"strconv"
	"time"

	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

const (
	// probeInterval is that of a probe that names none.
	probeInterval = 100 * time.Millisecond
	// probeWait bounds one attempt.
	probeWait = 30 * time.Second
)

// SandboxStdioReadV2 implements the service. A sandbox without a command has
// nothing to say until it ends.
func (r *router) SandboxStdioReadV2(req *pb.SandboxStdioReadV2Request, stream grpc.ServerStreamingServer[pb.SandboxStdioReadV2Response]) error {
	t, err := r.task(stream.Context(), req.GetTaskId())
	if err != nil {
		return err
	}
	stderr := req.GetFileDescriptor() == pb.SandboxStdioFileDescriptor_SANDBOX_STDIO_FILE_DESCRIPTOR_STDERR
	if !stderr && req.GetFileDescriptor() != pb.SandboxStdioFileDescriptor_SANDBOX_STDIO_FILE_DESCRIPTOR_STDOUT {
		return invalid("file descriptor %v cannot be read", req.GetFileDescriptor())
	}
	c := t.main
	if c.entry == nil {
		select {
		case <-c.ended:
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	o := &c.entry.Stdout
	if stderr {
		o = &c.entry.Stderr
	}
	var resp pb.SandboxStdioReadV2Response
	return send(stream.Context(), o, req.GetOffset(), func(off int64, data []byte) error {
		resp.SetData(data)
		resp.SetStartingOffset(uint64(off))
		return stream.Send(&resp)
	})
}

// SandboxStdinWriteV2 implements the service. What is written to a sandbox
// without a command nobody will ever read, as on Modal, where it sleeps.
func (r *router) SandboxStdinWriteV2(ctx context.Context, req *pb.SandboxStdinWriteV2Request) (*pb.SandboxStdinWriteV2Response, error) {
	t, err := r.task(ctx, req.GetTaskId())
	if err != nil {
		return nil, err
	}
	if entry := t.main.entry; entry != nil {
		defer t.busy()()
		if err := entry.Stdin.Write(ctx, req.GetOffset(), req.GetData(), req.GetEof()); err != nil {
			return nil, stdinError(err)
		}
	} else if t.main.hasEnded() && len(req.GetData()) > 0 {
		return nil, stdinError(process.ErrStdinClosed)
	}
	return &pb.SandboxStdinWriteV2Response{}, nil
}

// prober tries a container's probe until it succeeds or the container ends.
type prober struct {
	done chan struct{} // closed once the container is ready, or has ended
}

// SandboxWaitUntilReady implements the service.
func (r *router) SandboxWaitUntilReady(ctx context.Context, req *pb.SandboxWaitUntilReadyTcrRequest) (*pb.SandboxWaitUntilReadyTcrResponse, error) {
	c, err := r.container(ctx, req.GetTaskId(), "")
	if err != nil {
		return nil, err
	}
	if c.definition.GetReadinessProbe() == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "Sandbox '%s' has no readiness probe", c.task.sandboxID)
	}
	wait, cancel := context.WithTimeout(ctx, duration(req.GetTimeout()))
	defer cancel()
	select {
	case <-r.prober(c).done:
	case <-wait.Done():
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, status.Errorf(codes.DeadlineExceeded, "Sandbox '%s' is not ready yet", c.task.sandboxID)
	}
	if at := c.ready(); !at.IsZero() {
		return pb.SandboxWaitUntilReadyTcrResponse_builder{ReadyAt: seconds(at)}.Build(), nil
	}
	return nil, status.Errorf(codes.FailedPrecondition, "Sandbox '%s' has finished before it was ready", c.task.sandboxID)
}

// duration is a number of seconds; one that is none is zero.
func duration(seconds float32) time.Duration {
	switch s := float64(seconds); {
	case !(s > 0):
		return 0
	case s > math.MaxInt64/2/float64(time.Second):
		return math.MaxInt64 / 2
	default:
		return time.Duration(s * float64(time.Second))
	}
}

// ready is when the container's probe succeeded, or zero.
func (c *container) ready() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readyAt
}

// prober is the container's; the first that wants to know starts it.
func (r *router) prober(c *container) *prober {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.probes[c]
	if p == nil {
		p = &prober{done: make(chan struct{})}
		r.probes[c] = p
		c.task.onForget(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.probes, c)
		})
		r.server.running.Go(func() { p.run(r.server.ctx, c) })
	}
	return p
}

func (p *prober) run(ctx context.Context, c *container) {
	defer close(p.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interval := time.Duration(c.definition.GetReadinessProbe().GetIntervalMs()) * time.Millisecond
	if interval <= 0 {
		interval = probeInterval
	}
	next := time.NewTicker(interval)
	defer next.Stop()
	for !c.probe(ctx) {
		select {
		case <-next.C:
		case <-c.ended:
			return
		case <-ctx.Done():
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readyAt = time.Now()
}

// probe reports whether the container's probe succeeds now.
func (c *container) probe(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	probe := c.definition.GetReadinessProbe()
	if probe.HasTcpPort() {
		return c.accepts(ctx, probe.GetTcpPort())
	}
	p, err := process.Start(ctx, c.box, &driver.Exec{Args: probe.GetExecCommand().GetArgv()}, c.task.dir, nil)
	if err != nil {
		return false
	}
	e, err := p.Wait(ctx)
	if err != nil {
		kill, done := context.WithTimeout(context.WithoutCancel(ctx), probeWait)
		defer done()
		_ = p.Kill(kill) // it has had its time, and counts as failed either way
	}
	_ = p.Close() // it has no output
	return err == nil && e == (process.Exit{})
}

// accepts reports whether something listens on a port inside.
func (c *container) accepts(ctx context.Context, port uint32) bool {
	d, ok := c.box.(driver.Dialer)
	if !ok {
		return false
	}
	conn, err := d.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return false
	}
	return conn.Close() == nil
}
