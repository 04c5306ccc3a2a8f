package sandboxtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

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
		{"OOM", s.testJobOOM},
		{"Lost", s.testJobLost},
		{"ContextAndCloseEndReads", s.testJobContext},
		{"EnvAndDir", s.testJobEnv},
		{"Merge", s.testJobMerge},
		{"RemoveAndList", s.testJobRemove},
		{"SandboxEndsIt", s.testJobSandboxEnds},
		{"FullDisk", s.testJobFullDisk},
		{"FilesGone", s.testJobFilesGone},
		{"KillsNoStranger", s.testJobNoStranger},
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
