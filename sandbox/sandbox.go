package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// Sandbox is a handle on one sandbox. Its methods are safe for concurrent use,
// and match ErrEnded once the sandbox has ended. The caller closes it, or
// terminates the sandbox.
type Sandbox struct {
	driver driver.Sandbox
	dir    string

	jobs    sync.Mutex
	jobsDir string // where jobs are, once it is known
}

// Info describes a sandbox at one moment. It never holds a secret.
type Info = driver.Info

// State is where in its life a sandbox is.
type State = driver.State

// The states.
const (
	StateRunning = driver.StateRunning
	StateEnded   = driver.StateEnded
)

// End is why a sandbox ended.
type End = driver.End

// The ways a sandbox ends.
const (
	EndCancelled    = driver.EndCancelled    // somebody terminated it
	EndIdle         = driver.EndIdle         // nothing ran in it for IdleTimeout
	EndLifetime     = driver.EndLifetime     // its Timeout was reached
	EndOOM          = driver.EndOOM          // its memory limit ended it
	EndProviderLost = driver.EndProviderLost // the driver's place lost it
	EndUnknown      = driver.EndUnknown
)

// ID is what Provider.Attach takes.
func (s *Sandbox) ID() string { return s.driver.ID() }

// String is "sandbox" and the id.
func (s *Sandbox) String() string { return "sandbox " + s.ID() }

// Format writes String for every verb: what the driver holds, secrets among it,
// is not to be printed.
func (s *Sandbox) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// Dir is the directory commands start in, as they see it.
func (s *Sandbox) Dir() string { return s.dir }

// Driver returns the driver's handle, for what only one driver offers.
func (s *Sandbox) Driver() driver.Sandbox { return s.driver }

// Info asks for the sandbox's present state. It works after the end too, as
// long as the driver still knows of it.
func (s *Sandbox) Info(ctx context.Context) (*Info, error) {
	info, err := s.driver.Info(ctx)
	return info, wrap("info", s.ID(), err)
}

// Wait returns the final Info once the sandbox has ended, or ctx's error.
func (s *Sandbox) Wait(ctx context.Context) (*Info, error) {
	info, err := s.driver.Wait(ctx)
	return info, wrap("wait", s.ID(), err)
}

// Snapshot saves the sandbox's files as an image for Config.Image.Snapshot. It
// is not an instant: quiesce what writes. A driver that cannot answers an error
// that matches errors.ErrUnsupported.
func (s *Sandbox) Snapshot(ctx context.Context) (Image, error) {
	d, ok := s.driver.(driver.Snapshotter)
	if !ok {
		return Image{}, wrap("snapshot", s.ID(), errors.ErrUnsupported)
	}
	id, err := d.Snapshot(ctx)
	if err != nil {
		return Image{}, wrap("snapshot", s.ID(), err)
	}
	return Image{Snapshot: id}, nil
}

// Listen accepts, in this process, connections that the sandbox's own processes
// make to address, a loopback "IP:port" inside; port 0 picks one. It works
// without any network, so a service can be offered to a sandbox and nothing
// else. The caller closes the listener. An address that is taken inside matches
// syscall.EADDRINUSE; that of a process that was killed may be for a minute or so.
// Matches errors.ErrUnsupported where the driver cannot.
func (s *Sandbox) Listen(ctx context.Context, address string) (net.Listener, error) {
	d, ok := s.driver.(driver.Listener)
	if !ok {
		return nil, wrap("listen", s.ID(), errors.ErrUnsupported)
	}
	l, err := d.Listen(ctx, address)
	if err != nil {
		return nil, wrap("listen on "+address, s.ID(), err)
	}
	return l, nil
}

// Dial connects to a loopback "IP:port" inside. Matches errors.ErrUnsupported
// where the driver cannot.
func (s *Sandbox) Dial(ctx context.Context, address string) (net.Conn, error) {
	d, ok := s.driver.(driver.Dialer)
	if !ok {
		return nil, wrap("dial", s.ID(), errors.ErrUnsupported)
	}
	c, err := d.Dial(ctx, address)
	if err != nil {
		return nil, wrap("dial "+address, s.ID(), err)
	}
	return c, nil
}

// Run runs a command to its end with stdin and stdout as given; both may be
// nil. A command that failed is an *ExitError with the tail of what it wrote to
// stderr. It is Command for packages that must not import this one.
func (s *Sandbox) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	cmd := s.Command(ctx, name, args...)
	cmd.Stdin, cmd.Stdout = stdin, stdout
	return cmd.Run()
}

// Terminate ends every process and destroys the sandbox with its files. It
// returns when that is done. One that has ended already is no error.
func (s *Sandbox) Terminate(ctx context.Context) error {
	return wrap("terminate", s.ID(), s.driver.Terminate(ctx))
}

// Close lets go of the handle; the sandbox goes on.
func (s *Sandbox) Close() error { return wrap("close", s.ID(), s.driver.Close()) }
