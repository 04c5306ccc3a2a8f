package modalbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// signalScript sends signal $3 to the process group of process $2, if that still
// is what carries mark $1, or if there are no marks ("-").
const signalScript = `set -- "$1" "$2" "$3" gone
if [ "$1" = - ] || grep -q "^Max file locks *$1 " /proc/$2/limits 2>/dev/null; then
	read -r s 2>/dev/null </proc/$2/stat && set -- "$1" "$2" "$3" ${s##*) }
fi
case $4 in
gone|Z|X) echo gone ;;
*) if [ "$6" = "$2" ]; then kill -s "$3" -- "-$2"; else kill -s "$3" "$2"; fi && echo sent ;;
esac`

// killScript kills process $2 with its group, unless it is 0, and everything
// that carries mark $1, until nothing of it is left: what is forked while it
// looks carries the mark too. Without marks it kills the process with all that
// is in its group or session, and their descendants, which it stops first, so
// that nothing is forked meanwhile and nobody loses its parent.
const killScript = `m=$1 p=$2 i=0 n=1
if [ "$m" = - ]; then
	all=" $p "
	[ "$p" != 0 ] && kill -s STOP "$p" && while [ $n = 1 ] && [ $i -lt 100 ]; do
		n=0 i=$((i+1))
		for l in /proc/[0-9]*/stat; do
			read -r s <$l || continue
			q=${l#/proc/} q=${q%/stat}
			set -- ${s##*) }
			case $all in *" $q "*) continue ;; esac
			case $all in *" $2 "*) ;; *) [ "$3" = "$p" ] || [ "$4" = "$p" ] || continue ;; esac
			kill -s STOP "$q" && n=1 all="$all$q "
		done
	done
	[ "$p" != 0 ] && kill -s KILL $all
elif [ "$p" != 0 ] && grep -q "^Max file locks *$m " /proc/$p/limits; then
	kill -s KILL -- "-$p" || kill -s KILL "$p"
fi 2>/dev/null
[ "$m" != - ] && while [ $n = 1 ] && [ $i -lt 100 ]; do
	n=0 i=$((i+1))
	for l in $(grep -ls "^Max file locks *$m " /proc/[0-9]*/limits); do
		l=${l%/limits}
		read -r s 2>/dev/null <$l/stat || continue
		case ${s##*) } in Z*|X*) continue ;; esac
		kill -s KILL ${l#/proc/} 2>/dev/null && n=1
	done
done
:`

// resizeScript sets the size of the terminal of process $1 to $2 rows and $3
// columns, by the runner, $4, if there is one.
const resizeScript = `for n in 0 1 2; do
	{ [ -x "$4" ] && "$4" "t$2x$3" /proc/$1/fd/$n; } || stty rows $2 cols $3 2>/dev/null </proc/$1/fd/$n && break
done || { command -v stty >/dev/null || echo no stty; false; }`

// word is the mark as the scripts take it.
func (p *process) word() string {
	if !p.marked {
		return "-"
	}
	return strconv.FormatInt(p.mark, 10)
}

// Signal implements driver.Process.
func (p *process) Signal(ctx context.Context, sig driver.Signal) error {
	if p.isDone() {
		return os.ErrProcessDone
	}
	if sig < 0 || sig > 64 {
		return fmt.Errorf("%w: signal %d", driver.ErrInvalid, sig)
	}
	p.note(sig)
	out, code, err := p.box.script(ctx, signalScript, p.word(), strconv.Itoa(p.pid), strconv.Itoa(int(sig)))
	switch {
	case err != nil:
		return err
	case strings.TrimSpace(string(out)) == "gone":
		return os.ErrProcessDone
	case code != 0:
		return fmt.Errorf("signal %d: %w", sig, parseError(lastLine(out)))
	}
	return nil
}

// Kill implements driver.Process.
func (p *process) Kill(ctx context.Context) error {
	p.note(driver.SIGKILL)
	_, _, err := p.box.script(ctx, killScript, p.word(), strconv.Itoa(p.pid))
	if errors.Is(err, driver.ErrEnded) {
		return nil
	}
	return err
}

// Resize implements driver.Process.
func (p *process) Resize(ctx context.Context, size driver.Winsize) error {
	if !p.tty {
		return fmt.Errorf("the command has no terminal: %w", driver.ErrInvalid)
	}
	if p.isDone() {
		return os.ErrProcessDone
	}
	out, code, err := p.box.script(ctx, resizeScript, strconv.Itoa(p.pid), strconv.Itoa(int(size.Rows)), strconv.Itoa(int(size.Cols)), runnerPath)
	switch {
	case err != nil:
		return err
	case strings.Contains(string(out), "no stty"):
		return &driver.UnsupportedError{Setting: "TTY", Reason: "the image has no stty to resize a terminal with; install coreutils or busybox"}
	case code != 0 && p.isDone():
		return os.ErrProcessDone
	case code != 0:
		return errors.New("the command has left its terminal")
	}
	return nil
}
