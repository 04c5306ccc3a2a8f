package sandbox

// A job is run by a supervisor, a shell in a session of its own that is nobody's
// child any more when StartJob returns. What is known of it are files in a
// directory of its own:
//
//	sup     process id of the supervisor, and when it started
//	pid     process id of the command, and when it started; the command leads a session
//	exit    its status
//	out err what it wrote, from the first byte on
//	in      a pipe to its standard input, which keeper holds open until it is to end
//	ctl     a pipe that tells keeper
//	closed  there when standard input was ended
//	lock    held by who writes to in
//
// pid and exit are there from the start, with room for what comes, so that a full disk
// does not keep it from being told; a line feed completes them.
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
// when it started, and ended DIR succeeds when the exit of the job there is told. lock DIR waits for
// its turn to write to a job; without flock(1) nobody waits.
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
ended() { { read -r vivarium_code <"$1/exit"; } 2>/dev/null; }
lock() { if command -v flock >/dev/null; then exec 7>>"$1/lock" && flock 7; fi; }
`

// jobLaunch claims the name and starts the supervisor. setsid(1) forks where it is
// run by the leader of a process group, and its child then has the signals as they
// were; what a shell starts with "&" ignores SIGINT and SIGQUIT for good.
//
//	sh BASE NAME in|- merge|- SUPERVISOR CHILD PROGRAM [ARGUMENT]...
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
// the same reason.
const jobSupervise = jobFunctions + `
vivarium_dir=$1/$2 vivarium_in=/dev/null vivarium_keeper=
{
	printf '%s %s\n' $$ "$(birth $$)" >"$vivarium_dir/sup" &&
		printf '%64s' '' >"$vivarium_dir/pid" && printf '%64s' '' >"$vivarium_dir/exit" &&
		: >>"$vivarium_dir/out" && : >>"$vivarium_dir/err"
} || {
	echo why | cat 2>&4 >"$vivarium_dir/sup" # which says it better than a shell
	echo 'cannot write' >&4
	rm -rf "$vivarium_dir"
	exit
}
if [ "$3" != - ]; then
	vivarium_in=$vivarium_dir/in
	exec 3<>"$vivarium_in" 6<>"$vivarium_dir/ctl"
	{ exec 4>&-; read -r vivarium_stat <&6; } &
	vivarium_keeper=$!
	exec 3<&- 6<&-
fi
echo started >&4
exec 4>&-
command -v setsid >/dev/null && run() { setsid sh -c "$6" sh "$@"; } || run() { sh -c "$6" sh "$@"; }
if [ "$4" = - ]; then
	run "$@" <"$vivarium_in" >>"$vivarium_dir/out" 2>>"$vivarium_dir/err"
else
	run "$@" <"$vivarium_in" >>"$vivarium_dir/out" 2>&1
fi
vivarium_code=$?
[ -z "$vivarium_keeper" ] || kill -9 "$vivarium_keeper"
until printf '%s\n' "$vivarium_code" 1<>"$vivarium_dir/exit"; do sleep 1; done
`

// jobChild becomes the command.
const jobChild = jobFunctions + `
printf '%s %s\n' $$ "$(birth $$)" 1<>"$1/$2/pid"
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
	{ read -r vivarium_pid vivarium_born <"$1/pid"; } 2>/dev/null || vivarium_pid=0
	echo "running $vivarium_pid"
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
{ read -r vivarium_pid vivarium_born <"$1/pid"; } 2>/dev/null || { echo starting; exit; }
if [ "$3" != tree ]; then
	alive "$vivarium_pid" "$vivarium_born" || { echo gone; exit; }
	kill "-$2" "$vivarium_pid" 2>&1 && echo sent
	exit
fi
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

// jobWrite passes on $2 bytes of standard input, all or none. Its lock is the kernel's
// (flock(1)): dd has it too, so it is kept until all was written, also by one whose
// shell was killed. It is dd and not cat, which may use sendfile(2) and ask once more
// after all was sent: where the command has read it and ended by then, that fails.
const jobWrite = jobFunctions + `
[ -p "$1/in" ] || { echo 'no stdin'; exit; }
vivarium_new=$1/new.$$
trap 'rm -f "$vivarium_new"' EXIT
vivarium_said=$(cat 2>&1 >"$vivarium_new") || { echo "${vivarium_said:-cannot write}"; exit; }
[ "$(wc -c <"$vivarium_new")" -eq "$2" ] || { echo short; exit; }
lock "$1"
exec 4<>"$1/in" # opening it to write does not wait then
if ended "$1" || [ -e "$1/closed" ]; then echo gone; exit; fi
exec 5>"$1/in" 4<&-
if dd if="$vivarium_new" bs=65536 >&5 2>/dev/null; then echo sent; else echo gone; fi
`

// jobClose ends standard input, after what is being written.
const jobClose = jobFunctions + `
[ -p "$1/in" ] || { echo 'no stdin'; exit; }
lock "$1"
[ ! -e "$1/closed" ] || { echo sent; exit; }
: >"$1/closed" && echo x 1<>"$1/ctl" && echo sent
`

// jobRemove removes what is known of a job that is not running.
const jobRemove = jobFunctions + `
[ -d "$1" ] || { echo absent; exit; }
if ! ended "$1" && { read -r vivarium_sup vivarium_born <"$1/sup"; } 2>/dev/null && alive "$vivarium_sup" "$vivarium_born"; then
	echo running
	exit
fi
rm -rf "$1" 2>&1 && echo removed
`
