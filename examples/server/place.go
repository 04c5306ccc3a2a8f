package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox"
)

// place is where sandboxes run, and what they are made of there.
type place struct {
	provider *sandbox.Provider
	sandbox  *sandbox.Config
	version  string // of the CLI in them
	close    func() error
}

func (s *settings) place(ctx context.Context, getenv func(string) string, stdout io.Writer) (*place, error) {
	switch s.driver {
	case "local":
		return s.local(ctx, stdout)
	case "modal":
		return s.onModal(getenv)
	}
	return nil, fmt.Errorf("-driver %q: use local or modal", s.driver)
}

// local shows the CLI of this machine in the sandboxes.
func (s *settings) local(ctx context.Context, stdout io.Writer) (*place, error) {
	cli, err := claude.Locate(ctx, &claude.LocateOptions{
		Progress: func(line string) { fmt.Fprintln(stdout, line) },
	})
	if err != nil {
		return nil, err
	}
	provider, err := localbox.Open(&localbox.Options{Dir: filepath.Join(s.data, "sandboxes")})
	if err != nil {
		return nil, err
	}
	return &place{
		provider: provider, sandbox: &sandbox.Config{Mounts: cli.Mounts()}, version: cli.Version, close: provider.Close,
	}, nil
}

// onModal installs the CLI in an image, which Modal builds once.
func (s *settings) onModal(getenv func(string) string) (*place, error) {
	client, err := modal.NewClientWithOptions(&modal.ClientParams{
		TokenID: getenv("MODAL_TOKEN_ID"), TokenSecret: getenv("MODAL_TOKEN_SECRET"),
	})
	if err != nil {
		return nil, fmt.Errorf("-driver modal: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET: %w", err)
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
	if s.image != "" {
		image, version = sandbox.Image{Base: s.image}, "of "+s.image
	}
	return &place{provider: provider, sandbox: &sandbox.Config{Image: image}, version: version, close: func() error {
		err := provider.Close()
		client.Close()
		return err
	}}, nil
}
