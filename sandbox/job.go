package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// JobConfig is a command to run as a job.
type JobConfig struct {
	// Name is what Sandbox.Job finds it by: 1 to 64 of letters, digits, '.', '_'
	// and '-', the first a letter or a digit. It is taken until Job.Remove.
	Name string
	// Args is the program and its arguments. A program without a slash is looked
	// up in the PATH of the sandbox.
	Args []string
	// Env is added to the sandbox's own environment, as KEY=VALUE; later entries win.
	Env []string
	// Dir is the directory to start in. Empty means Sandbox.Dir, and a relative one
	// is below it.
	Dir string
	// Stdin gives the command an input that Job.WriteStdin fills and Job.CloseStdin
	// ends. Without it the input is empty.
	Stdin bool
	// Merge puts stderr where stdout goes, in the order the command wrote.
	Merge bool
	// Note is kept with the job for whoever takes it over; see Job.Note.
	Note []byte
}

// Job is a command that outlives the connection to its sandbox and this process.
// Everything it writes is kept in files inside the sandbox, from where it is followed
// from any byte, by any number of followers, while it runs and after; how it ended is
// kept there too. It ends with the sandbox, and not before because somebody went away.
//
// It needs a POSIX shell, mkfifo and /proc in the sandbox, as busybox has them, and
// setsid for Kill to find what left the command's own process group. The files are in
// .vivarium-jobs below /tmp, or TMPDIR where the sandbox is not isolated, and the
// sandbox's user can read and write them, so the job can too.
//
// The methods are safe for concurrent use. A Job is only a name: there is nothing to
// close.
type Job struct {
	sb   *Sandbox
	name string
	dir  string

	writing sync.Mutex // so that one who gives up is not behind others who wait
}

// JobStatus is what is known of a job.
type JobStatus struct {
	// Pid is the process id of the command inside, while it runs.
	Pid int
	// Exit is how it ended; nil while it has not. Code and Signal are those that a
	// shell tells: a signal is a status above 128, and a command that ended with such
	// a status by itself cannot be told from one that a signal ended. OOM is set where it is known.
	Exit *Exit
	// Lost says that the job is gone and nobody knows how it ended: what looked after
	// it was killed.
	Lost bool
}

// Errors of jobs, to match with errors.Is.
var (
	// ErrJobLost: the job is gone, and nobody knows how it ended.
	ErrJobLost = errors.New("the job is gone without a record of how it ended")
	// ErrJobRunning: the job has not ended.
	ErrJobRunning = errors.New("the job is still running")
)

// startGrace is how long a job may take from its name to its first process.
const startGrace = 30 * time.Second

// StartJob starts a command as a job, which then runs whatever becomes of ctx. A name
// that is taken matches fs.ErrExist, whether the job runs or has ended: after a lost
// answer, Sandbox.Job tells whether it was started. A program that is not there matches
// exec.ErrNotFound, a directory that is not there fs.ErrNotExist, a full disk
// syscall.ENOSPC.
func (s *Sandbox) StartJob(ctx context.Context, cfg *JobConfig) (*Job, error) {
	j, err := s.startJob(ctx, cfg)
	if err != nil {
		return nil, wrap("start job", s.ID(), err)
	}
	return j, nil
}

func (s *Sandbox) startJob(ctx context.Context, cfg *JobConfig) (*Job, error) {
	if cfg == nil {
		cfg = &JobConfig{}
	}
	var bad problems
	bad.when(!isJobName(cfg.Name), "Name %q: use 1 to 64 letters, digits, '.', '_' and '-'", cfg.Name)
	bad.when(len(cfg.Args) == 0 || cfg.Args[0] == "", "Args: no program to run")
	if err := bad.err(); err != nil {
		return nil, err
	}
	in, how := "-", ""
	if cfg.Stdin {
		in = "in"
	}
	if cfg.Merge {
		how = "merge"
	}
	if len(cfg.Note) > 0 {
		how += "note" + strconv.Itoa(len(cfg.Note))
	}
	root, err := s.jobRoot(ctx)
	if err != nil {
		return nil, err
	}
	cmd := s.Command(ctx, "sh", "-c", jobLaunch, "sh", root, cfg.Name, in, cmp.Or(how, "-"), jobSupervise, jobChild)
	cmd.Args = append(cmd.Args, cfg.Args...)
	cmd.Env, cmd.Dir, cmd.Stdin = cfg.Env, cfg.Dir, bytes.NewReader(cfg.Note)
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	switch answer := strings.TrimSpace(string(out)); answer {
	case jobStarted:
		j := s.job(root, cfg.Name)
		j.countOOM(ctx)
		return j, nil
	case jobExists:
		return nil, fmt.Errorf("job %s: %w", cfg.Name, fs.ErrExist)
	case jobNoProgram:
		return nil, fmt.Errorf("%s: %w", cfg.Args[0], exec.ErrNotFound)
	case jobNoRight:
		return nil, fmt.Errorf("%s: %w", cfg.Args[0], fs.ErrPermission)
	default:
		return nil, fmt.Errorf("job %s: %w", cfg.Name, unexpected(answer))
	}
}

// unexpected is what the sandbox says where no answer of ours fits, a tool's words as a
// rule. A full disk matches syscall.ENOSPC.
func unexpected(said string) error {
	err := fmt.Errorf("the sandbox says %q", clipped(said))
	if strings.Contains(said, "No space left on device") {
		err = fmt.Errorf("%w: %w: remove files, or jobs that have ended", err, syscall.ENOSPC)
	}
	return err
}

func clipped(s string) string {
	const most = 500
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

func isJobName(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func (s *Sandbox) job(root, name string) *Job {
	return &Job{sb: s, name: name, dir: path.Join(root, name)}
}

// jobRoot is the directory of the jobs, outside of what is a workspace as a rule. A
// sandbox that is not isolated shares /tmp with others, and has a TMPDIR of its own.
func (s *Sandbox) jobRoot(ctx context.Context) (string, error) {
	s.jobs.Lock()
	defer s.jobs.Unlock()
	if s.jobsDir != "" {
		return s.jobsDir, nil
	}
	info, err := s.driver.Info(ctx)
	if err != nil {
		return "", err
	}
	temp := "/tmp"
	if !info.Isolated {
		out, err := s.Command(ctx, "sh", "-c", `printf %s "${TMPDIR:-/tmp}"`).Output()
		if err != nil {
			return "", err
		}
		if path.IsAbs(string(out)) {
			temp = string(out)
		}
	}
	s.jobsDir = path.Join(temp, jobsName)
	return s.jobsDir, nil
}

// Job finds a job of this sandbox, one of another process too. One that was never
// started, or was removed, matches fs.ErrNotExist.
func (s *Sandbox) Job(ctx context.Context, name string) (*Job, error) {
	if !isJobName(name) {
		return nil, wrap("find job", s.ID(), fmt.Errorf("%w: %q is no name of a job", ErrInvalid, name))
	}
	root, err := s.jobRoot(ctx)
	if err == nil {
		_, err = s.FSAt(ctx, root).Stat(name)
	}
	if err != nil {
		return nil, wrap("find job", s.ID(), fmt.Errorf("job %s: %w", name, err))
	}
	return s.job(root, name), nil
}

// Jobs gives the jobs of the sandbox, those that have ended too, by name. The first
// error ends it.
func (s *Sandbox) Jobs(ctx context.Context) iter.Seq2[*Job, error] {
	return func(yield func(*Job, error) bool) {
		var entries []fs.DirEntry
		root, err := s.jobRoot(ctx)
		if err == nil {
			entries, err = s.FSAt(ctx, root).ReadDir(".")
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield(nil, wrap("list jobs", s.ID(), err))
			return
		}
		for _, e := range entries {
			if e.IsDir() && isJobName(e.Name()) && !yield(s.job(root, e.Name()), nil) {
				return
			}
		}
	}
}

// Name is the job's name.
func (j *Job) Name() string { return j.name }

// String is "job" and the name.
func (j *Job) String() string { return "job " + j.name }

func (j *Job) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return wrap(op, j.sb.ID(), fmt.Errorf("job %s: %w", j.name, err))
}

// ask runs a script about the job and gives what it says.
func (j *Job) ask(ctx context.Context, stdin io.Reader, script string, args ...string) (string, error) {
	var out bytes.Buffer
	err := j.sb.Run(ctx, stdin, &out, "sh", append([]string{"-c", script, "sh", j.dir}, args...)...)
	return strings.TrimSpace(out.String()), err
}

// Status tells how the job is. A job that was removed matches fs.ErrNotExist.
func (j *Job) Status(ctx context.Context) (*JobStatus, error) {
	st, _, err := j.status(ctx)
	if err == nil {
		j.explain(ctx, st.Exit)
	}
	return st, j.fail("job status", err)
}

// status tells besides that nothing runs of the job yet.
func (j *Job) status(ctx context.Context) (st *JobStatus, starting bool, err error) {
	said, err := j.ask(ctx, nil, jobState)
	if err != nil {
		return nil, false, err
	}
	word, number, _ := strings.Cut(said, " ")
	switch n, numErr := strconv.Atoi(number); {
	case word == "starting":
		return &JobStatus{}, true, nil
	case word == "lost":
		return &JobStatus{Lost: true}, false, nil
	case word == "absent":
		return nil, false, fs.ErrNotExist
	case word == "running" && numErr == nil:
		return &JobStatus{Pid: n}, false, nil
	case word == "ended":
		exit, err := parseExit(number)
		return &JobStatus{Exit: exit}, false, err
	}
	return nil, false, unexpected(said)
}

// parseExit reads a status as a shell tells it.
func parseExit(text string) (*Exit, error) {
	code, err := strconv.Atoi(text)
	if err != nil || code < 0 || code > 255 {
		return nil, fmt.Errorf("its record of how it ended is damaged: %q", clipped(text))
	}
	if sig := code - 128; sig > 0 && sig <= 64 {
		return &Exit{Code: -1, Signal: Signal(sig)}, nil
	}
	return &Exit{Code: code}, nil
}

// exit reads the record of how it ended; nil: there is none yet.
func (j *Job) exit(ctx context.Context) (*Exit, error) {
	data, err := j.sb.FSAt(ctx, j.dir).ReadFile("exit")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return readExit(string(data))
}

// readExit reads the file, which may be being written.
func readExit(data string) (*Exit, error) {
	line, _, whole := strings.Cut(data, "\n")
	words := strings.Fields(line)
	if !whole || strings.HasPrefix(line, " ") || len(words) != 4 || words[0] != words[2] || words[1] != words[3] {
		return nil, nil
	}
	return parseExit(words[0])
}

// Wait waits until the job has ended. An exit status other than 0 is no error: it is
// in what Wait returns. A job of which nobody will ever know how it ended matches
// ErrJobLost, the end of the sandbox ErrEnded.
func (j *Job) Wait(ctx context.Context) (*Exit, error) {
	exit, err := j.wait(ctx)
	return exit, j.fail("wait for job", err)
}

func (j *Job) wait(ctx context.Context) (*Exit, error) {
	w := j.watch(ctx)
	defer w.stop()
	for {
		exit, err := w.next(ctx)
		if exit != nil || err != nil {
			j.explain(ctx, exit)
			return exit, err
		}
	}
}

// Signal sends a signal to the command. One that has ended matches
// os.ErrProcessDone, and one that was removed fs.ErrNotExist.
func (j *Job) Signal(ctx context.Context, sig Signal) error {
	return j.fail("signal job", j.signal(ctx, sig, "-"))
}

// Kill kills the command with everything that is in its session or came from it. One
// that has ended matches os.ErrProcessDone.
func (j *Job) Kill(ctx context.Context) error {
	return j.fail("kill job", j.signal(ctx, SIGKILL, "tree"))
}

func (j *Job) signal(ctx context.Context, sig Signal, to string) error {
	if sig <= 0 || sig > 64 {
		return fmt.Errorf("%w: signal %d", ErrInvalid, sig)
	}
	w := j.watch(ctx)
	defer w.stop()
	for {
		said, err := j.ask(ctx, nil, jobSignal, strconv.Itoa(int(sig)), to)
		switch {
		case err != nil:
			return err
		case said == "sent":
			return nil
		case said == "gone":
			return os.ErrProcessDone
		case said == "absent":
			return fs.ErrNotExist
		case said != "starting":
			return unexpected(said)
		}
		if exit, err := w.next(ctx); exit != nil || err != nil {
			return errors.Join(err, os.ErrProcessDone)
		}
	}
}

// Remove removes all that is kept of a job that has ended, and frees its name. One
// that runs matches ErrJobRunning; one that is not there is no error.
func (j *Job) Remove(ctx context.Context) error {
	said, err := j.ask(ctx, nil, jobRemove)
	switch {
	case err != nil:
	case said == "removed", said == "absent":
	case said == "running":
		err = ErrJobRunning
	default:
		err = unexpected(said)
	}
	return j.fail("remove job", err)
}
