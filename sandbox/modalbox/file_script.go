package modalbox

import (
	"context"
	"strings"
)

// openScript opens $1 as the letters in $2 say (w write, c create, x exclusive, t
// truncate), with permissions $3. $4 are the devices of /proc and /sys. It prints
// "k" and what stat(1) knows, or an error's text.
const openScript = `exec 2>&1
LC_ALL=C; export LC_ALL
open() {
	if [ ! -e "$1" ]; then
		case $2 in *c*) ;; *) stat -L -- "$1" >/dev/null; return 1 ;; esac
		( umask "$5"; case $2 in *x*) set -C; : >"$1" ;; *) : >>"$1" ;; esac ) || return 1
		case $3 in *[1357]?|*[1357]??|*[1357]) chmod "$3" -- "$1" || return 1 ;; esac
	else
		case $2 in *x*) echo "$1: File exists"; return 1 ;; esac
	fi
	s=$(stat -L -c '%d ` + statFormat + `' -- "$1") || { echo "$s"; return 1; }
	case " $4 " in *" ${s%% *} "*) echo "$1: Permission denied"; return 1 ;; esac
	s=${s#* }
	case $s in
	4???" "*) case $2 in *w*) echo "$1: Is a directory"; return 1 ;; esac; echo "k$s" ;;
	8???" "*) case $2 in
		*w*) [ -w "$1" ] || { echo "$1: Permission denied"; return 1; } ;;
		esac
		case $2 in
		*r*) [ -r "$1" ] || { echo "$1: Permission denied"; return 1; } ;;
		esac
		case $2 in *t*) : >"$1" || return 1; s=$(stat -L -c '` + statFormat + `' -- "$1") ;; esac
		echo "k$s" ;;
	*) echo "$1: Operation not permitted"; return 1 ;;
	esac
}
`

// readScript prints $2 bytes of $1 from byte $3 on.
const readScript = `{ [ "$3" = 0 ] || dd bs=1 count=0 skip="$3" 2>/dev/null; head -c "$2"; } <"$1" 2>/dev/null`

// writeScript writes its input to $1, from byte $2 on, at the end (a) or in place of
// what is there (t), and then prints the status after what went wrong. In a bucket
// files can only be written anew.
const writeScript = `case $2 in
a) cat >>"$1" ;;
t) cat >"$1" ;;
0) cat 1<>"$1" ;;
*) { dd bs=1 count=0 seek="$2" conv=notrunc 2>/dev/null; cat; } 1<>"$1" ;;
esac
printf '\n%d' "$?"`

// kernelDevices are those of /proc and /sys, whose files look regular.
func (b *box) kernelDevices(ctx context.Context) (string, error) {
	b.mu.Lock()
	known := b.devices
	b.mu.Unlock()
	if known != "" {
		return known, nil
	}
	out, _, err := b.script(ctx, `for d in / /proc /sys; do stat -c %d $d 2>/dev/null || echo none; done`)
	if err != nil {
		return "", err
	}
	devices := strings.Fields(string(out))
	known = "none"
	for _, d := range devices[min(1, len(devices)):] {
		if d != devices[0] { // where it is mounted at all
			known += " " + d
		}
	}
	b.mu.Lock()
	b.devices = known
	b.mu.Unlock()
	return known, nil
}
