package claude

import (
	"context"
	"errors"

	"github.com/vivarium-go/vivarium/sandbox"
)

var errSkeleton = errors.New("claude: not written yet")

// Query runs one prompt in the sandbox: NewClient(sb, opts).Query(ctx, prompt).
func Query(ctx context.Context, sb *sandbox.Sandbox, prompt string, opts *Options) (*Stream, error) {
	return NewClient(sb, opts).Query(ctx, prompt)
}

// Client runs Claude in one sandbox, always with the same options. It holds
// nothing open, and is safe for concurrent use.
type Client struct {
	sb   *sandbox.Sandbox
	opts Options
}

// NewClient returns a client. opts may be nil; they are copied.
func NewClient(sb *sandbox.Sandbox, opts *Options) *Client {
	c := &Client{sb: sb}
	if opts != nil {
		c.opts = *opts
	}
	return c
}

// Query runs one prompt, in the conversation that Options.Resume names or a new
// one, and returns as soon as the CLI has taken it. The process ends with the
// run. When ctx ends, every process of the run is killed.
//
// A CLI that does not get so far is a *StartError. A conversation that this
// process already has open in the sandbox matches ErrSessionInUse.
//
// The caller closes the stream.
func (c *Client) Query(ctx context.Context, prompt string) (*Stream, error) {
	return nil, errSkeleton
}

// NewSession starts the CLI for several turns, in the conversation that
// Options.Resume names or a new one. ctx bounds the whole session, as that of
// exec.CommandContext bounds a command: when it ends, every process of the
// session is killed. Errors are those of Query. The caller closes the session.
func (c *Client) NewSession(ctx context.Context) (*Session, error) {
	return nil, errSkeleton
}

// Resume is NewSession in the conversation with that id, instead of Options.Resume.
func (c *Client) Resume(ctx context.Context, id string) (*Session, error) {
	return nil, errSkeleton
}

// Fork is NewSession in a new conversation that begins with all that was said
// in the one with that id, which stays as it is.
func (c *Client) Fork(ctx context.Context, id string) (*Session, error) {
	return nil, errSkeleton
}
