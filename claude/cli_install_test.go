package claude_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
)

const fakeVersion = "9.9.9"

// installing returns options that install with the given npm, and an
// environment that holds no other CLI.
func installing(t *testing.T, npm fakeNPM, integrity string) *claude.LocateOptions {
	t.Helper()
	asCLI(t, fakeVersion)
	pathOf(t, "cat", "sleep")
	return &claude.LocateOptions{CacheDir: t.TempDir(), Version: fakeVersion, Integrity: integrity, NPM: npm.path}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		names = append(names, e.Name())
	}
	return names
}

func TestInstallOnce(t *testing.T) {
	archive, sum := cliPackage(t)
	npm := newNPM(t, `cat '`+archive+`' > "$dest/p.tgz"`)
	opts := installing(t, npm, sum)
	var told []string
	opts.Progress = func(line string) { told = append(told, line) }
	stray := writeFile(t, filepath.Join(opts.CacheDir, "tmp-killed", "half.tgz"), []byte("x"), 0o644)

	cli, err := claude.Locate(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if cli.Version != fakeVersion || !strings.HasPrefix(cli.Path, opts.CacheDir) {
		t.Errorf("got %+v, want %s below %s", cli, fakeVersion, opts.CacheDir)
	}
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("the rest of a killed installer is still there: %v", err)
	}
	if got := entries(t, opts.CacheDir); len(got) != 2 {
		t.Errorf("the cache holds %q, want the version and the lock", got)
	}
	if len(told) < 2 {
		t.Errorf("told only %q", told)
	}
	again, err := claude.Locate(t.Context(), opts)
	if err != nil || *again != *cli {
		t.Errorf("the second time: %+v, %v, want %+v", again, err, cli)
	}
	calls := npm.called(t)
	if len(calls) != 1 || !strings.Contains(calls[0], "@"+fakeVersion+" ") || !strings.Contains(calls[0], "--ignore-scripts") {
		t.Errorf("npm was called with %q, want once, with the version and without scripts", calls)
	}
}

func TestInstallReplacesABrokenOne(t *testing.T) {
	archive, sum := cliPackage(t)
	opts := installing(t, newNPM(t, `cat '`+archive+`' > "$dest/p.tgz"`), sum)
	cli, err := claude.Locate(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, cli.Path, []byte("\x7fELF, cut short"), 0o755)
	if again, err := claude.Locate(t.Context(), opts); err != nil || *again != *cli {
		t.Errorf("got %+v, %v, want %+v", again, err, cli)
	}
}

func TestInstallConcurrently(t *testing.T) {
	archive, sum := cliPackage(t)
	npm := newNPM(t, `cat '`+archive+`' > "$dest/p.tgz"`)
	opts := installing(t, npm, sum)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := claude.Locate(t.Context(), opts); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if calls := npm.called(t); len(calls) != 1 {
		t.Errorf("npm was called %d times, want once", len(calls))
	}
}

func TestInstallFails(t *testing.T) {
	good, sum := cliPackage(t)
	empty, emptySum := packageOf(t, map[string][]byte{"package/README.md": nil})
	script, scriptSum := packageOf(t, map[string][]byte{"package/claude": []byte("#!/bin/sh\n")})
	notZip := writeFile(t, filepath.Join(t.TempDir(), "x"), []byte("not a package"), 0o644)
	for name, test := range map[string]struct {
		npm, sum, version string
		is                error
		says              []string
		hides             string
	}{
		"npm fails": {
			npm: "echo 'npm error 404 https://joe:s3cret@npm.example/x' >&2; exit 3", sum: sum,
			says: []string{"exit status 3", "npm error 404", "set Path"}, hides: "s3cret",
		},
		"npm leaves nothing":  {npm: "exit 0", sum: sum, says: []string{"0 archives"}},
		"another package":     {npm: "cat '" + good + `' > "$dest/p.tgz"`, sum: emptySum, is: claude.ErrIntegrity, says: []string{sum, emptySum}},
		"cut short":           {npm: "cat '" + notZip + `' > "$dest/p.tgz"`, sum: sum, is: claude.ErrIntegrity},
		"not an archive":      {npm: "cat '" + notZip + `' > "$dest/p.tgz"`, sum: sumOf([]byte("not a package")), says: []string{"read the package"}},
		"no binary in it":     {npm: "cat '" + empty + `' > "$dest/p.tgz"`, sum: emptySum, says: []string{"package/claude"}},
		"a script in it":      {npm: "cat '" + script + `' > "$dest/p.tgz"`, sum: scriptSum, is: errors.ErrUnsupported},
		"another version":     {npm: "cat '" + good + `' > "$dest/p.tgz"`, sum: sum, version: "3.3.3", says: []string{"3.3.3"}},
		"says something else": {npm: "cat '" + good + `' > "$dest/p.tgz"`, sum: sum, version: "who knows", says: []string{"not the Claude Code CLI"}},
	} {
		t.Run(name, func(t *testing.T) {
			opts := installing(t, newNPM(t, test.npm), test.sum)
			if test.version != "" {
				asCLI(t, test.version)
			}
			cli, err := claude.Locate(t.Context(), opts)
			if err == nil {
				t.Fatalf("got %+v, want an error", cli)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %q does not match %v", err, test.is)
			}
			for _, says := range append(test.says, fakeVersion) {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error %q does not say %q", err, says)
				}
			}
			if test.hides != "" && strings.Contains(err.Error(), test.hides) {
				t.Errorf("error %q holds a password", err)
			}
			if got := entries(t, opts.CacheDir); len(got) != 1 || got[0] != "lock" {
				t.Errorf("the cache holds %q afterwards, want only the lock", got)
			}
		})
	}
}

func TestInstallIsCancelled(t *testing.T) {
	archive, sum := cliPackage(t)
	npm := newNPM(t, "exec sleep 600")
	opts := installing(t, npm, sum)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := claude.Locate(ctx, opts)
		failed <- err
	}()
	awaitCalls(t, npm)

	waiting := make(chan error, 1)
	told := make(chan string, 16)
	second := *opts
	second.Progress = func(line string) { told <- line }
	waitCtx, stopWaiting := context.WithCancel(t.Context())
	go func() {
		_, err := claude.Locate(waitCtx, &second)
		waiting <- err
	}()
	if line := <-told; !strings.Contains(line, "waiting for another process") {
		t.Errorf("the second one says %q first", line)
	}
	stopWaiting()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waits: %v, want context.Canceled", err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that installs: %v, want context.Canceled", err)
	}
	opts.NPM = newNPM(t, `cat '`+archive+`' > "$dest/p.tgz"`).path
	if _, err := claude.Locate(t.Context(), opts); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// awaitCalls returns once npm runs.
func awaitCalls(t *testing.T, npm fakeNPM) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for npm.called(t) == nil {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("npm was not called")
		}
	}
}

// TestInstallLive installs the real CLI from the registry that npm is
// configured for.
func TestInstallLive(t *testing.T) {
	if os.Getenv("VIVARIUM_LIVE_NPM") != "1" {
		t.Skip("needs npm, a registry and 170 MB of download: set VIVARIUM_LIVE_NPM=1")
	}
	t.Setenv("PATH", withoutCLI(os.Getenv("PATH")))
	cli, err := claude.Locate(t.Context(), &claude.LocateOptions{CacheDir: t.TempDir(), Progress: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	if cli.Version != claude.CLIVersion {
		t.Errorf("installed %s, want %s", cli.Version, claude.CLIVersion)
	}
}

func withoutCLI(path string) string {
	var kept []string
	for _, dir := range filepath.SplitList(path) {
		if _, err := os.Stat(filepath.Join(dir, "claude")); err != nil {
			kept = append(kept, dir)
		}
	}
	return strings.Join(kept, string(filepath.ListSeparator))
}
