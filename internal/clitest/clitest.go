// Package clitest finds the real Claude Code CLI for tests.
package clitest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
)

// Env names the variable that holds the path of the CLI for tests. Where it is
// not set, the CLI on PATH is taken, else the one in the default cache.
const Env = "VIVARIUM_CLAUDE"

var find = sync.OnceValues(func() (*claude.CLI, error) {
	return claude.Locate(context.Background(), &claude.LocateOptions{Path: os.Getenv(Env), NoInstall: true})
})

// CLI returns the CLI, or skips the test where there is none; it never installs
// one. It looks once per process.
func CLI(t testing.TB) *claude.CLI {
	t.Helper()
	cli, err := find()
	if err != nil {
		t.Skipf("needs the real Claude Code CLI (set %s to its path, put claude on PATH, or run an example once, which installs it): %v", Env, err)
	}
	return cli
}

// OnPath makes the test's programs find cli as "claude" on PATH.
func OnPath(t testing.TB, cli *claude.CLI) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(cli.Path, filepath.Join(dir, "claude")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}
