package main

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/storage"
)

// kept is what outlives a sandbox.
type kept struct {
	workspace *storage.Volume // what Claude works on
	session   *storage.Volume // what Claude Code writes down of its conversations there
}

// init makes a new sandbox hold the newest version of both.
func (k *kept) init(ctx context.Context, sb *sandbox.Sandbox) error {
	dir, err := sessionDir(ctx, sb)
	if err != nil {
		return err
	}
	if err := k.workspace.Init(ctx, sb, sb.Dir()); err != nil {
		return err
	}
	return k.session.Init(ctx, sb, dir)
}

// sync keeps both, the conversation last: it never tells of files that are not kept.
func (k *kept) sync(ctx context.Context, sb *sandbox.Sandbox) (*storage.Version, error) {
	dir, err := sessionDir(ctx, sb)
	if err != nil {
		return nil, err
	}
	v, err := k.workspace.Sync(ctx, sb, sb.Dir())
	if err != nil {
		return nil, err
	}
	_, err = k.session.Sync(ctx, sb, dir)
	return v, err
}

// sessionDir is where Claude Code keeps the conversations of a directory: each is a
// file SESSION-ID.jsonl. It finds them there again whichever home and working
// directory the next sandbox has, since the name is worked out anew.
func sessionDir(ctx context.Context, sb *sandbox.Sandbox) (string, error) {
	var out bytes.Buffer
	if err := sb.Run(ctx, nil, &out, "sh", "-c", `printf '%s\n' "$HOME"; pwd -P`); err != nil {
		return "", fmt.Errorf("find the home directory: %w", err)
	}
	home, cwd, _ := strings.Cut(strings.TrimSuffix(out.String(), "\n"), "\n")
	if !path.IsAbs(home) || !path.IsAbs(cwd) {
		return "", fmt.Errorf("find the home directory: HOME is %q, and the working directory %q", home, cwd)
	}
	return path.Join(home, ".claude/projects", projectName(cwd)), nil
}

// projectName is what the CLI makes of a path: everything but letters and digits becomes "-".
func projectName(cwd string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, cwd)
}
