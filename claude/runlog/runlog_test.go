package runlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/claude/runlog/runlogtest"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	runlogtest.Exercise(t, func(*testing.T) runlog.Store { return new(runlog.Memory) }, nil)
}

func TestDir(t *testing.T) {
	dirs := map[runlog.Store]string{}
	runlogtest.Exercise(t, func(t *testing.T) runlog.Store {
		s, dir := openDir(t)
		dirs[s] = dir
		return s
	}, func(t *testing.T, s runlog.Store) runlog.Store {
		other, err := runlog.Open(dirs[s])
		if err != nil {
			t.Fatal(err)
		}
		return other
	})
}

func openDir(t testing.TB) (*runlog.Dir, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "runs")
	s, err := runlog.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// contents is what a log gives.
func contents(t testing.TB, s runlog.Store) (text string, lines int64, err error) {
	t.Helper()
	for line, err := range s.Read(t.Context(), "r", 1) {
		if err != nil {
			return text, lines, err
		}
		text += string(line.Data)
		lines = line.N
	}
	return text, lines, nil
}

// written makes a log of three lines and its end, and gives its file.
func written(t testing.TB) (file []byte, ends []int) {
	t.Helper()
	s, dir := openDir(t)
	w, err := s.Write(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	size := func() {
		info, err := os.Stat(filepath.Join(dir, "r.log"))
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(info.Size()))
	}
	size()
	for _, line := range []string{"one\n", "the second\n", "three\n"} {
		if err := w.Append(t.Context(), [][]byte{[]byte(line)}); err != nil {
			t.Fatal(err)
		}
		size()
	}
	if err := errors.Join(w.Finish(t.Context(), runlog.End{Reason: claude.EndCompleted}), w.Close()); err != nil {
		t.Fatal(err)
	}
	size()
	file, err = os.ReadFile(filepath.Join(dir, "r.log"))
	if err != nil {
		t.Fatal(err)
	}
	return file, ends
}

// TestTornAtEveryByte cuts a log where a crash could: whole lines stay, nothing else
// is served, and the next writer goes on.
func TestTornAtEveryByte(t *testing.T) {
	file, ends := written(t)
	lines := []string{"one\n", "the second\n", "three\n"}
	for size := range len(file) + 1 {
		s, dir := openDir(t)
		if err := os.WriteFile(filepath.Join(dir, "r.log"), file[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		whole := 0
		for whole < 3 && ends[whole+1] <= size {
			whole++
		}
		want := strings.Join(lines[:whole], "")
		if got, n, err := contents(t, s); got != want || n != int64(whole) || err != nil {
			t.Fatalf("%d bytes give %q, %v, want %q", size, got, err, want)
		}
		w, err := s.Write(t.Context(), "r")
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if info := w.Info(); info.Lines != int64(whole) || info.Bytes != int64(len(want)) || (info.End != nil) != (size == len(file)) {
			t.Fatalf("%d bytes: %+v", size, info)
		}
		err = w.Append(t.Context(), [][]byte{[]byte("more\n")})
		if ended := size == len(file); ended != errors.Is(err, runlog.ErrEnded) || !ended && err != nil {
			t.Fatalf("%d bytes: Append: %v", size, err)
		} else if !ended {
			want += "more\n"
		}
		if got, _, err := contents(t, s); got != want || err != nil {
			t.Fatalf("%d bytes, and one line more: %q, %v", size, got, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamageIsNamed flips every bit: what is served is a beginning of what was
// written, and damage that is not at the end is never cut off.
func TestDamageIsNamed(t *testing.T) {
	file, ends := written(t)
	const all = "one\nthe second\nthree\n"
	for bit := range len(file) * 8 {
		bad := bytes.Clone(file)
		bad[bit/8] ^= 1 << (bit % 8)
		s, dir := openDir(t)
		name := filepath.Join(dir, "r.log")
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := contents(t, s)
		if !strings.HasPrefix(all, got) {
			t.Fatalf("bit %d: served %q", bit, got)
		}
		inside := bit/8 < ends[3] // there are whole records behind it
		if salt := bit/8 >= 16 && bit/8 < ends[0]; salt {
			inside = false // no record is whole then
		}
		if inside != errors.Is(err, runlog.ErrCorrupt) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		w, err := s.Write(t.Context(), "r")
		if inside {
			if !errors.Is(err, runlog.ErrCorrupt) {
				t.Fatalf("bit %d: Write: %v", bit, err)
			}
			if after, err := os.ReadFile(name); !bytes.Equal(after, bad) {
				t.Fatalf("bit %d: the file was changed, %v", bit, err)
			}
			continue
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
	}
}

func FuzzFile(f *testing.F) {
	file, _ := written(f)
	f.Add(file)
	f.Add(file[:len(file)-3])
	f.Add([]byte("vivarium-runlog1"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, dir := openDir(t)
		if err := os.WriteFile(filepath.Join(dir, "r.log"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		before, lines, err := contents(t, s)
		if err != nil && !errors.Is(err, runlog.ErrCorrupt) {
			t.Fatal(err)
		}
		w, err := s.Write(t.Context(), "r")
		if errors.Is(err, runlog.ErrCorrupt) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if w.Info().Lines != lines {
			t.Fatalf("%d lines, and %d for the writer", lines, w.Info().Lines)
		}
		if err := w.Append(t.Context(), [][]byte{[]byte("x\n")}); errors.Is(err, runlog.ErrEnded) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if after, _, err := contents(t, s); after != before+"x\n" || err != nil {
			t.Fatalf("%q became %q, %v", before, after, err)
		}
	})
}

// TestRecord takes a run over twice, in the middle of a line too.
func TestRecord(t *testing.T) {
	sb := sandboxtest.New(t, nil)
	job, err := sb.StartJob(t.Context(), &sandbox.JobConfig{Name: "run", Stdin: true, Args: []string{"sh", "-c",
		`echo one; printf 'half'; read -r x; echo " $x"; read -r x; seq 20000; printf 'the end'; exit 4`}})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := openDir(t)
	want := "one\nhalf whole\n"
	for i := 1; i <= 20000; i++ {
		want += fmt.Sprintln(i)
	}
	want += "the end"
	made, err := s.Write(t.Context(), "r") // so that there is something to follow
	if err == nil {
		err = made.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan string, 1)
	go func() {
		var b strings.Builder
		for line, err := range s.Follow(t.Context(), "r", 1) {
			if err != nil {
				t.Error(err)
			}
			b.Write(line.Data)
		}
		all <- b.String()
	}()
	for _, input := range []string{"whole\n", "go\n"} {
		w, err := s.Write(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		ctx, kill := context.WithCancel(t.Context())
		done := make(chan error, 1)
		before := w.Info().Lines
		go func() {
			_, err := runlog.Record(ctx, w, job)
			done <- err
		}()
		if before == 0 {
			for _, err := range s.Follow(t.Context(), "r", 1) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
		}
		kill()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("Record: %v", err)
		}
		if err := errors.Join(w.Close(), job.WriteStdin(t.Context(), []byte(input))); err != nil {
			t.Fatal(err)
		}
	}
	w, err := s.Write(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 2 { // the second adds nothing
		exit, err := runlog.Record(t.Context(), w, job)
		if err != nil || exit.Code != 4 {
			t.Fatal(exit, err)
		}
	}
	if err := w.Finish(t.Context(), runlog.End{Reason: claude.EndAgentError}); err != nil {
		t.Fatal(err)
	}
	if got := <-all; got != want {
		t.Errorf("the follower got %d bytes, want %d", len(got), len(want))
	}
	r, err := job.Output(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if journal, err := io.ReadAll(r); string(journal) != want || err != nil {
		t.Errorf("the journal has %d bytes, %v", len(journal), err)
	}
}

// TestJournal writes a journal in pieces of every size, and again from its first byte on
// into a log that has a part of it.
func TestJournal(t *testing.T) {
	const all = "one\n\nthree is longer\nfour\nfive has no newline"
	for size := 1; size <= len(all); size++ {
		for had := range len(all) { // how much was written before, to another Journal
			s := new(runlog.Memory)
			for _, part := range []string{all[:had], all} {
				w, err := s.Write(t.Context(), "r")
				if err != nil {
					t.Fatal(err)
				}
				j := runlog.NewJournal(t.Context(), w)
				for begin := 0; begin < len(part); begin += size {
					piece := []byte(part[begin:min(begin+size, len(part))])
					if n, err := j.Write(piece); n != len(piece) || err != nil {
						t.Fatal(n, err)
					}
					clear(piece) // which it must not have kept
				}
				if len(part) == len(all) {
					err = j.Flush()
				}
				if err := errors.Join(err, w.Close()); err != nil {
					t.Fatal(err)
				}
			}
			if got, n, err := contents(t, s); got != all || n != 5 || err != nil {
				t.Fatalf("pieces of %d after %d: %q, %d lines, %v", size, had, got, n, err)
			}
		}
	}
	s := new(runlog.Memory)
	w, err := s.Write(t.Context(), "r")
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	j := runlog.NewJournal(t.Context(), w)
	for range 2 {
		if _, err := j.Write([]byte("x\n")); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Write to a log that is closed: %v", err)
		}
	}
}

// TestFollowersShareAFile has many wait for one log, without a file or a buffer each.
func TestFollowersShareAFile(t *testing.T) {
	s, dir := openDir(t)
	w, err := s.Write(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Append(t.Context(), [][]byte{[]byte("one\n")}); err != nil {
		t.Fatal(err)
	}
	const n = 200
	var had, ended sync.WaitGroup
	had.Add(n)
	for range n {
		ended.Go(func() {
			for line, err := range s.Follow(t.Context(), "r", 1) {
				if err != nil {
					t.Error(err)
				}
				if line.N == 1 {
					had.Done()
				}
			}
		})
	}
	had.Wait()
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, fd := range open {
		if name, _ := os.Readlink(fd); name == filepath.Join(dir, "r.log") {
			count++
		}
	}
	if len(open) > 0 && count != 2 {
		t.Errorf("it is open %d times, not by the writer and once for those who follow", count)
	}
	if err := w.Finish(t.Context(), runlog.End{Reason: claude.EndCompleted}); err != nil {
		t.Fatal(err)
	}
	ended.Wait()
}

// A run's lines are copied to a store while others follow it; whoever comes later,
// or lost the connection, goes on from the number of its last line.
func Example() {
	ctx := context.Background()
	store := new(runlog.Memory) // or runlog.Open(dir)
	w, err := store.Write(ctx, "run-1")
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	// runlog.Record(ctx, w, job) does this with what a sandbox.Job writes.
	if err := w.Append(ctx, [][]byte{[]byte("one\n"), []byte("two\n")}); err != nil {
		log.Fatal(err)
	}
	if err := w.Finish(ctx, runlog.End{Reason: claude.EndCompleted}); err != nil {
		log.Fatal(err)
	}
	for line, err := range store.Follow(ctx, "run-1", 2) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s", line.N, line.Data)
	}
	// Output: 2 two
}
