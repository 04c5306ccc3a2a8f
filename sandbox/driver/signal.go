package driver

import "strconv"

// Signal is a Linux signal number; sandboxes run Linux whatever this machine
// runs. It is an os.Signal.
type Signal int

// Signals that programs commonly handle (signal(7), the numbers shared by
// amd64 and arm64).
const (
	SIGHUP  Signal = 1
	SIGINT  Signal = 2
	SIGQUIT Signal = 3
	SIGABRT Signal = 6
	SIGKILL Signal = 9
	SIGUSR1 Signal = 10
	SIGSEGV Signal = 11
	SIGUSR2 Signal = 12
	SIGPIPE Signal = 13
	SIGALRM Signal = 14
	SIGTERM Signal = 15
	SIGCONT Signal = 18
	SIGSTOP Signal = 19
)

var signalNames = map[Signal]string{
	SIGHUP: "hangup", SIGINT: "interrupt", SIGQUIT: "quit", SIGABRT: "aborted",
	SIGKILL: "killed", SIGUSR1: "user defined signal 1", SIGSEGV: "segmentation fault",
	SIGUSR2: "user defined signal 2", SIGPIPE: "broken pipe", SIGALRM: "alarm clock",
	SIGTERM: "terminated", SIGCONT: "continued", SIGSTOP: "stopped (signal)",
}

// String is the signal's description, as package syscall words it.
func (s Signal) String() string {
	if name, ok := signalNames[s]; ok {
		return name
	}
	return "signal " + strconv.Itoa(int(s))
}

// Signal marks it as an os.Signal.
func (s Signal) Signal() {}
