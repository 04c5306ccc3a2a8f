package sandbox

// A job is run by a supervisor, a shell in a session of its own that is nobody's
// child any more when StartJob returns. What is known of it are files in a
// directory of its own:
//
//	sup     process id of the supervisor, and when it started
//	pid     process id of the command, and when it started; the command leads a session
//	exit    its status
//	out err what it wrote, from the first byte on
//	in      a pipe to its standard input
//	ctl     a pipe to the keeper, a process that fills in: "w NAME SIZE" asks it to pass
//	        on the file new.NAME, "c NAME" to end the input; it answers in the pipe
//	        ans.NAME
//	sent    what the keeper passed on, the first byte first
//	open    there as long as the keeper answers
//	note    JobConfig.Note, if there is one
//	oom     how often the sandbox had run out of memory before, where that is known
//
// pid and exit are there from the start, with room for what comes, so that a full disk
// does not keep it from being told. They are written in place, while others may read
// them byte by byte: what they say is there twice, to be told from a part of it.
//
// Times are those of /proc/PID/stat (field 22), by which a process id that was
// used again is told. The scripts are POSIX shell with what busybox has. Variables
// that could be in the environment of the command have a prefix.

// jobsName is the name of the directory that they all are in.
const jobsName = ".vivarium-jobs"

// Answers of jobLaunch.
const (
	jobStarted   = "started"
	jobExists    = "exists"
	jobNoProgram = "no program"
	jobNoRight   = "no right"
)

// jobFunctions: alive PID START succeeds when that process lives, birth PID prints
// when it started. told FILE reads the two words of a file that is written in place, and
// ended DIR succeeds when the exit of the job there is told.
const jobFunctions = `
alive() {
	vivarium_stat=
	{ read -r vivarium_stat <"/proc/$1/stat"; } 2>/dev/null
	set -- "$2" ${vivarium_stat##*) }
	[ $# -gt 20 ] && [ "$2" != Z ] && [ "${21}" = "$1" ]
}
birth() {
	vivarium_stat=
	{ read -r vivarium_stat <"/proc/$1/stat"; } 2>/dev/null
	set -- ${vivarium_stat##*) }
	echo "${20-0}"
}
told() {
	vivarium_line=
	{ IFS= read -r vivarium_line <"$1"; } 2>/dev/null || return 1
	case $vivarium_line in ' '*) return 1 ;; esac
	set -- $vivarium_line
	[ $# = 4 ] && [ "$1 $2" = "$3 $4" ] && vivarium_1=$1 vivarium_2=$2
}
ended() { told "$1/exit" && vivarium_code=$vivarium_1; }
`

// jobLaunch claims the name and starts the supervisor. setsid(1) forks where it is
// run by the leader of a process group, and its child then has the signals as they
// were; what a shell starts with "&" ignores SIGINT and SIGQUIT for good.
//
//	sh BASE NAME in|- [merge][noteSIZE]|- SUPERVISOR CHILD PROGRAM [ARGUMENT]...
const jobLaunch = `
case $7 in
*/*)
	[ -e "$7" ] || { echo 'no program'; exit; }
	[ -x "$7" ] && [ ! -d "$7" ] || { echo 'no right'; exit; } ;;
*) command -v -- "$7" >/dev/null 2>&1 || { echo 'no program'; exit; } ;;
esac
[ -d "$1" ] || mkdir -m 700 "$1" 2>/dev/null
mkdir -m 700 "$1/$2" 2>/dev/null || {
	if [ -e "$1/$2" ]; then echo exists; else mkdir "$1/$2" 2>&1; fi
	exit
}
[ "$3" = - ] || mkfifo -m 600 "$1/$2/in" "$1/$2/ctl" 2>&1 || { rm -rf "$1/$2"; exit; }
case $4 in
*note*)
	cat 2>&1 >"$1/$2/note" || { rm -rf "$1/$2"; exit; }
	[ "$(wc -c <"$1/$2/note")" -eq "${4##*note}" ] || { rm -rf "$1/$2"; echo short; exit; } ;;
esac
exec 4>&1 >/dev/null 2>&1 </dev/null
leads() {
	vivarium_stat=
	{ read -r vivarium_stat </proc/self/stat; } 2>/dev/null
	set -- ${vivarium_stat##*) }
	[ "${3-}" = $$ ]
}
if ! command -v setsid >/dev/null; then
	sh -c "$5" sh "$@" &
elif leads; then
	exec setsid sh -c "$5" sh "$@"
else
	setsid sh -c "$5" sh "$@" &
fi
`

// jobSupervise runs with the same arguments. It does not wait with "&" and wait, for
// the same reason. It has the pipe to the command open to read until that has ended, so
// that a write which comes early does not fail; one that comes late does.
//
// What is in sent may not be in the pipe yet; what is not in sent never comes. It is dd
// and not cat that fills the pipe: that may use sendfile(2) and ask once more after all
// was sent, which fails where the command has read it and ended by then.
const jobSupervise = jobFunctions + `
vivarium_dir=$1/$2
{
	printf '%s %s\n' $$ "$(birth $$)" >"$vivarium_dir/sup" &&
		printf '%64s' '' >"$vivarium_dir/pid" && printf '%64s' '' >"$vivarium_dir/exit" &&
		: >>"$vivarium_dir/out" && : >>"$vivarium_dir/err" && : >>"$vivarium_dir/sent" && : >"$vivarium_dir/open"
} || {
	echo why | cat 2>&4 >"$vivarium_dir/sup" # which says it better than a shell
	echo 'cannot write' >&4
	rm -rf "$vivarium_dir"
	exit
}
answer() { # NAME WORD
	[ ! -p "$vivarium_dir/ans.$1" ] || echo "$2" 1<>"$vivarium_dir/ans.$1"
	rm -f "$vivarium_dir/new.$1" "$vivarium_dir/ans.$1"
}
send() { # NAME SIZE
	vivarium_said=$(cat "$vivarium_dir/new.$1" 2>&1 >>"$vivarium_dir/sent") || {
		dd if=/dev/null of="$vivarium_dir/sent" bs=1 seek="$vivarium_sent" # as long as it was
		answer "$1" "${vivarium_said:-cannot write}"
		return
	}
	vivarium_sent=$((vivarium_sent + $2))
	if dd if="$vivarium_dir/new.$1" bs=65536 >&5; then answer "$1" sent; else answer "$1" gone; fi
}
keep() {
	vivarium_sent=0 vivarium_closed=
	while read -r vivarium_op vivarium_name vivarium_size <&6; do
		case $vivarium_op$vivarium_closed in
		w) send "$vivarium_name" "$vivarium_size" ;;
		w*) answer "$vivarium_name" gone ;;
		c*)
			exec 5>&-
			vivarium_closed=yes
			answer "$vivarium_name" sent ;;
		e*) # the command has ended: those who ask from now on look for open
			rm -f "$vivarium_dir/open"
			vivarium_closed=yes
			echo z >&6 ;; # not by its name, which makes a file where the job is being removed
		z*) exit ;;
		esac
	done
}
if [ "$3" = - ]; then
	exec 8</dev/null
else
	exec 3<>"$vivarium_dir/in" 6<>"$vivarium_dir/ctl" 8<"$vivarium_dir/in" 5>"$vivarium_dir/in" 3<&-
	{ exec 4>&- 8<&-; keep; } &
	exec 5>&- 6<&-
fi
trap '' PIPE # who asked may be gone
echo started >&4
trap - PIPE
exec 4>&-
command -v setsid >/dev/null && run() { setsid sh -c "$6" sh "$@"; } || run() { sh -c "$6" sh "$@"; }
case $4 in
merge*) run "$@" <&8 8<&- >>"$vivarium_dir/out" 2>&1 ;;
*) run "$@" <&8 8<&- >>"$vivarium_dir/out" 2>>"$vivarium_dir/err" ;;
esac
vivarium_code=$?
exec 8<&-
[ "$3" = - ] || echo e 1<>"$vivarium_dir/ctl"
until [ ! -e "$vivarium_dir/exit" ] || printf '%s end %s end\n' "$vivarium_code" "$vivarium_code" 1<>"$vivarium_dir/exit"; do
	sleep 1 || exit # a disk that is full, or files that are gone
done
if [ "$3" != - ] && sleep 1 && [ -e "$vivarium_dir/open" ]; then # the keeper is gone, or held up
	rm -f "$vivarium_dir/open"
	for vivarium_ans in "$vivarium_dir"/ans.*; do
		[ ! -p "$vivarium_ans" ] || echo gone 1<>"$vivarium_ans"
	done
fi
`

// jobChild becomes the command.
const jobChild = jobFunctions + `
vivarium_stat=$(birth $$)
printf '%s %s %s %s\n' $$ "$vivarium_stat" $$ "$vivarium_stat" 1<>"$1/$2/pid"
unset vivarium_stat
shift 6
exec "$@"
`

// jobState prints "starting", "running PID" (0 for a moment), "ended CODE", "lost" or
// "absent".
const jobState = jobFunctions + `
[ -d "$1" ] || { echo absent; exit; }
ended "$1" && { echo "ended $vivarium_code"; exit; }
vivarium_sup=
{ read -r vivarium_sup vivarium_born <"$1/sup"; } 2>/dev/null || { echo starting; exit; }
if alive "$vivarium_sup" "$vivarium_born"; then
	vivarium_1=0
	told "$1/pid"
	echo "running $vivarium_1"
elif ended "$1"; then # meanwhile
	echo "ended $vivarium_code"
else
	echo lost
fi
`

// jobSignal sends signal $2 to the command, or with "tree" in $3 to all that is in
// its session or comes from it, until nothing is. It prints "gone" where there is no
// command any more, and "starting" where there is none yet.
const jobSignal = jobFunctions + `
[ -d "$1" ] || { echo absent; exit; }
ended "$1" && { echo gone; exit; }
told "$1/pid" || { echo starting; exit; }
vivarium_pid=$vivarium_1 vivarium_born=$vivarium_2
if [ "$3" != tree ]; then
	alive "$vivarium_pid" "$vivarium_born" || { echo gone; exit; }
	kill "-$2" "$vivarium_pid" 2>&1 && echo sent
	exit
fi
[ ! -e "/proc/$vivarium_pid/stat" ] || alive "$vivarium_pid" "$vivarium_born" || [ "$(birth "$vivarium_pid")" = "$vivarium_born" ] ||
	{ echo gone; exit; } # another process has the number, so the session is gone
vivarium_tree=" $vivarium_pid " vivarium_round=0
while [ $vivarium_round -lt 1000 ]; do
	vivarium_round=$((vivarium_round + 1)) vivarium_found=
	for vivarium_p in /proc/[0-9]*; do
		vivarium_stat=
		{ read -r vivarium_stat <"$vivarium_p/stat"; } 2>/dev/null || continue
		set -- "$1" "$2" ${vivarium_stat##*) }
		[ $# -gt 6 ] && [ "$3" != Z ] || continue
		vivarium_p=${vivarium_p#/proc/}
		case $vivarium_tree in
		*" $vivarium_p "*) ;;
		*" $4 "*) vivarium_tree="$vivarium_tree$vivarium_p " ;;
		*) [ "$6" = "$vivarium_pid" ] || continue ;;
		esac
		kill "-$2" "$vivarium_p" 2>/dev/null && vivarium_found=1
	done
	[ -n "$vivarium_found" ] || break
done
echo sent
`

// jobWrite hands $3 bytes of standard input to the keeper under the name $2, all or none:
// when they are all here. What it has taken comes, also when who asked is killed. With "-"
// it asks it to end the input.
const jobWrite = jobFunctions + `
[ -p "$1/in" ] || { echo 'no stdin'; exit; }
trap 'rm -f "$1/new.$2" "$1/ans.$2"' EXIT
if [ "$3" != - ]; then
	vivarium_said=$(cat 2>&1 >"$1/new.$2") || { echo "${vivarium_said:-cannot write}"; exit; }
	[ "$(wc -c <"$1/new.$2")" -eq "$3" ] || { echo short; exit; }
fi
{ read -r vivarium_sup vivarium_born <"$1/sup"; } 2>/dev/null && alive "$vivarium_sup" "$vivarium_born" ||
	{ echo gone; exit; }
mkfifo -m 600 "$1/ans.$2" 2>&1 || exit
exec 7<>"$1/ans.$2"
trap - EXIT
if [ "$3" = - ]; then echo "c $2"; else echo "w $2 $3"; fi 1<>"$1/ctl"
[ -e "$1/open" ] || echo gone >&7 # behind the answer, if there is one
read -r vivarium_said <&7
echo "$vivarium_said"
`

// jobRemove removes what is known of a job that is not running. What is left of it may
// make a file meanwhile, once.
const jobRemove = jobFunctions + `
[ -d "$1" ] || { echo absent; exit; }
if ! ended "$1" && { read -r vivarium_sup vivarium_born <"$1/sup"; } 2>/dev/null && alive "$vivarium_sup" "$vivarium_born"; then
	echo running
	exit
fi
[ ! -p "$1/ctl" ] || echo z 1<>"$1/ctl" # a keeper that is left
{ rm -rf "$1" 2>/dev/null || rm -rf "$1" 2>&1; } && echo removed
`
