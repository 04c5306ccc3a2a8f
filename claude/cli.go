package claude

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// CLIVersion is the version of the Claude Code CLI that this package was
// written and tested against, and the one that [Locate] installs.
const CLIVersion = "2.1.328"

// CLITarget is the path at which sandboxes see the CLI; see [CLI.Mount].
const CLITarget = "/opt/claude/claude"

// versionLimit bounds how long a binary may take to say its version: 0.1 s when
// it is in the page cache, some seconds when 370 MB come from a slow disk.
const versionLimit = 30 * time.Second

// CLI is a Claude Code CLI found on this machine. It is a value to be copied freely.
type CLI struct {
	// Path is the absolute path of the binary, with symbolic links resolved.
	Path string
	// Version is what it says of itself, such as "2.1.328".
	Version string
}

// Mount returns what puts the CLI into a sandbox: the file on this machine, and
// where it belongs inside, read-only and executable. The binary needs nothing
// beside it but the machine's C library.
func (c *CLI) Mount() (source, target string) { return c.Path, CLITarget }

// LocateOptions says where [Locate] looks. The zero value, and nil, are usable.
type LocateOptions struct {
	// Path is the CLI to use. Empty: look for one. A path without a slash is
	// looked up on PATH.
	Path string
	// CacheDir is where an installed CLI is kept, one folder for each version.
	// Empty: vivarium/claude in [os.UserCacheDir].
	CacheDir string
	// Version is the version to install, and to look for in the cache. A CLI on
	// PATH may have any version. Empty: [CLIVersion].
	Version string
	// Integrity is the "sha512-…" of this platform's package for Version, as
	// "npm view PACKAGE@VERSION dist.integrity" prints it. It is required where
	// Version is not [CLIVersion], whose sums are part of this package.
	Integrity string
	// NoInstall fails rather than install.
	NoInstall bool
	// NPM is the npm to install with. Empty: "npm" on PATH. Its configuration
	// decides on the registry, proxies and credentials.
	NPM string
	// Progress is told what is going on, in lines for a person without a newline
	// at the end. It is called from one goroutine at a time. Nil: nobody is told.
	Progress func(line string)
}

// Locate finds the Claude Code CLI: at opts.Path, else "claude" on PATH, else
// in the cache, else it installs it into the cache with npm. It may run
// concurrently, also in several processes: one installs and the others wait.
//
// A CLI on PATH that cannot be used is passed over, and Progress is told why;
// one named by opts.Path is refused. Such are the JavaScript edition of older
// versions, which needs Node and its own folder, and wrapper scripts.
//
// The error says what to do. It matches [exec.ErrNotFound] where there is no
// CLI and none may or can be installed, [ErrIntegrity] where the download is not
// what was pinned, and the context's error where that ended it.
func Locate(ctx context.Context, opts *LocateOptions) (*CLI, error) {
	l, err := newLocator(opts)
	if err != nil {
		return nil, err
	}
	if l.Path != "" {
		return l.named(ctx)
	}
	if cli := l.onPath(ctx); cli != nil {
		return cli, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := l.pin()
	if err != nil {
		return nil, l.absent(err)
	}
	if cli, err := inspect(ctx, l.cached(p)); err == nil {
		return cli, nil
	}
	if l.NoInstall {
		return nil, l.absent(fmt.Errorf("none in %s, and installing is switched off: %w", l.CacheDir, exec.ErrNotFound))
	}
	return l.install(ctx, p)
}

// locator is one run of Locate, with the defaults filled in.
type locator struct {
	LocateOptions
	passedOver error // why the one on PATH was not used
}

func newLocator(opts *LocateOptions) (*locator, error) {
	var l locator
	if opts != nil {
		l.LocateOptions = *opts
	}
	if l.Version == "" {
		l.Version = CLIVersion
	}
	if !versionPattern.MatchString(l.Version) {
		return nil, fmt.Errorf("claude: version %q of the CLI is not of the form 1.2.3", l.Version)
	}
	if l.NPM == "" {
		l.NPM = "npm"
	}
	if l.Progress == nil {
		l.Progress = func(string) {}
	}
	if l.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("claude: no folder to keep the CLI in (set CacheDir, HOME or XDG_CACHE_HOME): %w", err)
		}
		l.CacheDir = filepath.Join(dir, "vivarium", "claude")
	}
	dir, err := filepath.Abs(l.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("claude: %w", err)
	}
	l.CacheDir = dir
	return &l, nil
}

// named returns the CLI that the caller named, or says what is wrong with it.
func (l *locator) named(ctx context.Context) (*CLI, error) {
	path, err := exec.LookPath(l.Path)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return nil, fmt.Errorf("claude: the CLI was said to be %s: %w", l.Path, err)
	}
	cli, err := inspect(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("claude: the CLI was said to be %s: %w", l.Path, err)
	}
	return cli, nil
}

func (l *locator) onPath(ctx context.Context) *CLI {
	path, err := exec.LookPath("claude")
	if err != nil {
		return nil
	}
	cli, err := inspect(ctx, path)
	if err != nil {
		l.passedOver = err
		l.Progress(fmt.Sprintf("passing over the claude on PATH: %v", err))
		return nil
	}
	return cli
}

// absent is the error for a machine on which no CLI is to be had.
func (l *locator) absent(cause error) error {
	err := fmt.Errorf("claude: no Claude Code CLI: %w; install npm, or put claude on PATH, or set Path to one", cause)
	if l.passedOver != nil {
		err = fmt.Errorf("%w (the claude on PATH cannot be used: %w)", err, l.passedOver)
	}
	return err
}

// inspect looks at a file that should be the CLI and asks it for its version.
func inspect(ctx context.Context, path string) (*CLI, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, err
	}
	if err := checkNative(resolved); err != nil {
		return nil, err
	}
	version, err := askVersion(ctx, resolved)
	if err != nil {
		return nil, err
	}
	return &CLI{Path: resolved, Version: version}, nil
}

// checkNative refuses what is not a program of this machine by itself. Scripts
// are the JavaScript edition, or wrappers around a CLI elsewhere: neither works
// once it alone is mounted into a sandbox.
func checkNative(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")})
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(f, head); err != nil {
		return fmt.Errorf("%s is not a program: %w", path, err)
	}
	if bytes.HasPrefix(head, []byte("#!")) || strings.HasSuffix(path, ".js") {
		return fmt.Errorf("%s is a script (the CLI's JavaScript edition, or a wrapper), not the native CLI; "+
			"update it by \"claude update\", or remove it from PATH: %w", path, errors.ErrUnsupported)
	}
	if runtime.GOOS != "linux" {
		return nil
	}
	bin, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("%s is not a program for Linux: %w", path, err)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if want, known := machines[runtime.GOARCH]; known && bin.Machine != want {
		return fmt.Errorf("%s is a program for %v, not %s: %w", path, bin.Machine, runtime.GOARCH, errors.ErrUnsupported)
	}
	return nil
}

var (
	versionPattern = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
	versionOutput  = regexp.MustCompile(`^([0-9]+\.[0-9]+\.[0-9]+\S*) \(Claude Code\)\s*$`)
)

// askVersion runs "--version", which prints "2.1.328 (Claude Code)".
func askVersion(ctx context.Context, path string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	stdout, stderr, err := runVersion(limited, path)
	for tries := 0; errors.Is(err, syscall.ETXTBSY) && tries < 20; tries++ {
		// Just written, and a process that was forked meanwhile holds it open until
		// it executes: https://go.dev/issue/22315
		time.Sleep(10 * time.Millisecond)
		stdout, stderr, err = runVersion(limited, path)
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case limited.Err() != nil:
		return "", fmt.Errorf("%s --version said nothing for %v", path, versionLimit)
	case err != nil:
		return "", fmt.Errorf("%s --version: %w%s", path, err, stderr.quoted())
	}
	match := versionOutput.FindStringSubmatch(stdout.String())
	if match == nil {
		return "", fmt.Errorf("%s is not the Claude Code CLI: it says of itself %q", path, stdout.String())
	}
	return match[1], nil
}

func runVersion(ctx context.Context, path string) (stdout, stderr *tail, err error) {
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	stdout, stderr = new(tail), new(tail)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return stdout, stderr, cmd.Run()
}

// tail keeps the end of what is written to it.
type tail struct {
	kept []byte
	cut  bool // something came before
}

const tailSize = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - tailSize; extra > 0 {
		t.kept, t.cut = append(t.kept[:0], t.kept[extra:]...), true
	}
	return len(p), nil
}

// urlLogin is a login in an address, which npm repeats in some messages.
var urlLogin = regexp.MustCompile(`://[^/\s]*@`)

// String returns the text without logins, and from the first whole word on:
// half a word could be the end of an address with a login.
func (t *tail) String() string {
	text := strings.ToValidUTF8(string(t.kept), "")
	if t.cut {
		_, text, _ = strings.Cut(text, " ")
	}
	return strings.TrimSpace(urlLogin.ReplaceAllString(text, "://"))
}

// quoted is the text as the end of an error's, or "" where there is none.
func (t *tail) quoted() string {
	if s := t.String(); s != "" {
		return ": " + s
	}
	return ""
}
