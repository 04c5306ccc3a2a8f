package modalbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// files implements driver.FileSystem: by Modal's own tools where these do what is
// asked for, and else by short scripts, whose errors are told by their text.
type files struct{ b *box }

// Files implements driver.Sandbox.
func (b *box) Files() driver.FileSystem { return files{b} }

// check refuses what is the kernel's.
func (b *box) check(ctx context.Context, name string) error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return fs.ErrPermission
		}
	}
	return b.usable(ctx)
}

// do runs a script about name, with no output but its error.
func (f files) do(ctx context.Context, script, name string, args ...string) error {
	_, err := f.ask(ctx, script, name, args...)
	return err
}

func (f files) ask(ctx context.Context, script, name string, args ...string) (string, error) {
	if err := f.b.check(ctx, name); err != nil {
		return "", err
	}
	out, code, err := f.b.script(ctx, script, append([]string{name}, args...)...)
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", parseError(lastLine(out))
	}
	return string(out), nil
}

// info implements fs.FileInfo.
type info struct {
	name string
	size int64
	mode uint32 // as stat(2) has it
	time time.Time
}

// Name implements fs.FileInfo.
func (i *info) Name() string { return i.name }

// Size implements fs.FileInfo.
func (i *info) Size() int64 { return i.size }

// ModTime implements fs.FileInfo.
func (i *info) ModTime() time.Time { return i.time }

// IsDir implements fs.FileInfo.
func (i *info) IsDir() bool { return i.Mode().IsDir() }

// Sys implements fs.FileInfo.
func (i *info) Sys() any { return nil }

// Mode implements fs.FileInfo.
func (i *info) Mode() fs.FileMode {
	mode := fs.FileMode(i.mode & 0o777)
	mode |= map[uint32]fs.FileMode{
		0o040000: fs.ModeDir, 0o120000: fs.ModeSymlink, 0o010000: fs.ModeNamedPipe, 0o140000: fs.ModeSocket,
		0o060000: fs.ModeDevice, 0o020000: fs.ModeDevice | fs.ModeCharDevice,
	}[i.mode&0o170000]
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.mode&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

// octalMode is a mode as chmod(1) takes it.
func octalMode(mode fs.FileMode) string {
	bits := uint32(mode.Perm())
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return fmt.Sprintf("%04o", bits)
}

// fileType completes the mode of a tool that gives the permissions only.
var fileType = map[modal.FileType]uint32{
	modal.FileTypeFile: 0o100000, modal.FileTypeDirectory: 0o040000, modal.FileTypeSymlink: 0o120000,
}

func infoOf(e *modal.FileInfo) *info {
	i := &info{name: e.Name, size: e.Size, mode: e.Mode}
	if i.mode&0o170000 == 0 {
		i.mode |= fileType[e.Type]
	}
	// A float64 holds the microseconds of the present.
	i.time = time.UnixMicro(int64(math.Round(e.ModifiedTime * 1e6)))
	return i
}

const statFormat = "%f %s %Y %y"

// parseStat reads what stat(1) prints in statFormat.
func parseStat(name, line string) (*info, error) {
	fields := strings.SplitN(strings.TrimSpace(line), " ", 4)
	if len(fields) < 4 {
		return nil, fmt.Errorf("stat said %q", line)
	}
	mode, err1 := strconv.ParseUint(fields[0], 16, 32)
	size, err2 := strconv.ParseInt(fields[1], 10, 64)
	secs, err3 := strconv.ParseInt(fields[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("stat said %q: %w", line, err)
	}
	// The fraction of a second is in the readable time only, and not in
	// busybox's. Modal's own tools give microseconds: so does this.
	var nanos int64
	if _, rest, ok := strings.Cut(fields[3], "."); ok {
		digits, _, _ := strings.Cut(rest, " ")
		nanos, _ = strconv.ParseInt((digits + "000000000")[:9], 10, 64)
	}
	return &info{name: path.Base(name), size: size, mode: uint32(mode), time: time.UnixMicro(secs*1e6 + (nanos+500)/1000)}, nil
}

// Stat implements driver.FileSystem.
func (f files) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	i, err := f.follow(ctx, name)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// follow describes a file through links.
func (f files) follow(ctx context.Context, name string) (*info, error) {
	i, err := f.lstat(ctx, name)
	if err != nil || i.Mode().Type() != fs.ModeSymlink {
		return i, err
	}
	if !utf8.ValidString(name) {
		return f.stat(ctx, "-L", name)
	}
	real, err := f.ask(ctx, `stat -L -- "$1" >/dev/null && readlink -f -- "$1" && echo .`, name)
	if err != nil {
		return nil, err
	}
	if i, err = f.lstat(ctx, strings.TrimSuffix(real, "\n.\n")); err != nil {
		return nil, err
	}
	i.name = path.Base(name)
	return i, nil
}

// stat describes a file by stat(1), with "-L" through links.
func (f files) stat(ctx context.Context, option, name string) (*info, error) {
	out, err := f.ask(ctx, "stat "+option+" -c '"+statFormat+`' -- "$1"`, name)
	if err != nil {
		return nil, err
	}
	return parseStat(name, out)
}

// Lstat implements driver.FileSystem.
func (f files) Lstat(ctx context.Context, name string) (fs.FileInfo, error) {
	i, err := f.lstat(ctx, name)
	if err != nil {
		return nil, err
	}
	return i, nil
}

func (f files) lstat(ctx context.Context, name string) (*info, error) {
	if !utf8.ValidString(name) {
		return f.stat(ctx, "", name)
	}
	if err := f.b.check(ctx, name); err != nil {
		return nil, err
	}
	e, err := f.b.sb.Filesystem.Stat(ctx, name, nil)
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	i := infoOf(e)
	i.name = path.Base(name)
	return i, nil
}

// ReadDir implements driver.FileSystem.
func (f files) ReadDir(ctx context.Context, name string) ([]fs.FileInfo, error) {
	if err := f.b.check(ctx, name); err != nil {
		return nil, err
	}
	entries, err := f.b.sb.Filesystem.ListFiles(ctx, name, nil)
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	infos := make([]fs.FileInfo, 0, len(entries))
	for i := range entries {
		infos = append(infos, infoOf(&entries[i]))
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return cmp.Compare(a.Name(), b.Name()) })
	return infos, nil
}

// failed says what went wrong with one of Modal's tools. Errors about a file are
// not asked about; what is left can be the sandbox's end.
func (f files) failed(ctx context.Context, err error) error {
	if got := fileError(err); got != err {
		return got
	}
	return f.b.explain(ctx, "work on files", err)
}

// fileError gives the errors of Modal's tools that are about a file as those of
// package fs; others it leaves as they are.
func fileError(err error) error {
	for _, k := range fileKinds {
		if k.is(err) {
			return k.err
		}
	}
	if e, ok := errors.AsType[modal.SandboxFilesystemError](err); ok {
		if known := knownError(e.Exception); known != nil {
			return known
		}
	}
	return err
}

var fileKinds = []struct {
	is  func(error) bool
	err error
}{
	{is[modal.SandboxFilesystemNotFoundError], fs.ErrNotExist},
	{is[modal.SandboxFilesystemNotADirectoryError], syscall.ENOTDIR},
	{is[modal.SandboxFilesystemIsADirectoryError], syscall.EISDIR},
	{is[modal.SandboxFilesystemPermissionError], fs.ErrPermission},
	{is[modal.SandboxFilesystemPathAlreadyExistsError], fs.ErrExist},
	{is[modal.SandboxFilesystemDirectoryNotEmptyError], syscall.ENOTEMPTY},
	{is[modal.SandboxFilesystemFileTooLargeError], syscall.EFBIG},
}

// texts are the errors of the C libraries of images (glibc, and where it differs,
// musl) in the C locale.
var texts = []struct {
	text string
	err  error
}{
	{"No such file or directory", fs.ErrNotExist},
	{"Directory nonexistent", fs.ErrNotExist}, {"nonexistent directory", fs.ErrNotExist}, // as shells say it
	{"File exists", fs.ErrExist}, {"cannot overwrite existing file", fs.ErrExist},
	{"Permission denied", fs.ErrPermission}, {"Operation not permitted", syscall.EPERM},
	{"Directory not empty", syscall.ENOTEMPTY}, {"Not a directory", syscall.ENOTDIR}, {"Is a directory", syscall.EISDIR},
	{"No space left on device", syscall.ENOSPC}, {"Disk quota exceeded", syscall.EDQUOT}, {"Quota exceeded", syscall.EDQUOT},
	{"File too large", syscall.EFBIG}, {"Read-only file system", syscall.EROFS},
	{"Too many levels of symbolic links", syscall.ELOOP}, {"Symbolic link loop", syscall.ELOOP},
	{"File name too long", syscall.ENAMETOOLONG}, {"Filename too long", syscall.ENAMETOOLONG},
	{"Device or resource busy", syscall.EBUSY}, {"Resource busy", syscall.EBUSY},
	{"Invalid cross-device link", syscall.EXDEV}, {"Cross-device link", syscall.EXDEV},
	{"No such process", os.ErrProcessDone}, {"Invalid argument", syscall.EINVAL}, {"Input/output error", syscall.EIO},
	{"I/O error", syscall.EIO}, {"Text file busy", syscall.ETXTBSY},
}

func knownError(text string) error {
	for _, t := range texts {
		if strings.Contains(text, t.text) {
			return t.err
		}
	}
	return nil
}

// parseError is the error that a program inside has printed, at the end of a
// line that begins with names of the user's.
func parseError(line string) error {
	end := line[strings.LastIndex(line, ": ")+1:]
	if err := knownError(end); err != nil {
		return err
	}
	if err := knownError(line); err != nil {
		return err
	}
	return errors.New(cmp.Or(strings.TrimSpace(line), "failed without a word"))
}

// ReadLink implements driver.FileSystem.
func (f files) ReadLink(ctx context.Context, name string) (string, error) {
	out, err := f.ask(ctx, `if [ -L "$1" ]; then readlink -- "$1" && echo .; elif stat -- "$1" >/dev/null; then echo "$1: Invalid argument"; false; else false; fi`, name)
	if err != nil {
		return "", err
	}
	// Both lines' ends come off: the target may end in a newline itself.
	return strings.TrimSuffix(out, "\n.\n"), nil
}

// umask is what new files and directories do not get, as with every command.
const umask = 0o022

// Mkdir implements driver.FileSystem.
func (f files) Mkdir(ctx context.Context, name string, perm fs.FileMode) error {
	return f.do(ctx, `mkdir -m "$2" -- "$1"`, name, octalMode(perm&^umask))
}

// MkdirAll implements driver.FileSystem.
func (f files) MkdirAll(ctx context.Context, name string, perm fs.FileMode) error {
	return f.do(ctx, `[ -d "$1" ] || (umask 022; mkdir -p -m "$2" -- "$1")`, name, octalMode(perm&^umask))
}

// Rename implements driver.FileSystem. An mv that knows no -T puts a file into a
// directory of that name instead of failing: that is looked at first.
func (f files) Rename(ctx context.Context, from, to string) error {
	if err := f.b.check(ctx, to); err != nil {
		return err
	}
	return f.do(ctx, `if [ ! -L "$2" ] && [ -d "$2" ]; then
	if [ -L "$1" ] || [ ! -d "$1" ]; then stat -- "$1" >/dev/null && { echo "$2: Is a directory"; false; }
	else rmdir -- "$2" && mv -- "$1" "$2"; fi
elif [ ! -L "$1" ] && [ -d "$1" ] && { [ -e "$2" ] || [ -L "$2" ]; }; then echo "$2: Not a directory"; false
else mv -f -- "$1" "$2"; fi`, from, to)
}

// Remove implements driver.FileSystem.
func (f files) Remove(ctx context.Context, name string) error {
	return f.do(ctx, `if [ ! -L "$1" ] && [ -d "$1" ]; then rmdir -- "$1"; else unlink "$1" 2>/dev/null || rm -- "$1"; fi`, name)
}

// RemoveAll implements driver.FileSystem.
func (f files) RemoveAll(ctx context.Context, name string) error {
	return f.do(ctx, `rm -rf -- "$1"`, name)
}

// Symlink implements driver.FileSystem.
func (f files) Symlink(ctx context.Context, target, name string) error {
	return f.do(ctx, `if [ -e "$1" ] || [ -L "$1" ]; then echo "$1: File exists"; false; else ln -s -- "$2" "$1"; fi`, name, target)
}

// Chmod implements driver.FileSystem.
func (f files) Chmod(ctx context.Context, name string, mode fs.FileMode) error {
	return f.do(ctx, `chmod -- "$2" "$1"`, name, octalMode(mode))
}

// Chtimes implements driver.FileSystem. A time that is zero is not changed.
// busybox's touch takes no fraction of a second.
func (f files) Chtimes(ctx context.Context, name string, atime, mtime time.Time) error {
	return f.do(ctx, `stat -L -- "$1" >/dev/null &&
	{ [ -z "$2" ] || touch -c -a -d "@$2" -- "$1" 2>/dev/null || touch -c -a -d "@${2%.*}" -- "$1"; } &&
	{ [ -z "$3" ] || touch -c -m -d "@$3" -- "$1" 2>/dev/null || touch -c -m -d "@${3%.*}" -- "$1"; }`,
		name, touchTime(atime), touchTime(mtime))
}

func touchTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}
