package sandboxtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) testJobSignal(t *testing.T) {
	for _, sig := range []sandbox.Signal{sandbox.SIGINT, sandbox.SIGHUP, sandbox.SIGTERM, sandbox.SIGQUIT} {
		j := s.job(t, s.shared, `trap 'echo caught; exit 3' INT HUP TERM QUIT; echo ready; while :; do sleep 0.1; done`, nil)
		r, err := j.Output(s.context(t), 0)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(r)
		if line, err := lines.ReadString('\n'); line != "ready\n" {
			t.Fatal(line, err)
		}
		if err := j.Signal(s.context(t), sig); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); line != "caught\n" {
			t.Errorf("after %v: %q, %v", sig, line, err)
		}
		_ = r.Close()
		equal(t, "exit", s.exited(t, j), sandbox.Exit{Code: 3})
	}
}

// A job that ran into the memory limit is told from one that was killed.
func (s *suite) testJobOOM(t *testing.T) {
	sb := s.createWith(t, Memory, func(c *sandbox.Config) { c.Memory = 256 << 20 })
	dies := func(script string) sandbox.Exit { return s.exited(t, s.job(t, sb, script, nil)) }
	equal(t, "killed", dies("kill -9 $$"), sandbox.Exit{Code: -1, Signal: sandbox.SIGKILL})
	const hog = "head -c 1073741824 /dev/zero | tail -n 1 >/dev/null" // tail keeps a line of 1 GiB in memory
	err := sb.Run(s.context(t), nil, nil, "sh", "-c", hog)
	told, _ := errors.AsType[*sandbox.ExitError](err)
	exit := dies(hog)
	if told != nil && told.OOM && exit.Signal == sandbox.SIGKILL && !exit.OOM {
		t.Errorf("killed at the memory limit, but Exit.OOM is not set: %+v", exit)
	}
	equal(t, "killed after that", dies("kill -9 $$"), sandbox.Exit{Code: -1, Signal: sandbox.SIGKILL})
}

func (s *suite) testJobKill(t *testing.T) {
	dir, _ := s.dir(t)
	s.sh(t, s.shared, `mkfifo "$1/life"`, dir)
	life := s.shared.Command(s.context(t), "cat", dir+"/life")
	if err := life.Start(); err != nil {
		t.Fatal(err)
	}
	j := s.job(t, s.shared, `(trap '' TERM; exec 9>"$0"/life; echo up; exec sleep 600) & wait`,
		func(c *sandbox.JobConfig) { c.Args = append(c.Args, dir) })
	r, err := j.Output(s.context(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "up\n" {
		t.Fatal(line, err)
	}
	if err := j.Kill(s.context(t)); err != nil {
		t.Fatal(err)
	}
	if err := life.Wait(); err != nil { // it ends when the child's end of the pipe is closed
		t.Errorf("cat: %v", err)
	}
	equal(t, "exit", s.exited(t, j), sandbox.Exit{Code: -1, Signal: sandbox.SIGKILL})
	if err := j.Kill(s.context(t)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a second Kill: %v", err)
	}
}

// testJobLost kills what looks after a job.
func (s *suite) testJobLost(t *testing.T) {
	j := s.job(t, s.shared, `echo before; exec sleep 600`, nil)
	r, err := j.Output(s.context(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lines := bufio.NewReader(r)
	if line, err := lines.ReadString('\n'); line != "before\n" {
		t.Fatal(line, err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := j.Wait(s.context(t))
		waited <- err
	}()
	s.sh(t, s.shared, `cd "${TMPDIR:-/tmp}/.vivarium-jobs/$1"; read -r pid rest <sup; read -r child rest <pid; kill -9 "$pid" "$child"`, j.Name())
	if line, err := lines.ReadString('\n'); line != "" || !errors.Is(err, sandbox.ErrJobLost) {
		t.Errorf("the output ends with %q, %v", line, err)
	}
	if err := <-waited; !errors.Is(err, sandbox.ErrJobLost) {
		t.Errorf("Wait: %v", err)
	}
	if st, err := j.Status(s.context(t)); err != nil || !st.Lost {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := j.Remove(s.context(t)); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

func (s *suite) testJobContext(t *testing.T) {
	j := s.job(t, s.shared, `exec sleep 600`, nil)
	cause := errors.New("why")
	ctx, cancel := context.WithCancelCause(s.context(t))
	r, err := j.Output(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	go cancel(cause)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, cause) {
		t.Errorf("Read: %v, want the context's cause", err)
	}
	_ = r.Close()
	if r, err = j.Output(s.context(t), 0); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read: %v, want fs.ErrClosed", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	ctx, stop := context.WithTimeout(s.context(t), time.Millisecond)
	defer stop()
	if _, err := j.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v", err)
	}
}

func (s *suite) testJobRemove(t *testing.T) {
	sb := s.create(t, nil)
	for _, err := range sb.Jobs(s.context(t)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	j := s.job(t, sb, `read -r x`, func(c *sandbox.JobConfig) { c.Stdin = true })
	if err := j.Remove(s.context(t)); !errors.Is(err, sandbox.ErrJobRunning) {
		t.Errorf("Remove of one that runs: %v", err)
	}
	listed := false
	for other, err := range sb.Jobs(s.context(t)) {
		if err != nil {
			t.Fatal(err)
		}
		listed = listed || other.Name() == j.Name()
	}
	if !listed {
		t.Error("it is not listed")
	}
	if err := j.CloseStdin(s.context(t)); err != nil {
		t.Fatal(err)
	}
	s.exited(t, j)
	for range 2 {
		if err := j.Remove(s.context(t)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sb.Job(s.context(t), j.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
	if _, err := j.Status(s.context(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Status after Remove: %v", err)
	}
}

// testJobFullDisk fills the disk: how a job ends is told still, and what does not fit
// is an error that says so.
func (s *suite) testJobFullDisk(t *testing.T) {
	sb := s.createWith(t, Disk, func(c *sandbox.Config) { c.Disk = 32 << 20 })
	s.sh(t, sb, `mkfifo full`)
	j := s.job(t, sb, `yes; read -r x <full; read -r x; exit 5`, func(c *sandbox.JobConfig) { c.Stdin = true })
	s.sh(t, sb, `echo >full`) // waits until yes has ended
	if err := j.WriteStdin(s.context(t), bytes.Repeat([]byte("x"), 10_000)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteStdin: %v", err)
	}
	if in, err := j.Input(s.context(t)); len(in) > 0 || err != nil {
		t.Errorf("%d bytes of input are said to be sent, %v", len(in), err)
	}
	if err := j.CloseStdin(s.context(t)); err != nil {
		t.Error(err)
	}
	equal(t, "exit", s.exited(t, j), sandbox.Exit{Code: 5})
	if n := len(s.all(t, j, 0)); n < 1<<20 {
		t.Errorf("only %d bytes are in the journal", n)
	}
	_, err := sb.StartJob(s.context(t), &sandbox.JobConfig{Name: "another", Args: []string{"true"}})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("StartJob: %v", err)
	}
	if _, err := sb.Job(s.context(t), "another"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it left its name: %v", err)
	}
	if err := j.Remove(s.context(t)); err != nil {
		t.Fatal(err)
	}
	equal(t, "exit of one after it", s.exited(t, s.job(t, sb, "true", nil)), sandbox.Exit{})
}

// testJobFilesGone takes the files of a job away: what looked after it must not stay for
// ever because it cannot write down how it ended.
func (s *suite) testJobFilesGone(t *testing.T) {
	j := s.job(t, s.shared, `exec sleep 600`, nil)
	pid := 0
	for pid == 0 {
		st, err := j.Status(s.context(t))
		if err != nil {
			t.Fatal(err)
		}
		pid = st.Pid
	}
	var out strings.Builder
	err := s.shared.Run(s.context(t), nil, &out, "sh", "-c", `
		exec 2>&1
		cd "${TMPDIR:-/tmp}/.vivarium-jobs/$1" && read -r supervisor born <sup || exit
		cd / && rm -rf "${TMPDIR:-/tmp}/.vivarium-jobs/$1" && kill -9 "$2" || exit
		while read -r stat <"/proc/$supervisor/stat" && [ "${stat#*) Z}" = "$stat" ]; do :; done 2>/dev/null
		echo gone`, "sh", j.Name(), strconv.Itoa(pid))
	if err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	equal(t, "it", out.String(), "gone\n")
}

func (s *suite) testJobSandboxEnds(t *testing.T) {
	sb := s.create(t, nil)
	j := s.job(t, sb, `exec sleep 600`, nil)
	r, err := j.Output(s.context(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		ended <- err
	}()
	if err := sb.Terminate(s.context(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("Read: %v, want ErrEnded", err)
	}
	if _, err := j.Wait(s.context(t)); !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("Wait: %v, want ErrEnded", err)
	}
}

// testJobNoStranger has the record of a job name a process that started at another time,
// as where its number was used again: neither a signal nor Kill goes to that one.
func (s *suite) testJobNoStranger(t *testing.T) {
	stranger := s.job(t, s.shared, `exec sleep 600`, nil)
	j := s.job(t, s.shared, `exec sleep 600`, nil)
	pid := 0
	for _, of := range []*sandbox.Job{j, stranger} {
		for pid = 0; pid == 0; {
			st, err := of.Status(s.context(t))
			if err != nil {
				t.Fatal(err)
			}
			pid = st.Pid
		}
	}
	record := s.sh(t, s.shared, fmt.Sprintf(`cd "${TMPDIR:-/tmp}/.vivarium-jobs/%s" && cat pid && printf '%%s 1 %%s 1\n' %d %d 1<>pid`, j.Name(), pid, pid))
	for op, err := range map[string]error{"Signal": j.Signal(s.context(t), sandbox.SIGKILL), "Kill": j.Kill(s.context(t))} {
		isErr(t, op, err, os.ErrProcessDone)
	}
	if st, err := stranger.Status(s.context(t)); err != nil || st.Pid != pid || st.Exit != nil {
		t.Errorf("the other job: %+v, %v", st, err)
	}
	s.sh(t, s.shared, fmt.Sprintf(`kill -9 %s`, strings.Fields(record)[0]))
	equal(t, "exit", s.exited(t, j), sandbox.Exit{Code: -1, Signal: sandbox.SIGKILL})
	if err := stranger.Kill(s.context(t)); err != nil {
		t.Error(err)
	}
}
