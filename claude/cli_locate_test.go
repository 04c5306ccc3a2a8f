package claude_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
)

func TestLocateNamed(t *testing.T) {
	asCLI(t, "7.8.9")
	real := copySelf(t, filepath.Join(t.TempDir(), "versions", "7.8.9"))
	link := filepath.Join(t.TempDir(), "claude")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	cli, err := claude.Locate(t.Context(), &claude.LocateOptions{Path: link})
	if err != nil {
		t.Fatal(err)
	}
	if cli.Path != real || cli.Version != "7.8.9" {
		t.Errorf("got %+v, want version 7.8.9 at %s, the link resolved", cli, real)
	}
	if source, target := cli.Mount(); source != real || target != "/opt/claude/claude" {
		t.Errorf("Mount() = %s, %s", source, target)
	}
}

func TestLocateRefusesWhatIsNotTheCLI(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		path   string
		output string
		is     error
		says   string
	}{
		"absent":        {path: filepath.Join(dir, "nothing"), is: os.ErrNotExist, says: "nothing"},
		"not on PATH":   {path: "no-such-claude", is: exec.ErrNotFound, says: "no-such-claude"},
		"a folder":      {path: dir, says: dir},
		"a script":      {path: writeFile(t, filepath.Join(dir, "claude"), []byte("#!/usr/bin/env node\n"), 0o755), is: errors.ErrUnsupported, says: "native"},
		"an empty file": {path: writeFile(t, filepath.Join(dir, "empty"), nil, 0o755), says: "not a program"},
		"another one":   {path: copySelf(t, filepath.Join(dir, "other")), output: "go version 1", says: `"go version 1"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(fakeCLIEnv, test.output)
			cli, err := claude.Locate(t.Context(), &claude.LocateOptions{Path: test.path})
			if err == nil {
				t.Fatalf("got %+v, want an error", cli)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %q does not match %v", err, test.is)
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %q does not say %q", err, test.says)
			}
		})
	}
}

func TestLocatePrefersPATH(t *testing.T) {
	asCLI(t, "1.0.0")
	onPath := copySelf(t, filepath.Join(pathOf(t), "claude"))
	cli, err := claude.Locate(t.Context(), &claude.LocateOptions{CacheDir: t.TempDir(), NPM: newNPM(t, "exit 1").path})
	if err != nil {
		t.Fatal(err)
	}
	if cli.Path != onPath || cli.Version != "1.0.0" {
		t.Errorf("got %+v, want the one on PATH, in its version", cli)
	}
}

func TestLocateSaysWhatToDo(t *testing.T) {
	for name, opts := range map[string]*claude.LocateOptions{
		"nothing installed and not allowed to": {NoInstall: true},
		"no npm":                               {},
		"no such npm":                          {NPM: filepath.Join(t.TempDir(), "npm")},
	} {
		t.Run(name, func(t *testing.T) {
			pathOf(t)
			opts.CacheDir = t.TempDir()
			_, err := claude.Locate(t.Context(), opts)
			if !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("error %v, want one that matches exec.ErrNotFound", err)
			}
			for _, remedy := range []string{"install npm", "claude on PATH", "set Path"} {
				if !strings.Contains(err.Error(), remedy) {
					t.Errorf("error %q does not name the remedy %q", err, remedy)
				}
			}
		})
	}
}

func TestLocateTellsWhyOnePATHIsPassedOver(t *testing.T) {
	script := writeFile(t, filepath.Join(pathOf(t), "claude"), []byte("#!/usr/bin/env node\n"), 0o755)
	var told []string
	_, err := claude.Locate(t.Context(), &claude.LocateOptions{
		CacheDir: t.TempDir(), NoInstall: true, Progress: func(line string) { told = append(told, line) },
	})
	if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), script) {
		t.Errorf("error %v, want exec.ErrNotFound that names %s", err, script)
	}
	if len(told) != 1 || !strings.Contains(told[0], script) {
		t.Errorf("told %q, want one line that names %s", told, script)
	}
}

func TestLocateVersionsMustBePinned(t *testing.T) {
	pathOf(t)
	for name, opts := range map[string]*claude.LocateOptions{
		"version without sum": {Version: "9.9.9"},
		"not a version":       {Version: "../../x"},
		"a tag":               {Version: "latest"},
		"weak sum":            {Version: "9.9.9", Integrity: "sha1-abc"},
	} {
		t.Run(name, func(t *testing.T) {
			npm := newNPM(t, "exit 1")
			opts.CacheDir, opts.NPM = t.TempDir(), npm.path
			if cli, err := claude.Locate(t.Context(), opts); err == nil {
				t.Errorf("got %+v, want an error", cli)
			}
			if calls := npm.called(t); calls != nil {
				t.Errorf("npm was called: %q", calls)
			}
		})
	}
}

func TestLocateEndsWithTheContext(t *testing.T) {
	asCLI(t, "1.0.0")
	path := copySelf(t, filepath.Join(pathOf(t), "claude"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, opts := range []*claude.LocateOptions{{Path: path}, {CacheDir: t.TempDir()}} {
		if _, err := claude.Locate(ctx, opts); !errors.Is(err, context.Canceled) {
			t.Errorf("Locate(%+v) = %v, want context.Canceled", opts, err)
		}
	}
}
