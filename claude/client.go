package claude

import (
	"context"

	"github.com/vivarium-go/vivarium/sandbox"
)

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

// NewClient returns a client. opts may be nil; they are copied, but not what
// their slices and maps refer to, which must not change any more.
func NewClient(sb *sandbox.Sandbox, opts *Options) *Client {
	c := &Client{sb: sb}
	if opts != nil {
		c.opts = *opts
	}
	return c
}

// Query runs one prompt, with more such as Image and Document behind it, in the
// conversation that Options.Resume names or a new one, and returns as soon as the CLI has taken it. The process ends with the
// run. When ctx ends, every process of the run is killed.
//
// With Options.Answers the prompt may be empty: Claude goes on with the use of a tool that
// was put off, and the error matches ErrNotDeferred where none was.
//
// A CLI that does not get so far is a *StartError; a conversation that is not
// there matches ErrUnknownConversation, one that is open already, here or in
// another process, ErrSessionInUse, and options that make no sense
// sandbox.ErrInvalid.
//
// The caller closes the stream.
func (c *Client) Query(ctx context.Context, prompt string, more ...ContentBlock) (*Stream, error) {
	if c.opts.isAnswer(prompt, more) {
		return c.answer(ctx)
	}
	p, err := start(ctx, c.sb, &c.opts, true)
	if err != nil {
		return nil, err
	}
	t, err := p.prompt(prompt, more)
	if err != nil {
		p.kill(ErrClosed)
		return nil, err
	}
	return newStream(p, t), nil
}

// answer is Query without a prompt.
func (c *Client) answer(ctx context.Context) (*Stream, error) {
	p, newID, err := prepare(ctx, c.sb, &c.opts, true)
	if err != nil {
		return nil, err
	}
	t, err := p.goOn(newUUID())
	if err != nil {
		return nil, err
	}
	if err := p.begun(p.launch(newID)); err != nil {
		return nil, err
	}
	return p.takenUp(t)
}

// NewSession starts the CLI for several turns, in the conversation that
// Options.Resume names or a new one. ctx bounds the whole session, as that of
// exec.CommandContext bounds a command: when it ends, every process of the
// session is killed. Errors are those of Query. The caller closes the session.
func (c *Client) NewSession(ctx context.Context) (*Session, error) {
	return newSession(ctx, c.sb, &c.opts)
}

// Resume is NewSession in the conversation with that id, instead of Options.Resume.
func (c *Client) Resume(ctx context.Context, id string) (*Session, error) {
	opts := c.opts
	opts.Resume, opts.Continue, opts.Fork, opts.SessionID = id, false, false, ""
	return newSession(ctx, c.sb, &opts)
}

// Fork is NewSession in a new conversation that begins with all that was said
// in the one with that id, which stays as it is.
func (c *Client) Fork(ctx context.Context, id string) (*Session, error) {
	opts := c.opts
	opts.Resume, opts.Continue, opts.Fork = id, false, true
	return newSession(ctx, c.sb, &opts)
}
