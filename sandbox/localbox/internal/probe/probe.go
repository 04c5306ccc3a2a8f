//go:build linux

package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
)

// Facts is what a probe is told of the host, of the sandbox it runs in, and of
// the limits that are meant to hold. A probe whose facts are missing says that
// it was skipped.
type Facts struct {
	SecretFile   string   // a file of the host that anybody there may read
	SecretDir    string   // a directory of the host that stands for somebody's home
	EnvName      string   // a variable that only the host's processes have
	Marker       string   // an argument of the host's process Pid
	Pid          int      // a process of the host
	TCP          string   // a listener on the host's loopback, "IP:port"
	DNS          string   // a name server on the host's loopback, "IP:port"
	Abstract     string   // the name of an abstract unix socket of the host, without the NUL
	UnixPath     string   // the path of a unix socket of the host
	ShmKey       int      // a System V segment of the host
	Queue        string   // a POSIX message queue of the host, without the slash
	ReadOnlyFile string   // a file shown read-only, writable by its mode
	ReadOnlyDir  string   // the directory it is in
	Closed       []string // addresses "IP:port" that nobody may listen on inside
	Workspace    string   // a directory that the probe may write to
	Fill         string   // a directory to fill

	// Root says that the inside is root of a root file system of its own, in which
	// it may do what Rights allow; they are capabilities by number.
	Root   bool
	Rights uint64

	// Limits; 0 means that the one is not enforced here.
	CPU    float64 // cores
	Memory int64   // bytes
	Pids   int
	Disk   int64 // bytes that Fill may hold
}

// Probe is one attempt.
type Probe struct {
	Name string
	// Destructive probes are for the inside of a sandbox only.
	Destructive bool
	run         func(*Facts) (detail string, through bool)
}

// Result is what a probe found; Main prints it as a line of JSON.
type Result struct {
	Name    string `json:"name"`
	Through bool   `json:"through"`
	Skipped bool   `json:"skipped,omitempty"` // the fact it needs is missing
	Detail  string `json:"detail"`
}

// All gives every probe, in an order that does not change.
func All() []Probe {
	return slices.Concat(processProbes(), pid1Probes(), fileProbes(), mountProbes(), namespaceProbes(),
		socketProbes(), ipcProbes(), procfsProbes(), deviceProbes(), callProbes(), doorProbes(), terminalProbes(), limitProbes())
}

const (
	word  = "vivarium-probe"
	child = "vivarium-probe-child"
)

// IsProbe reports whether the process was started with Args.
func IsProbe(args []string) bool {
	return len(args) >= 2 && (args[1] == word || args[1] == child)
}

// Args is the command line that runs one probe with the binary exe.
func Args(exe, name string, f *Facts) ([]string, error) {
	facts, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return []string{exe, word, name, string(facts)}, nil
}

// Main runs the probe that args ask for, prints its Result and returns the exit
// code: 0 whatever the probe found, 2 when it could not be run. A probe that
// the sandbox kills prints nothing.
func Main(args []string) int {
	if len(args) >= 3 && args[1] == child {
		return childMain(args[2:])
	}
	fds := openFiles() // before anything here opens some
	if len(args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: "+word+" NAME FACTS")
		return 2
	}
	var f Facts
	if err := json.Unmarshal([]byte(args[3]), &f); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	found = fds
	i := slices.IndexFunc(All(), func(p Probe) bool { return p.Name == args[2] })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "no probe is called %q\n", args[2])
		return 2
	}
	r := Result{Name: args[2]}
	r.Detail, r.Through = All()[i].run(&f)
	r.Skipped = r.Detail == skipped
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 2
	}
	return 0
}

// found is what openFiles saw when the process began.
var found []string

const skipped = "not told what to look for"

func skip() (string, bool) { return skipped, false }

func got(format string, args ...any) (string, bool) { return fmt.Sprintf(format, args...), true }

func held(format string, args ...any) (string, bool) { return fmt.Sprintf(format, args...), false }

// judge takes success, and an error that only comes after the check of who
// asks, for getting through.
func judge(err error, past ...syscall.Errno) (string, bool) {
	if err == nil {
		return "it worked", true
	}
	for _, e := range past {
		if errors.Is(err, e) {
			return "past the check: " + err.Error(), true
		}
	}
	return err.Error(), false
}

// first runs attempts until one gets through.
func first(attempts map[string]func() error, past ...syscall.Errno) (string, bool) {
	var text string
	for name, attempt := range attempts {
		detail, through := judge(attempt(), past...)
		text = name + ": " + detail
		if through {
			return text, true
		}
	}
	return text, false
}

// call makes a system call by number.
func call(nr uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, e := syscall.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return r, e
	}
	return r, nil
}
