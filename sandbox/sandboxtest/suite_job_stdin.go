package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
)

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
