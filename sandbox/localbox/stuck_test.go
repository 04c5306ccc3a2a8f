//go:build linux

package localbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
)

// TestLeavesNothingWhenTheHelperIsStuck: it neither accepts nor answers.
func TestLeavesNothingWhenTheHelperIsStuck(t *testing.T) {
	for name, terminate := range map[string]func(context.Context, *sandbox.Sandbox, *sandbox.Provider) error{
		"by the handle": func(ctx context.Context, sb *sandbox.Sandbox, _ *sandbox.Provider) error { return sb.Terminate(ctx) },
		"without one": func(ctx context.Context, sb *sandbox.Sandbox, fresh *sandbox.Provider) error {
			return localbox.Terminate(ctx, fresh, sb.ID())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stateDir(t)
			sb, mark := marked(t, open(t, dir))
			stop(t, helperOf(t))
			fresh := open(t, dir)
			localbox.SetPatience(fresh, 50*time.Millisecond)
			_, err := fresh.Attach(context.Background(), sb.ID())
			if !errors.Is(err, sandbox.ErrUnavailable) || !strings.Contains(err.Error(), "does not answer") {
				t.Errorf("attach: %v", err)
			}
			if err := terminate(testContext(t), sb, fresh); err != nil {
				t.Fatal(err)
			}
			info, err := sb.Wait(testContext(t))
			if err != nil || info.End != sandbox.EndCancelled {
				t.Errorf("it ended as %+v, %v", info, err)
			}
			nothingLeft(t, dir, sb.ID(), mark)
			if err := localbox.Terminate(testContext(t), fresh, sb.ID()); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
	if err := localbox.Terminate(testContext(t), open(t, stateDir(t)), "box-00000000000000000000"); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
}

// stop stops a process and returns once every thread of it stands still: the
// signal is only the beginning of that.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the helper stands still", func() bool {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			return false
		}
		for _, name := range stats {
			text, err := os.ReadFile(name)
			_, after, found := strings.Cut(string(text), ") ")
			if err != nil || !found || !strings.HasPrefix(after, "T") {
				return false
			}
		}
		return true
	})
}

// TestHostileLimits: what the inside does to process 1's limits and priority
// keeps nobody from using the sandbox, nor from ending it.
func TestHostileLimits(t *testing.T) {
	dir := stateDir(t)
	sb := create(t, open(t, dir), nil)
	if sb.Command(testContext(t), "sh", "-c", "command -v prlimit renice chrt ionice nice").Run() != nil {
		t.Skip("prlimit, renice, chrt, ionice or nice are absent")
	}
	for _, attack := range []string{"prlimit --pid 1 --nofile=8:8", "renice -n 19 -p 1", "renice -n 19 -u $(id -u)", "chrt -i -p 0 1", "ionice -c 3 -p 1"} {
		out, err := sb.Command(testContext(t), "sh", "-c", attack).CombinedOutput()
		if err == nil {
			t.Errorf("%s: %s", attack, out)
		}
	}
	if out := sh(t, sb, "prlimit --nofile=64:64 sh -c 'ulimit -n' && expr $(nice -n 5 nice) - $(nice)"); out != "64\n5" {
		t.Errorf("limits and priority of one's own: %q", out)
	}
	again, err := open(t, dir).Attach(testContext(t), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	end(t, again)
}

// TestLeftoversKeepNobody: what cannot be removed of one sandbox that was lost
// keeps nobody from opening the others, nor from seeing how it ended.
func TestLeftoversKeepNobody(t *testing.T) {
	dir := stateDir(t)
	d, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	stuck, torn := state.NewID(), state.NewID()
	for _, id := range []string{stuck, torn} {
		alive, err := d.Reserve(id, "")
		if err != nil {
			t.Fatal(err)
		}
		alive.Close()
	}
	group := filepath.Join(t.TempDir(), "group") // no cgroup: it is never removed
	if err := os.MkdirAll(filepath.Join(group, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	info := driver.Info{ID: stuck, State: driver.StateRunning, CreatedAt: time.Now()}
	if err := d.Write(&state.Record{Info: info, Cgroups: []string{group}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Box(torn), "info.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := localbox.OpenPlain(&localbox.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var ids []string
	for info, err := range p.List(testContext(t), &sandbox.ListOptions{Ended: true}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	if len(ids) != 1 || ids[0] != stuck {
		t.Errorf("listed %v, want %s", ids, stuck)
	}
	if _, err := p.Attach(testContext(t), stuck); !errors.Is(err, sandbox.ErrEnded) {
		t.Errorf("attach: %v", err)
	}
	if err := localbox.Terminate(testContext(t), p, stuck); err == nil {
		t.Error("terminate did not tell of what is left")
	}
}
