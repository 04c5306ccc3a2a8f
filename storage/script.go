package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Runner runs one command in a sandbox and waits for it; *sandbox.Sandbox is one.
//
// Run feeds stdin (nil: empty) to the command and copies its standard output to
// stdout (nil: dropped), unchanged and to its end, before it returns. It returns
// nil only when the command ran and exited with 0. It must not go on writing to
// stdout after it has returned. Name is looked up on PATH there.
type Runner interface {
	Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error
}

// The scripts below are POSIX shell and use what GNU coreutils, findutils and tar
// have in common with busybox. $1 is the directory. Everything in it is addressed
// as ./NAME from within, so that no name is taken for an option, and nothing is
// found through a symbolic link.
//
// A restore happens in ./.vivarium-restore-ID (see stagingPrefix):
//
//	new/    the version, while it is unpacked
//	old/    what was there before, from the moment the swap begins
//	in      made when all of the old is in old/, and the new may move in
//
// recover brings whatever state a broken-off restore left to one of its two ends.
const scriptHead = `
set -u
export LC_ALL=C
umask 022
prefix=.vivarium-restore-
die() { printf 'vivarium: %s\n' "$*"; exit 3; }

# enter DIR: work inside it from here on.
enter() {
	[ ! -L "$1" ] || die "$1 is a symbolic link"
	cd -P -- "$1" || die "cannot enter $1"
}

# shift_to DEST: move every entry of . but stagings to DEST, a path from here.
# A directory that is not writable cannot be moved by an ordinary user.
shift_to() {
	find . ! -name . -prune ! -name "$prefix*" -type d ! -perm -200 -exec sh -c '
		to=$1; shift
		for f do
			mode=$(stat -c %a "$f") && chmod u+w "$f" && mv "$f" "$to/" && chmod "$mode" "$to/${f#./}" || exit 1
		done' sh "$1" {} + || return 1
	find . ! -name . -prune ! -name "$prefix*" -exec sh -c '
		to=$1; shift
		exec mv "$@" "$to/"' sh "$1" {} +
}

# erase PATH: remove it whole, directories without write permission included.
erase() {
	rm -rf "$1" 2>/dev/null && return
	find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
	rm -rf "$1"
}

real_dir() { [ -d "$1" ] && [ ! -L "$1" ]; }

# move_in STAGING: the second half of a swap, which can be repeated.
move_in() { (cd "$1/new" && shift_to ../..); }

# move_back STAGING: undo the first half.
move_back() { (cd "$1/old" && shift_to ../..); }

recover() {
	for s in ./$prefix*; do
		if real_dir "$s" && real_dir "$s/old"; then
			if [ -e "$s/in" ]; then
				move_in "$s" || die "cannot finish the restore in $s"
			else
				move_back "$s" || die "cannot undo the restore in $s"
			fi
		fi
		[ ! -e "$s" ] && [ ! -L "$s" ] || erase "$s" || die "cannot remove $s"
	done
}

is_gnu() { case $(tar --version 2>/dev/null) in *'GNU tar'*) ;; *) false ;; esac; }
`

// statusMark follows the archive in the output of syncScript; after it come tar's
// last words and, on the last line, what kind of tar it is and its exit status.
const (
	statusText = `vivarium-tar-says\n`
	statusMark = "vivarium-tar-says\n"
)

const syncScript = scriptHead + `
# Standard output carries the archive, so messages wait. What a tar without
# --exclude sends of a staging directory is left out on the other side.
exec 3>&1
said=$(
	[ -e "$1" ] || [ -L "$1" ] || { echo absent; exit; }
	trouble=$(enter "$1" && recover) || { printf '%s\nfailed\n' "$trouble"; exit; }
	cd -P -- "$1" || { echo failed; exit; }
	if is_gnu; then
		kind=gnu
		set -- --format=posix --pax-option=delete=atime,delete=ctime --sparse --blocking-factor=128 \
			--numeric-owner --owner=0 --group=0 --warning=no-file-ignored \
			--anchored --exclude="./$prefix*"
	else
		kind=other
		set --
	fi
	{ tar -c -f - "$@" . 2>&1 >&3 3>&-; echo "$kind $?"; } | tail -c 20000
)
printf '` + statusText + `%s' "$said"
`

const prepareScript = scriptHead + `
exec 2>&1
[ -d "$1" ] || [ -L "$1" ] || mkdir -p -- "$1" || die "cannot make $1"
enter "$1"
recover
mkdir -m 700 "./$prefix$2" "./$prefix$2/new" || die "cannot write to $1"
if is_gnu; then echo gnu; else echo other; fi
`

const extractScript = scriptHead + `
exec 2>&1
enter "$1"
cd "./$prefix$2/new" || die "the staging directory is gone"
if is_gnu; then set -- --warning=no-timestamp; else set --; fi
umask 000
tar -x -p -o -f - "$@"
`

// closeScript reads pairs of a mode and a name, each with a NUL behind it.
const closeScript = scriptHead + `
exec 2>&1
enter "$1"
cd "./$prefix$2/new" || die "the staging directory is gone"
xargs -0 -n 200 sh -c 'while [ $# -gt 1 ]; do chmod "$1" "./$2" || exit 255; shift 2; done' sh
`

// swapScript takes $3, the directory's mode, and $4, its mtime; both may be "".
const swapScript = scriptHead + `
exec 2>&1
enter "$1"
s=./$prefix$2
real_dir "$s/new" || die "the staging directory is gone"
mkdir "$s/old" || die "cannot begin"
shift_to "$s/old" && mkdir "$s/in" || { move_back "$s" && rmdir "$s/old"; die "cannot move the old files away"; }
move_in "$s" || die "cannot move the new files in"
erase "$s" || die "cannot remove the old files"
[ -z "$3" ] || chmod "$3" . 2>/dev/null || :
[ -z "$4" ] || touch -d "@$4" . 2>/dev/null || touch -d "@${4%%.*}" . 2>/dev/null || :
`

const cleanScript = scriptHead + `
exec 2>&1
enter "$1"
recover
`

// checkDir gives the clean form of a directory to work on.
func checkDir(dir string) (string, error) {
	clean := path.Clean(dir)
	if !path.IsAbs(dir) || clean == "/" || strings.IndexByte(dir, 0) >= 0 {
		return "", fmt.Errorf("directory %q is not an absolute path below the root: %w", clip(dir), fs.ErrInvalid)
	}
	return clean, nil
}

// runScript runs a script whose output is a short text; a failure carries it.
func runScript(ctx context.Context, sb Runner, stdin io.Reader, script string, args ...string) (string, error) {
	out := &tail{max: 4 << 10}
	err := sb.Run(ctx, stdin, out, "sh", append([]string{"-c", script, "sh"}, args...)...)
	text := strings.TrimSpace(out.String())
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return text, said(err, text)
	}
	return text, nil
}

// said adds what a command printed to the error it ended with.
func said(err error, text string) error {
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}

// tail keeps the last max bytes written to it, or somewhat more.
type tail struct {
	buf bytes.Buffer
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > t.max {
		p = p[n-t.max:]
	}
	if t.buf.Len()+len(p) > 2*t.max {
		t.buf.Next(t.buf.Len() + len(p) - t.max)
	}
	t.buf.Write(p)
	return n, nil
}

func (t *tail) String() string { return strings.ToValidUTF8(t.buf.String(), "?") }
