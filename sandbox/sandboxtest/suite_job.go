package sandboxtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
)

func (s *suite) jobTests() []test {
	return []test{
		{"FollowedFromAnyByte", s.testJobFollow},
		{"LineReachesFollowersWhileItRuns", s.testJobLines},
		{"OutlivesItsProvider", s.testJobOutlives},
		{"ExitIsRecorded", s.testJobExit},
		{"StartErrors", s.testJobStartErrors},
		{"NameGoesToOneOfMany", s.testJobNameRace},
		{"Stdin", s.testJobStdin},
		{"StdinOfWholeWrites", s.testJobWholeWrites},
		{"NoStdin", s.testJobNoStdin},
		{"SignalsAreNotIgnored", s.testJobSignal},
		{"KillTakesTheSession", s.testJobKill},
		{"Lost", s.testJobLost},
		{"ContextAndCloseEndReads", s.testJobContext},
		{"EnvAndDir", s.testJobEnv},
		{"Merge", s.testJobMerge},
		{"RemoveAndList", s.testJobRemove},
		{"SandboxEndsIt", s.testJobSandboxEnds},
		{"FullDisk", s.testJobFullDisk},
		{"FilesGone", s.testJobFilesGone},
		{"Input", s.testJobInput},
		{"WriteOutlivesUs", s.testJobWriteOutlives},
	}
}

// job starts a script as a job of a new name, which is removed at the end.
func (s *suite) job(t *testing.T, sb *sandbox.Sandbox, script string, change func(*sandbox.JobConfig)) *sandbox.Job {
	t.Helper()
	cfg := &sandbox.JobConfig{Name: "job-" + rand.Text(), Args: []string{"sh", "-c", script}}
	if change != nil {
		change(cfg)
	}
	j, err := sb.StartJob(s.context(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), cleanUpTimeout)
		defer stop()
		if j.Kill(ctx) == nil {
			_, _ = j.Wait(ctx)
		}
		_ = j.Remove(ctx)
	})
	return j
}

// all reads what a job prints, from a byte on, to its end.
func (s *suite) all(t *testing.T, j *sandbox.Job, from int64) string {
	t.Helper()
	r, err := j.Output(s.context(t), from)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// exited waits for the end of a job.
func (s *suite) exited(t *testing.T, j *sandbox.Job) sandbox.Exit {
	t.Helper()
	exit, err := j.Wait(s.context(t))
	if err != nil {
		t.Fatal(err)
	}
	return *exit
}

func (s *suite) testJobFollow(t *testing.T) {
	// 300,000 bytes of all values, in an order that tells them apart.
	j := s.job(t, s.shared, `i=0; while [ $i -lt 3000 ]; do printf '%099d\n' $i; i=$((i+1)); done; printf '\000\377'; echo no >&2`, nil)
	whole := s.all(t, j, 0)
	if len(whole) != 300_002 || !strings.HasSuffix(whole, "2999\n\x00\xff") {
		t.Fatalf("%d bytes, ending in %q", len(whole), whole[max(0, len(whole)-10):])
	}
	for _, from := range []int64{1, 99, 150_000, 300_001, 300_002, 400_000} {
		if got, want := s.all(t, j, from), whole[min(from, int64(len(whole))):]; got != want {
			t.Errorf("from byte %d there are %d bytes, want %d", from, len(got), len(want))
		}
	}
	r, err := j.Stderr(s.context(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if said, err := io.ReadAll(r); string(said) != "no\n" || err != nil {
		t.Errorf("stderr is %q, %v", said, err)
	}
	if _, err := j.Output(s.context(t), -1); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("from byte -1: %v", err)
	}
}

func (s *suite) testJobLines(t *testing.T) {
	j := s.job(t, s.shared, `while read -r x; do echo "$x"; done`, func(c *sandbox.JobConfig) { c.Stdin = true })
	var followers []*bufio.Reader
	for range 3 {
		r, err := j.Output(s.context(t), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		followers = append(followers, bufio.NewReader(r))
	}
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		if err := j.WriteStdin(s.context(t), []byte(line)); err != nil {
			t.Fatal(err)
		}
		for i, f := range followers {
			if got, err := f.ReadString('\n'); got != line || err != nil {
				t.Fatalf("follower %d got %q, %v, want %q", i, got, err, line)
			}
		}
	}
	if err := j.CloseStdin(s.context(t)); err != nil {
		t.Fatal(err)
	}
	for i, f := range followers {
		if rest, err := f.ReadString('\n'); rest != "" || err != io.EOF {
			t.Errorf("follower %d ends with %q, %v", i, rest, err)
		}
	}
}

// testJobOutlives goes on with a job from another provider, as after a restart.
func (s *suite) testJobOutlives(t *testing.T) {
	sb := s.create(t, nil)
	first, err := s.second(t).Attach(s.context(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	name := "job-" + rand.Text()
	if _, err := first.StartJob(s.context(t), &sandbox.JobConfig{Name: name, Args: []string{"sh", "-c", `echo begun; read -r x; echo "got $x"`}, Stdin: true}); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := sb.Job(s.context(t), name)
	if err != nil {
		t.Fatal(err)
	}
	st, err := other.Status(s.context(t))
	if err != nil || st.Exit != nil || st.Lost {
		t.Fatalf("status %+v, %v", st, err)
	}
	if err := other.WriteStdin(s.context(t), []byte("it\n")); err != nil {
		t.Fatal(err)
	}
	equal(t, "output", s.all(t, other, 0), "begun\ngot it\n")
	equal(t, "exit", s.exited(t, other), sandbox.Exit{})
}

func (s *suite) testJobExit(t *testing.T) {
	for script, want := range map[string]sandbox.Exit{
		"exit 0": {}, "exit 7": {Code: 7}, "exit 127": {Code: 127}, "kill -9 $$": {Code: -1, Signal: sandbox.SIGKILL}, "kill -15 $$": {Code: -1, Signal: sandbox.SIGTERM},
	} {
		j := s.job(t, s.shared, script, nil)
		equal(t, "exit of "+script, s.exited(t, j), want)
		st, err := j.Status(s.context(t))
		if err != nil || st.Exit == nil || *st.Exit != want || st.Lost {
			t.Errorf("%s: status %+v, %v", script, st, err)
		}
		if err := j.Signal(s.context(t), sandbox.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: a signal after the end: %v", script, err)
		}
	}
}

func (s *suite) testJobStartErrors(t *testing.T) {
	ctx := s.context(t)
	name := "job-" + rand.Text()
	for want, cfg := range map[error]*sandbox.JobConfig{
		exec.ErrNotFound:   {Name: name, Args: []string{"no-such-program"}},
		fs.ErrPermission:   {Name: name, Args: []string{"/"}},
		fs.ErrNotExist:     {Name: name, Args: []string{"true"}, Dir: "/no/such/dir"},
		sandbox.ErrInvalid: {Name: "../x", Args: []string{"true"}},
	} {
		if _, err := s.shared.StartJob(ctx, cfg); !errors.Is(err, want) {
			t.Errorf("%+v: %v, want %v", cfg, err, want)
		}
	}
	for _, cfg := range []*sandbox.JobConfig{nil, {Name: name}, {Args: []string{"true"}}} {
		if _, err := s.shared.StartJob(ctx, cfg); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	if _, err := s.shared.Job(ctx, name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a job that was never started: %v", err)
	}
	j := s.job(t, s.shared, "true", nil)
	if _, err := s.shared.StartJob(ctx, &sandbox.JobConfig{Name: j.Name(), Args: []string{"true"}}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
}

func (s *suite) testJobNameRace(t *testing.T) {
	const racers = 5
	errs := make([]error, racers)
	name := "job-" + rand.Text()
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			_, errs[i] = s.shared.StartJob(s.context(t), &sandbox.JobConfig{Name: name, Args: []string{"sh", "-c", "echo ran"}})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	j, err := s.shared.Job(s.context(t), name)
	if won != 1 || err != nil {
		t.Fatalf("%d started it, %v", won, err)
	}
	equal(t, "output", s.all(t, j, 0), "ran\n")
	if err := j.Remove(s.context(t)); err != nil {
		t.Error(err)
	}
}

func (s *suite) testJobStdin(t *testing.T) {
	j := s.job(t, s.shared, `wc -c`, func(c *sandbox.JobConfig) { c.Stdin = true })
	for _, size := range []int{1, 0, 5000, 300_000} { // more than a pipe holds
		if err := j.WriteStdin(s.context(t), bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := j.CloseStdin(s.context(t)); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "count", strings.TrimSpace(s.all(t, j, 0)), "305001")
	if err := j.WriteStdin(s.context(t), []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	j = s.job(t, s.shared, `exec sleep 600`, func(c *sandbox.JobConfig) { c.Stdin = true })
	if err := j.CloseStdin(s.context(t)); err != nil {
		t.Fatal(err)
	}
	if err := j.WriteStdin(s.context(t), []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after CloseStdin: %v", err)
	}
}

func (s *suite) testJobWholeWrites(t *testing.T) {
	j := s.job(t, s.shared, `sort | uniq -c`, func(c *sandbox.JobConfig) { c.Stdin = true })
	var wg sync.WaitGroup
	for _, letter := range []string{"a", "b", "c"} {
		wg.Go(func() {
			other, err := s.shared.Job(s.context(t), j.Name()) // as in another process
			for range 3 {
				if err != nil {
					t.Error(err)
					return
				}
				err = other.WriteStdin(s.context(t), []byte(strings.Repeat(letter, 20_000)+"\n"))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := j.CloseStdin(s.context(t)); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(s.all(t, j, 0))
	if len(got) != 6 || got[0] != "3" || got[2] != "3" || got[4] != "3" || len(got[1]) != 20_000 {
		t.Errorf("the lines were %d words", len(got))
	}
}

func (s *suite) testJobNoStdin(t *testing.T) {
	j := s.job(t, s.shared, `wc -c`, nil)
	equal(t, "count", strings.TrimSpace(s.all(t, j, 0)), "0")
	if err := j.WriteStdin(s.context(t), []byte("x")); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("WriteStdin: %v", err)
	}
	if err := j.CloseStdin(s.context(t)); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("CloseStdin: %v", err)
	}
}

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

func (s *suite) testJobEnv(t *testing.T) {
	dir, _ := s.dir(t)
	j := s.job(t, s.shared, `printf '%s|' "$A" "$vivarium_dir" "$vivarium_stat" "$PWD"; umask; env | grep -c '^vivarium'`, func(c *sandbox.JobConfig) {
		c.Env, c.Dir = []string{"A=it's \"a\"\nline", "A=last"}, dir
	})
	want := "last|||" + dir + "|" + s.sh(t, s.shared, "umask") + "\n0\n"
	equal(t, "output", s.all(t, j, 0), want)
}

func (s *suite) testJobMerge(t *testing.T) {
	j := s.job(t, s.shared, `echo one; echo two >&2; echo three`, func(c *sandbox.JobConfig) { c.Merge = true })
	equal(t, "output", s.all(t, j, 0), "one\ntwo\nthree\n")
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

// testJobInput looks at what is kept of a job for one who takes it over.
func (s *suite) testJobInput(t *testing.T) {
	ctx := s.context(t)
	note := []byte("a note\nwith \x00\xff\n")
	j := s.job(t, s.shared, `while read -r x; do echo "$x"; done; read -r x <none`, func(c *sandbox.JobConfig) { c.Stdin, c.Note = true, note })
	other, err := s.shared.Job(ctx, j.Name())
	if err != nil {
		t.Fatal(err)
	}
	read := func(what string, f func(context.Context) ([]byte, error), want string) {
		t.Helper()
		if got, err := f(ctx); string(got) != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
	}
	read("note", other.Note, string(note))
	read("input", other.Input, "")
	for _, line := range []string{"one\n", "two\n"} {
		if err := j.WriteStdin(ctx, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	read("input", other.Input, "one\ntwo\n")
	if err := j.CloseStdin(ctx); err != nil {
		t.Fatal(err)
	}
	s.exited(t, j)
	if err := j.WriteStdin(ctx, []byte("three\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("WriteStdin after the end: %v", err)
	}
	read("input", other.Input, "one\ntwo\n")
	equal(t, "output", s.all(t, j, 0), "one\ntwo\n")
	if err := j.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	for _, f := range []func(context.Context) ([]byte, error){other.Note, other.Input} {
		if _, err := f(ctx); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Remove: %v", err)
		}
	}
	plain := s.job(t, s.shared, "true", nil)
	read("note of one without", plain.Note, "")
	read("input of one without", plain.Input, "")
}

// testJobWriteOutlives gives up on a write that waits for the command to read: what was
// taken comes all the same, and before what is written after it.
func (s *suite) testJobWriteOutlives(t *testing.T) {
	const n = 200_000 // more than a pipe holds
	ctx := s.context(t)
	s.sh(t, s.shared, `rm -f begin; mkfifo begin`)
	j := s.job(t, s.shared, `read -r x <begin; cat`, func(c *sandbox.JobConfig) { c.Stdin = true })
	bounded, cancel := context.WithCancel(ctx)
	given := make(chan error, 1)
	go func() { given <- j.WriteStdin(bounded, bytes.Repeat([]byte("x"), n)) }()
	for {
		in, err := j.Input(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(in) == n {
			break
		}
	}
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("WriteStdin: %v", err)
	}
	s.sh(t, s.shared, `echo >begin`)
	if err := errors.Join(j.WriteStdin(ctx, []byte("\nafter it\n")), j.CloseStdin(ctx)); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("x", n) + "\nafter it\n"
	if got := s.all(t, j, 0); got != want {
		t.Errorf("%d bytes came, want %d", len(got), len(want))
	}
	if in, err := j.Input(ctx); string(in) != want || err != nil {
		t.Errorf("%d bytes are said to be sent, %v", len(in), err)
	}
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
