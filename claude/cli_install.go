package claude

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"crypto/subtle"
	"debug/elf"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vivarium-go/vivarium/claude/internal/filelock"
)

// ErrIntegrity matches the error of [Locate] where what npm fetched is not what
// was pinned. Nothing of it is kept or run.
var ErrIntegrity = errors.New("the download is not the one that was pinned")

// platforms are the sums of the platform packages of [CLIVersion], as
// "npm view @anthropic-ai/claude-code-PLATFORM@2.1.328 dist.integrity" prints them.
var platforms = map[string]string{
	"linux-x64":        "sha512-KuzL+dBHgDCFTHJxwW+xuBJdVKfBsesGx2BBcTOG9sYDGoAD7b1hUV8rsTS4xjoJsB2SmeGraGjBiFuhrYuC9w==",
	"linux-arm64":      "sha512-zeWsClzx/rli8q6RsngKisu5BnuZ41J7Htp0qgsdZomaJCINiksf+mewQ/gyaylKajBZCoE9Z8R+OkLMjIkJig==",
	"linux-x64-musl":   "sha512-JiYOp70eNGo+NQGwfPOyzupUf4rVjXd2cXpyF1elbp97mR22tagM7qlCQ/8jGrKSce82/ZKkyXQo39IsQjnNLQ==",
	"linux-arm64-musl": "sha512-7WgJJKqF3+ZHug9afhVfiEouUME1Y4dApnwqXDK0N06ipIyTPmE7Mqi53FfmUZI7In651SI4ZN7A14xGoe3M2w==",
	"darwin-x64":       "sha512-SuFIh/OGu/qCCAw9aGldbpcu1OZMozDjZVZGfM6T8Cek+40Lg2fOpB9NHKi71nPHOznjn01xLuZ2HuZboodn6A==",
	"darwin-arm64":     "sha512-BIKLsj2MTaXfWJBE+Wr5ismdpTD0Oju5VmSix8ybBpe4rthXnrrhfMI8iikRQ4Qln5rlcpJyKjVf6CgrZdQASw==",
}

const (
	packagePrefix = "@anthropic-ai/claude-code-"
	maxBinary     = 2 << 30 // bytes; 2.1.328 has 373 MB
	waitStep      = 100 * time.Millisecond
	tellEvery     = 10 * time.Second
)

// pin is one platform's package in one version, and its sum.
type pin struct{ platform, version, integrity string }

func (p pin) spec() string { return packagePrefix + p.platform + "@" + p.version }

// pin returns the package for this machine.
func (l *locator) pin() (pin, error) {
	platform := platformName(runtime.GOOS, runtime.GOARCH, usesMusl)
	sum, known := platforms[platform]
	if !known {
		return pin{}, fmt.Errorf("no package of it is known for %s/%s: %w", runtime.GOOS, runtime.GOARCH, exec.ErrNotFound)
	}
	p := pin{platform: platform, version: l.Version, integrity: l.Integrity}
	if p.integrity == "" && l.Version == CLIVersion {
		p.integrity = sum
	}
	if p.integrity == "" {
		return pin{}, fmt.Errorf("version %s is not pinned: set Integrity to what \"npm view %s dist.integrity\" prints, or leave Version empty", l.Version, p.spec())
	}
	if !strings.HasPrefix(p.integrity, "sha512-") {
		return pin{}, fmt.Errorf("the integrity %q is not of the form sha512-…", p.integrity)
	}
	return p, nil
}

// platformName returns the name that the CLI's packages have for a platform.
func platformName(goos, goarch string, musl func() bool) string {
	arch := goarch
	if goarch == "amd64" {
		arch = "x64"
	}
	name := goos + "-" + arch
	if goos == "linux" && musl() {
		name += "-musl"
	}
	return name
}

// usesMusl says whether the programs of this machine run on musl rather than
// glibc: whether its shell does or, where that is linked statically, whether
// musl's loader is there.
func usesMusl() bool {
	if sh, err := elf.Open("/bin/sh"); err == nil {
		defer func() { _ = sh.Close() }() // only read from
		for _, prog := range sh.Progs {
			if prog.Type == elf.PT_INTERP {
				name, err := io.ReadAll(io.LimitReader(prog.Open(), 4096))
				return err == nil && strings.Contains(string(name), "/ld-musl-")
			}
		}
	}
	loaders, err := filepath.Glob("/lib/ld-musl-*")
	return err == nil && len(loaders) > 0
}

// cached returns where the cache keeps the binary of a package. The folder
// comes into being by a rename, so it is whole or absent.
func (l *locator) cached(p pin) string {
	return filepath.Join(l.CacheDir, p.version+"-"+p.platform, "claude")
}

// install fetches the package with npm, checks it, and moves it into the cache.
func (l *locator) install(ctx context.Context, p pin) (*CLI, error) {
	npm, err := exec.LookPath(l.NPM)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return nil, l.absent(fmt.Errorf("it is not installed, and there is no npm to install it with: %w", err))
	}
	if npm, err = filepath.Abs(npm); err != nil {
		return nil, fmt.Errorf("claude: %w", err)
	}
	if err := os.MkdirAll(l.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("claude: the cache of the CLI (set CacheDir to another folder): %w", err)
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("claude: lock the cache of the CLI: %w", err)
	}
	defer unlock()
	if cli, err := inspect(ctx, l.cached(p)); err == nil {
		return cli, nil // another process was faster
	}
	cli, err := l.fetch(ctx, npm, p)
	if err != nil {
		return nil, fmt.Errorf("claude: install %s: %w", p.spec(), err)
	}
	l.Progress("installed Claude Code " + cli.Version + " at " + cli.Path)
	return cli, nil
}

// lock keeps other installers out, those of other processes too. A killed
// process lets go of it.
func (l *locator) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(l.CacheDir, "lock")
	for told := false; ; told = true {
		unlock, err := filelock.Try(path)
		if !errors.Is(err, filelock.ErrLocked) {
			return unlock, err
		}
		if !told {
			l.Progress("waiting for another process that installs Claude Code")
		}
		select {
		case <-time.After(waitStep):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// fetch runs with the lock held, so every stray temporary folder is the rest
// of an installer that was killed.
func (l *locator) fetch(ctx context.Context, npm string, p pin) (*CLI, error) {
	strays, err := filepath.Glob(filepath.Join(l.CacheDir, "tmp-*"))
	if err != nil {
		return nil, err
	}
	for _, stray := range strays {
		if err := os.RemoveAll(stray); err != nil {
			return nil, err
		}
	}
	tmp, err := os.MkdirTemp(l.CacheDir, "tmp-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // else the next installer removes it
	l.Progress("fetching " + p.spec() + " with npm (about 170 MB, once)")
	archive, err := l.pack(ctx, npm, p, tmp)
	if err != nil {
		return nil, err
	}
	l.Progress("checking and unpacking it")
	if err := checkSum(ctx, archive, p.integrity); err != nil {
		return nil, err
	}
	return l.unpack(ctx, archive, p, tmp)
}

// pack lets npm put the package's archive into dir and returns its path.
func (l *locator) pack(ctx context.Context, npm string, p pin, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, npm, "pack", p.spec(), "--pack-destination="+dir, "--ignore-scripts", "--no-update-notifier", "--no-fund")
	cmd.Dir = dir // no project's configuration
	cmd.WaitDelay = 5 * time.Second
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	stop := l.tellTime("still fetching")
	err := cmd.Run()
	stop()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("npm pack (is its registry within reach? put claude on PATH, or set Path, to do without): %w%s", err, output.quoted())
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil {
		return "", err
	}
	if len(archives) != 1 {
		return "", fmt.Errorf("npm pack left %d archives, not one%s", len(archives), output.quoted())
	}
	return archives[0], nil
}

// tellTime tells every now and then that something still goes on, until stop
// is called, after which it tells nothing more.
func (l *locator) tellTime(what string) (stop func()) {
	ended, quiet := make(chan struct{}), make(chan struct{})
	begun := time.Now()
	go func() {
		defer close(quiet)
		ticker := time.NewTicker(tellEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				l.Progress(fmt.Sprintf("%s (%d s)", what, int(time.Since(begun).Seconds())))
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended); <-quiet }
}

func checkSum(ctx context.Context, path, integrity string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	hash := sha512.New()
	if _, err := io.Copy(hash, readerWithContext{ctx, f}); err != nil {
		return err
	}
	got := "sha512-" + base64.StdEncoding.EncodeToString(hash.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(got), []byte(integrity)) != 1 {
		return fmt.Errorf("%w: it has %s, pinned is %s", ErrIntegrity, got, integrity)
	}
	return nil
}

// unpack takes the binary out of the archive, asks it for its version and moves
// it to its place.
func (l *locator) unpack(ctx context.Context, archive string, p pin, tmp string) (*CLI, error) {
	whole := filepath.Join(tmp, "whole")
	if err := os.Mkdir(whole, 0o755); err != nil {
		return nil, err
	}
	if err := extract(ctx, archive, "package/claude", filepath.Join(whole, "claude")); err != nil {
		return nil, err
	}
	cli, err := inspect(ctx, filepath.Join(whole, "claude"))
	if err != nil {
		return nil, err
	}
	if cli.Version != p.version {
		return nil, fmt.Errorf("the package holds version %s", cli.Version)
	}
	target := l.cached(p)
	if err := os.RemoveAll(filepath.Dir(target)); err != nil { // a binary that does not run
		return nil, err
	}
	if err := os.Rename(whole, filepath.Dir(target)); err != nil {
		return nil, err
	}
	return inspect(ctx, target)
}

// extract writes one file of a .tgz to a new file that may be executed.
func extract(ctx context.Context, archive, name, target string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	zipped, err := gzip.NewReader(readerWithContext{ctx, f})
	if err != nil {
		return fmt.Errorf("read the package: %w", err)
	}
	files := tar.NewReader(zipped)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the package holds no %s", name)
		}
		if err != nil {
			return fmt.Errorf("read the package: %w", err)
		}
		if header.Name != name || header.Typeflag != tar.TypeReg {
			continue
		}
		if header.Size > maxBinary {
			return fmt.Errorf("%s in the package has %d bytes, more than %d", name, header.Size, int64(maxBinary))
		}
		return writeProgram(target, files)
	}
}

// writeProgram writes a file and sees that it is on the disk before the rename
// that makes it visible.
func writeProgram(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Sync(), f.Close())
}

// readerWithContext makes a long copy end when the context does.
type readerWithContext struct {
	ctx context.Context
	io.Reader
}

func (r readerWithContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
