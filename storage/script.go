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
//
// [Local] is a Runner too, for a directory of this machine.
type Runner interface {
	Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error
}

// The scripts below are POSIX shell and use what GNU coreutils, findutils and tar
// have in common with busybox. $1 is the directory. Everything in it is addressed
// as ./NAME from within, so that no name is taken for an option, and nothing is
// found through a symbolic link.
//
// A restore happens in ./.vivarium-restore-ID (see stagingPrefix), which holds
//
//	new/     what is to come, at the paths where it belongs
//	open     directories that are to be made writable first
//	rm       what is to be removed
//	mv.N     what is to be moved out of new/, one list for each directory it goes to
//	dirs     an archive of the directories whose modes and times are to be set
//	modes    the modes alone, for a tar that does not set them
//	root     mode and time of the directory itself
//	go/      made when all of that is there: from then on it is carried out
//	cleared/ made when what was to be removed is gone
//
// Lists have a NUL behind each name. recover brings whatever state a broken-off
// restore left to one of its two ends.
const scriptHead = `
set -u
export LC_ALL=C TZ=UTC0
umask 022
prefix=.vivarium-restore-
die() { printf 'vivarium: %s\n' "$*"; exit 3; }

# enter DIR: work inside it from here on.
enter() {
	[ ! -L "$1" ] || die "$1 is a symbolic link"
	cd -P -- "$1" || die "cannot enter $1"
}

# erase PATH: remove it whole, directories without write permission included.
erase() {
	rm -rf "$1" 2>/dev/null && return
	find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
	rm -rf "$1"
}

real_dir() { [ -d "$1" ] && [ ! -L "$1" ]; }

is_gnu() { case $(tar --version 2>/dev/null) in *'GNU tar'*) ;; *) false ;; esac; }

# finish STAGING: carry it out. It can be broken off and begun again at any point.
finish() {
	[ ! -s "$1/open" ] || xargs -0 chmod u+rwx <"$1/open" || return 1
	if [ ! -e "$1/cleared" ]; then
		[ ! -s "$1/rm" ] || xargs -0 sh -c '
			rm -rf "$@" 2>/dev/null && exit
			find "$@" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
			rm -rf "$@" || exit 255' sh <"$1/rm" || return 1
		mkdir "$1/cleared" || return 1
	fi
	for list in "$1"/mv.*; do
		[ ! -e "$list" ] || xargs -0 sh -c '
			new=$0/new to=${1%/*}
			for f do
				shift
				[ -e "$new/$f" ] || [ -L "$new/$f" ] || continue
				set -- "$@" "$new/$f"
				[ ! -L "$f" ] || rm -f "$f" # a mv would look at what it leads to
			done
			[ $# = 0 ] || mv -f "$@" "$to/" || exit 255' "$1" <"$list" || return 1
	done
	if [ -s "$1/dirs" ]; then
		if is_gnu; then set -- "$1" --warning=no-timestamp; else set -- "$1"; fi
		to=$1; shift
		tar -x -p -o "$@" -f "$to/dirs" || return 1
		set -- "$to"
	fi
	[ ! -s "$1/modes" ] || xargs -0 -n 200 sh -c 'while [ $# -gt 1 ]; do chmod "$1" "$2" || exit 255; shift 2; done' sh <"$1/modes" || return 1
	mode='' time=''
	[ ! -e "$1/root" ] || read -r mode time <"$1/root"
	erase "$1" || return 1
	[ -z "$mode" ] || chmod "$mode" . 2>/dev/null || :
	[ -z "$time" ] || touch -d "@$time" . 2>/dev/null || touch -d "@${time%%.*}" . 2>/dev/null || :
}

recover() {
	for s in ./$prefix*; do
		if real_dir "$s" && [ -e "$s/go" ]; then
			finish "$s" || die "cannot finish the restore in $s"
		elif [ -e "$s" ] || [ -L "$s" ]; then
			erase "$s" || die "cannot remove $s"
		fi
	done
}
`

// statusMark begins what follows the data in the output of a script whose output is
// data: on its last line the kind of tool and its exit status, before that what it
// said.
const (
	statusText = `vivarium-status\n`
	statusMark = "vivarium-status\n"
)

// reportHead defines report SAID LAST, which ends the output of such a script, and
// the script. Programs cost milliseconds each to start, so what follows starts as
// few as it can: it looks for what makes recover necessary before it forks a shell
// for that, and what tool there is only when GNU's options did not work.
const reportHead = scriptHead + `
exec 3>&1
report() {
	printf '` + statusText + `%.` + maxSaidText + `s\n%s' "$1" "$2"
	exit 0
}
`

// maxSaid bounds what is passed on of what a tool said, in bytes.
const (
	maxSaid     = 30000
	maxSaidText = "30000"
)

// listScript prints a line with what is listed how, the time and the machine's
// boot, then the records, and an empty record. With GNU find the time is "-" in that
// line, and a record "now TIME" comes first: the time of the directory of find's own
// process in /proc, which is made when find starts. A sandbox that tells its boot and
// not that has all its files read again, as none can be told to be older than the
// listing. One without its boot, which is in /proc too, is not known to be the same as
// before, so that sizes and mtimes alone decide: see known.unchanged. Where find
// turns out not to be GNU's, the same begins once more with a line of its own; the
// time there is that of date and, as date may know no fractions, of /proc/self/.
const listScript = reportHead + `
[ -e "$1" ] || [ -L "$1" ] || report '' absent
if [ -L "$1" ] || ! cd -P -- "$1" 2>/dev/null; then
	report "$(enter "$1" 2>&1)" failed
fi
set -- ./$prefix*
if [ -e "$1" ] || [ -L "$1" ]; then
	trouble=$(recover 2>&1) || report "$trouble" failed
fi
boot=
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
printf 'gnu - %s\n' "${boot:--}"
said=$(find /proc/self/ . -xdev -path /proc/self/ -prune -printf 'now %T@\0' -o -path "./$prefix*" -prune -o \
	-printf '%y %m %s %T@ %C@ %n %i %D %U %G %b %P\0%l\0' 2>&1 >&3)
status=$?
if [ $status = 0 ] || find . -maxdepth 0 -printf '' 2>/dev/null; then
	printf '\0'
else
	printf 'plain %s %s %s\n' "$(date +%s.%N)" "${boot:--}" "$(stat -c '%Y %y' /proc/self/ 2>/dev/null)"
	said=$({ find . -xdev -path "./$prefix*" -prune -o -print0 2>&4 | xargs -0 stat -c '%f %s %Y %y|%Z %z|%h %i %d %u %g %b %n
//
%N
//' 2>&4 >&3; } 4>&1)
	status=$?
	printf '//\n'
fi
report "$said" "find $status"
`

// readScript reads names from standard input, each with a NUL behind it, and
// prints an archive of them, or several. $2 is "sparse" where the files have holes.
const readScript = reportHead + `
if [ -L "$1" ] || ! cd -P -- "$1" 2>/dev/null; then
	report "$(enter "$1" 2>&1)" failed
fi
if [ "$2" = sparse ]; then
	set -- --format=posix --pax-option=delete=atime,delete=ctime,delete=mtime --sparse
else
	set -- --format=gnu
fi
said=$(tar -c -f - "$@" --blocking-factor=128 --numeric-owner --owner=0 --group=0 --no-recursion --null -T - 2>&1 >&3)
status=$?
if [ $status = 0 ] || is_gnu; then
	report "$said" "gnu $status"
fi
said=$(xargs -0 tar -c -f - 2>&1 >&3)
report "$said" "other $?"
`

const prepareScript = scriptHead + `
exec 2>&1
[ -d "$1" ] || [ -L "$1" ] || mkdir -p -- "$1" || die "cannot make $1"
enter "$1"
recover
mkdir -m 700 "./$prefix$2" "./$prefix$2/new" || die "cannot write to $1"
if is_gnu; then echo gnu; else echo other; fi
`

// fillScript unpacks an archive into new/ of the staging directory; $3 is "owners"
// to keep those.
const fillScript = scriptHead + `
exec 2>&1
enter "$1"
cd "./$prefix$2/new" || die "the staging directory is gone"
if [ "$3" = owners ]; then set -- --same-owner; else set -- -o; fi
if is_gnu; then
	set -- "$@" --warning=no-timestamp --delay-directory-restore --numeric-owner
elif [ "$1" = --same-owner ]; then
	set -- --numeric-owner
fi
umask 000
tar -x -p "$@" -f -
`

// applyScript reads an archive of the plan from standard input.
const applyScript = scriptHead + `
exec 2>&1
enter "$1"
s=./$prefix$2
real_dir "$s/new" || die "the staging directory is gone"
(cd "$s" && tar -x -o -f -) || die "cannot write the plan"
mkdir "$s/go" || die "cannot begin"
finish "$s" || die "cannot finish the restore in $s; the next one, or the next sync, tries again"
`

// cleanScript prints what became of the restore.
const cleanScript = scriptHead + `
exec 2>&1
enter "$1"
end=removed
[ ! -e "./$prefix$2/go" ] || end=finished
recover
echo $end
`

// stagingPrefix starts the names of the directories, inside the one being
// restored, in which a restore is prepared.
const stagingPrefix = ".vivarium-restore-"

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
		return text, withWords(err, text)
	}
	return text, nil
}

// withWords adds what a command printed to the error it ended with.
func withWords(err error, text string) error {
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}

// maxStatus bounds what may follow the data, in bytes: scripts send less than 64 KiB.
const maxStatus = 1 << 20

// status reads what follows the data in a script's output: what the tool said, and
// the last line.
func status(r io.Reader) (said, last string, err error) {
	words := &tail{max: 32 << 10}
	n, err := io.Copy(words, io.LimitReader(r, maxStatus))
	if err != nil {
		return "", "", err
	}
	if n == maxStatus {
		return "", "", errors.New("the sandbox's answer goes on after its end")
	}
	_, text, ok := strings.Cut(words.String(), statusMark)
	if !ok {
		return "", "", fmt.Errorf("the sandbox's answer was cut short: %w", io.ErrUnexpectedEOF)
	}
	text = strings.TrimSpace(text)
	at := strings.LastIndexByte(text, '\n') + 1
	return strings.TrimSpace(text[:at]), text[at:], nil
}

func clipTail(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return "…" + s[len(s)-most:]
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
