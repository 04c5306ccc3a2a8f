// Package runlogtest checks that a [runlog.Store] keeps its promises.
package runlogtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
)

// Exercise runs every test against a store. open gives an empty one, and again is
// called for the same place as another process would see it; nil: the store is of one
// process.
func Exercise(t *testing.T, open func(t *testing.T) runlog.Store, again func(t *testing.T, s runlog.Store) runlog.Store) {
	if again == nil {
		again = func(_ *testing.T, s runlog.Store) runlog.Store { return s }
	}
	for name, test := range map[string]func(*testing.T, runlog.Store, runlog.Store){
		"LinesAreNumbered": lines, "OddLines": odd, "OneWriter": oneWriter, "GoesOn": goesOn, "Finished": finished,
		"FollowersOfARun": followers, "FollowingEnds": followingEnds, "ListAndDelete": listDelete, "BadNames": badNames, "Absent": absent, "LeftEarly": leftEarly,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			test(t, s, again(t, s))
		})
	}
}

func write(t *testing.T, s runlog.Store, run string) runlog.Writer {
	t.Helper()
	w, err := s.Write(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func add(t *testing.T, w runlog.Writer, lines ...string) {
	t.Helper()
	var data [][]byte
	for _, line := range lines {
		data = append(data, []byte(line))
	}
	if err := w.Append(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	for _, d := range data { // which the writer must not have kept
		clear(d)
	}
}

func read(t *testing.T, s runlog.Store, run string, from int64) string {
	t.Helper()
	var b strings.Builder
	next := max(from, 1)
	for line, err := range s.Read(t.Context(), run, from) {
		if err != nil {
			t.Fatal(err)
		}
		if line.N != next {
			t.Fatalf("line %d where %d belongs", line.N, next)
		}
		next++
		b.Write(line.Data)
	}
	return b.String()
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func lines(t *testing.T, s, other runlog.Store) {
	w := write(t, s, "r")
	add(t, w, "one\n", "two\n")
	add(t, w)
	add(t, w, "three\n")
	for from, want := range map[int64]string{-1: "one\ntwo\nthree\n", 0: "one\ntwo\nthree\n", 2: "two\nthree\n", 3: "three\n", 4: "", 1 << 40: ""} {
		equal(t, fmt.Sprint("from ", from), read(t, s, "r", from), want)
		equal(t, fmt.Sprint("elsewhere, from ", from), read(t, other, "r", from), want)
	}
	info, err := other.Stat(t.Context(), "r")
	if err != nil || info.Run != "r" || info.Lines != 3 || info.Bytes != 14 || info.End != nil {
		t.Errorf("Stat: %+v, %v", info, err)
	}
	if i := w.Info(); i != *info {
		t.Errorf("Info: %+v", i)
	}
}

func odd(t *testing.T, s, other runlog.Store) {
	long := strings.Repeat("x", 3<<20) + "\n"
	want := []string{"\n", "\x00\x01\x02\n", "vivarium-runlog1\n", long, "\xff\xfe\n", "no newline"}
	add(t, write(t, s, "r"), want...)
	equal(t, "all", read(t, other, "r", 1), strings.Join(want, ""))
}

func oneWriter(t *testing.T, s, other runlog.Store) {
	w := write(t, s, "r")
	for _, store := range []runlog.Store{s, other} {
		_, err := store.Write(t.Context(), "r")
		is(t, "a second writer", err, runlog.ErrBusy)
		is(t, "Delete", store.Delete(t.Context(), "r"), runlog.ErrBusy)
	}
	write(t, s, "another")
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	is(t, "Append after Close", w.Append(t.Context(), [][]byte{[]byte("x\n")}), fs.ErrClosed)
	add(t, write(t, other, "r"), "x\n")
}

func goesOn(t *testing.T, s, other runlog.Store) {
	want := ""
	for i := range 5 {
		store := s
		if i%2 == 1 {
			store = other
		}
		w := write(t, store, "r")
		if info := w.Info(); info.Lines != int64(2*i) || info.Bytes != int64(len(want)) {
			t.Errorf("the log stands at %+v", info)
		}
		one, two := fmt.Sprintf("%d\n", i), fmt.Sprintf("again %d\n", i)
		add(t, w, one, two)
		want += one + two
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "all", read(t, s, "r", 1), want)
}

func finished(t *testing.T, s, other runlog.Store) {
	w := write(t, s, "r")
	add(t, w, "one\n")
	if err := w.Finish(t.Context(), runlog.End{Reason: claude.EndBudget, Detail: "5 dollars"}); err != nil {
		t.Fatal(err)
	}
	is(t, "Append", w.Append(t.Context(), [][]byte{[]byte("x\n")}), runlog.ErrEnded)
	is(t, "Finish again", w.Finish(t.Context(), runlog.End{}), runlog.ErrEnded)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := other.Stat(t.Context(), "r")
	if err != nil || info.End == nil || info.End.Reason != claude.EndBudget || info.End.Detail != "5 dollars" || time.Since(info.End.Time) > time.Hour {
		t.Fatalf("Stat: %+v, %v", info, err)
	}
	again := write(t, other, "r")
	is(t, "Append by another", again.Append(t.Context(), [][]byte{[]byte("x\n")}), runlog.ErrEnded)
	equal(t, "all", read(t, s, "r", 1), "one\n")
}

// followers begin at different lines and times, and all get the same.
func followers(t *testing.T, s, other runlog.Store) {
	const n = 300
	w := write(t, s, "r")
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]string{}
	follow := func(i int, store runlog.Store, from int64) {
		wg.Go(func() {
			var b strings.Builder
			for line, err := range store.Follow(t.Context(), "r", from) {
				if err != nil {
					t.Error(err)
					return
				}
				if line.N != from {
					t.Errorf("follower %d got line %d, not %d", i, line.N, from)
					return
				}
				from++
				b.Write(line.Data)
			}
			mu.Lock()
			defer mu.Unlock()
			got[i] = b.String()
		})
	}
	want := make([]string, 0, n)
	for i := range n {
		if i%30 == 0 {
			store := s
			if i%60 == 0 {
				store = other
			}
			follow(i, store, int64(i+1))
		}
		line := fmt.Sprintf("line %d\n", i)
		want = append(want, line)
		add(t, w, line)
	}
	if err := w.Finish(t.Context(), runlog.End{Reason: claude.EndCompleted}); err != nil {
		t.Fatal(err)
	}
	follow(n, s, 1)
	follow(n+1, other, n+1)
	wg.Wait()
	for i := 0; i < n; i += 30 {
		equal(t, fmt.Sprint("follower ", i), got[i], strings.Join(want[i:], ""))
	}
	equal(t, "one who comes late", got[n], strings.Join(want, ""))
	equal(t, "one for whom there is nothing", got[n+1], "")
}

// followingEnds ends followers by their context, which get its cause, and by the log's
// deletion.
func followingEnds(t *testing.T, s, other runlog.Store) {
	w := write(t, s, "r")
	add(t, w, "one\n")
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	had, ended := make(chan int64, 4), make(chan error, 4)
	follow := func(ctx context.Context, store runlog.Store) {
		for line, err := range store.Follow(ctx, "r", 1) {
			if err != nil {
				ended <- err
				return
			}
			had <- line.N
		}
		ended <- nil
	}
	for _, store := range []runlog.Store{s, other} {
		go follow(ctx, store)
		go follow(t.Context(), store)
	}
	for range 4 { // then all of them wait, or are about to
		if n := <-had; n != 1 {
			t.Errorf("line %d where 1 belongs", n)
		}
	}
	cancel(why)
	for range 2 {
		is(t, "the end of one whose context ended", <-ended, why)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Delete(t.Context(), "r"); err != nil {
		t.Fatal(err)
	}
	again := write(t, other, "r") // another of its name is not taken for it
	add(t, again, "two\n")
	for line, err := range s.Follow(t.Context(), "r", 1) {
		is(t, "Follow", err, nil)
		equal(t, "the first line of the new log", string(line.Data), "two\n")
		break
	}
	for range 2 {
		is(t, "the end of one whose log was deleted", <-ended, fs.ErrNotExist)
	}
}

func listDelete(t *testing.T, s, other runlog.Store) {
	for _, run := range []string{"b", "a", "c-1.x_y"} {
		w := write(t, s, run)
		add(t, w, run+"\n")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	list := func() string {
		var all []string
		for info, err := range other.List(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%s:%d", info.Run, info.Bytes))
		}
		return strings.Join(all, " ")
	}
	equal(t, "List", list(), "a:2 b:2 c-1.x_y:8")
	for range 2 {
		if err := other.Delete(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "List after Delete", list(), "a:2 c-1.x_y:8")
	w := write(t, other, "b")
	if w.Info().Lines != 0 {
		t.Errorf("a log that was deleted has %d lines", w.Info().Lines)
	}
}

func badNames(t *testing.T, s, _ runlog.Store) {
	for _, run := range []string{"", ".", "..", "a/b", "../a", ".a", "a b", "ä", strings.Repeat("a", 101), "a\x00", "-a"} {
		_, err := s.Write(t.Context(), run)
		is(t, "Write "+run, err, fs.ErrInvalid)
		_, err = s.Stat(t.Context(), run)
		is(t, "Stat "+run, err, fs.ErrInvalid)
		is(t, "Delete "+run, s.Delete(t.Context(), run), fs.ErrInvalid)
		for _, err := range s.Read(t.Context(), run, 1) {
			is(t, "Read "+run, err, fs.ErrInvalid)
		}
		for _, err := range s.Follow(t.Context(), run, 1) {
			is(t, "Follow "+run, err, fs.ErrInvalid)
		}
	}
	write(t, s, strings.Repeat("a", 100))
}

func absent(t *testing.T, s, _ runlog.Store) {
	_, err := s.Stat(t.Context(), "none")
	is(t, "Stat", err, fs.ErrNotExist)
	n := 0
	for _, err := range s.Follow(t.Context(), "none", 1) {
		n++
		is(t, "Follow", err, fs.ErrNotExist)
	}
	if n != 1 {
		t.Errorf("%d errors", n)
	}
}

func leftEarly(t *testing.T, s, other runlog.Store) {
	w := write(t, s, "r")
	add(t, w, "one\n", "two\n")
	for _, err := range other.Read(t.Context(), "r", 1) {
		is(t, "Read", err, nil)
		break
	}
	for _, err := range other.Follow(t.Context(), "r", 1) {
		is(t, "Follow", err, nil)
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is(t, "Append", w.Append(ctx, [][]byte{[]byte("x\n")}), context.Canceled)
	equal(t, "all", read(t, s, "r", 1), "one\ntwo\n")
}
