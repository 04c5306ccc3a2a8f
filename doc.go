// Package vivarium is the root of a Go SDK that runs Claude Code in disposable
// sandboxes, streams what it does as it happens, and keeps the workspace as
// versions. It holds no code; import the parts:
//
//   - [github.com/vivarium-go/vivarium/sandbox]: a Sandbox, its commands and files
//   - [github.com/vivarium-go/vivarium/sandbox/localbox]: sandboxes on this Linux machine
//   - [github.com/vivarium-go/vivarium/claude]: Claude Code in a sandbox, as a stream of messages
//   - [github.com/vivarium-go/vivarium/claude/broker]: the model's key, kept outside the sandbox
//   - [github.com/vivarium-go/vivarium/storage]: workspaces as versions in a bucket
//   - [github.com/vivarium-go/vivarium/sandboxhttp]: all of it as an http.Handler, and a chat page
//
// For tests: sandbox/sandboxtest, sandbox/drivermock, claude/claudetest and
// storage/storagetest.
//
// An agent in a sandbox, with the key held by this process:
//
//	p, err := localbox.Open(nil)
//	cli, err := claude.Locate(ctx, nil)
//	sb, err := p.Create(ctx, &sandbox.Config{Mounts: cli.Mounts()})
//	defer sb.Terminate(context.WithoutCancel(ctx))
//	st, err := claude.Query(ctx, sb, "fix the failing test", &claude.Options{…})
//	for msg, err := range st.Messages() { … }
//	res, err := st.Result()
//
// examples/quickstart is that program whole.
package vivarium
