// Package place picks where the sandboxes of the examples run, and puts Claude
// Code into them.
package place

import (
	"context"
	"fmt"
	"io"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
)

// Place is where sandboxes run, and what they are made of there.
type Place struct {
	Provider *sandbox.Provider
	Sandbox  *sandbox.Config
	Version  string // of the CLI in them
	close    func() error
}

// Options say what Open needs to know.
type Options struct {
	// Dir is where sandboxes of this machine keep their state; empty means in the
	// user's cache directory.
	Dir string
	// Image has Claude Code, and node or python3, for sandboxes of Modal; empty means
	// node:22-slim, in which Modal installs it.
	Image string
	// Getenv gives Modal's credentials: MODAL_TOKEN_ID and MODAL_TOKEN_SECRET.
	Getenv func(string) string
	// Progress gets lines about what takes long.
	Progress io.Writer
}

// Open gives the place called driver, "local" or "modal". The caller closes it.
func Open(ctx context.Context, driver string, opts *Options) (*Place, error) {
	switch driver {
	case "local":
		return local(ctx, opts)
	case "modal":
		return onModal(opts)
	}
	return nil, fmt.Errorf("%q: use local or modal", driver)
}

// Close ends the connection to the place. Sandboxes live on.
func (p *Place) Close() error { return p.close() }

// local shows the CLI of this machine in the sandboxes.
func local(ctx context.Context, opts *Options) (*Place, error) {
	cli, err := claude.Locate(ctx, &claude.LocateOptions{
		Progress: func(line string) { fmt.Fprintln(opts.Progress, line) },
	})
	if err != nil {
		return nil, err
	}
	provider, err := localbox.Open(&localbox.Options{Dir: opts.Dir})
	if err != nil {
		return nil, err
	}
	return &Place{
		Provider: provider, Sandbox: &sandbox.Config{Mounts: cli.Mounts()}, Version: cli.Version, close: provider.Close,
	}, nil
}

// onModal installs the CLI in an image, which Modal builds once.
func onModal(opts *Options) (*Place, error) {
	client, err := modal.NewClientWithOptions(&modal.ClientParams{
		TokenID: opts.Getenv("MODAL_TOKEN_ID"), TokenSecret: opts.Getenv("MODAL_TOKEN_SECRET"),
	})
	if err != nil {
		return nil, fmt.Errorf("set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET: %w", err)
	}
	provider, err := modalbox.Open(client, nil)
	if err != nil {
		client.Close()
		return nil, err
	}
	image := sandbox.Image{
		Base:     "node:22-slim",
		Commands: []string{"RUN npm install --global @anthropic-ai/claude-code@" + claude.CLIVersion},
	}
	version := claude.CLIVersion
	if opts.Image != "" {
		image, version = sandbox.Image{Base: opts.Image}, "of "+opts.Image
	}
	return &Place{Provider: provider, Sandbox: &sandbox.Config{Image: image}, Version: version, close: func() error {
		err := provider.Close()
		client.Close()
		return err
	}}, nil
}
