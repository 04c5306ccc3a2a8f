package torture

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
)

// figures are what must be 0, and how many runs have come to their end.
type figures struct {
	mu                               sync.Mutex
	lost, doubled, orphans, finished int
}

// same counts the lines that are missing, and those that are there too often.
func (t *torture) same(what, got, want string) { t.compare(what, got, want, true) }

// sameSet is same in any order.
func (t *torture) sameSet(what, got, want string) { t.compare(what, got, want, false) }

func (t *torture) compare(what, got, want string, ordered bool) {
	if got == want {
		return
	}
	times := map[string]int{}
	for line := range strings.Lines(want) {
		times[line]++
	}
	for line := range strings.Lines(got) {
		times[line]--
	}
	lost, doubled := 0, 0
	for _, n := range times {
		lost += max(n, 0)
		doubled += max(-n, 0)
	}
	if lost+doubled == 0 {
		if !ordered {
			return
		}
		lost = 1
	}
	t.mu.Lock()
	t.lost += lost
	t.doubled += doubled
	t.mu.Unlock()
	t.Errorf("%s: %d bytes, want %d: %d lines are missing, %d too many", what, len(got), len(want), lost, doubled)
}

// orphan tells of one.
func (t *torture) orphan(format string, args ...any) {
	t.mu.Lock()
	t.orphans++
	t.mu.Unlock()
	t.Errorf(format, args...)
}

// settle looks at the records of a run whose sandbox is gone, when nothing is cut any more.
func (r *run) settle(ctx context.Context, logs runlog.Store) error {
	t := r.b.torture
	for i := range r.followers {
		for _, fault := range r.followers[i].faults {
			t.Errorf("%s, follower %d: %s", r.key, i, fault)
		}
	}
	var log strings.Builder
	for line, err := range logs.Read(ctx, path.Base(r.path), 1) {
		if err != nil {
			return err
		}
		log.Write(line.Data)
	}
	t.same(r.key+", the log", log.String(), r.journal)
	info, err := logs.Stat(ctx, path.Base(r.path))
	if err != nil {
		return err
	}
	var rec record
	if err := r.b.c.ask(ctx, &request{method: http.MethodGet, path: r.path}, &rec); err != nil {
		return err
	}
	lines := strings.Count(r.journal, "\n")
	if rec.State != "ended" || rec.End != string(claude.EndCompleted) || rec.Events != lines+1 || rec.SessionID == "" ||
		info.End == nil || info.End.Reason != claude.EndCompleted || info.Lines != int64(lines) {
		return fmt.Errorf("of %d lines its record is %+v, its log's %+v", lines, rec, info)
	}
	t.finished++
	return nil
}

// leftOver looks for what nobody has: sandboxes without a record, and those that were made
// for a client which never heard of them. When these are deleted, nothing is left.
func (t *torture) leftOver(ctx context.Context) error {
	listed, err := t.c.sandboxes(ctx)
	if err != nil {
		return err
	}
	recorded := map[string]bool{}
	for _, r := range listed {
		recorded[r.ID] = true
	}
	for info, err := range t.p.List(ctx, nil) {
		if err != nil {
			return err
		}
		if !recorded[info.Name] {
			t.orphan("sandbox %s has no record that it runs", info.Name)
		}
	}
	for _, r := range listed {
		t.Errorf("%s %s was made for nobody", r.Name, r.ID)
		t.mu.Lock()
		t.doubled++
		t.mu.Unlock()
		if err := t.c.ask(ctx, &request{method: http.MethodDelete, path: "/sandbox/" + r.ID}, nil); err != nil {
			return err
		}
	}
	for info, err := range t.p.List(ctx, nil) {
		if err != nil {
			return err
		}
		if recorded[info.Name] {
			t.orphan("sandbox %s is left", info.Name)
		}
	}
	return nil
}

// counted wants the ledger to have each run once, and none that goes on.
func (t *torture) counted(ctx context.Context) error {
	var usage struct {
		Now  struct{ Runs int }
		Days []struct{ Runs int }
	}
	if err := t.c.ask(ctx, &request{method: http.MethodGet, path: "/usage"}, &usage); err != nil {
		return err
	}
	n := 0
	for _, day := range usage.Days {
		n += day.Runs
	}
	if n != *runs || usage.Now.Runs != 0 {
		t.mu.Lock()
		t.lost += max(*runs-n, 0)
		t.doubled += max(n-*runs, 0)
		t.mu.Unlock()
		t.Errorf("the ledger has %d runs, and %d that go on", n, usage.Now.Runs)
	}
	return nil
}

// remains wants nothing of a sandbox in localbox's directory but records of what has ended,
// and no process.
func (t *torture) remains(dir string) {
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, name)
		depth := strings.Count(rel, "/")
		switch {
		case err != nil:
			return err
		case d.Type().IsRegular(), d.IsDir() && (depth == 0 || depth == 1 && strings.HasPrefix(rel, "boxes/")):
			return nil
		}
		t.orphan("%s of a sandbox is left", rel)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, process := range processes(dir) {
		t.orphan("a process is left: %s", process)
	}
}

// processes gives the processes, besides this one, that have to do with a directory.
func processes(dir string) (list []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		if pid, err := strconv.Atoi(filepath.Base(proc)); err != nil || pid == os.Getpid() {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(proc, "cmdline")) // it may be gone
		env, _ := os.ReadFile(filepath.Join(proc, "environ"))
		if bytes.Contains(args, []byte(dir)) || bytes.Contains(env, []byte(dir)) {
			list = append(list, string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		}
	}
	return list
}
