//go:build unix

package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
)

func openDir(t *testing.T) *state.Dir {
	t.Helper()
	d, err := state.Open(filepath.Join(t.TempDir(), strings.Repeat("deep/", 40)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func running(id, name string) *state.Record {
	return &state.Record{Info: driver.Info{ID: id, Name: name, State: driver.StateRunning, CreatedAt: time.Now()}}
}

func TestNamesAreUniqueAmongTheLiving(t *testing.T) {
	d := openDir(t)
	first, second := state.NewID(), state.NewID()
	alive, err := d.Reserve(first, "name")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reserve(second, "name"); !errors.Is(err, driver.ErrNameInUse) {
		t.Errorf("a second of that name: %v", err)
	}
	if _, err := d.Lookup("name"); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("found before it was ready: %v", err)
	}
	if err := d.Write(running(first, "name")); err != nil {
		t.Fatal(err)
	}
	if id, err := d.Lookup("name"); id != first || err != nil {
		t.Errorf("lookup: %s, %v", id, err)
	}
	alive.Close() // as when its processes are gone
	alive, err = d.Reserve(second, "name")
	if err != nil {
		t.Fatalf("the name of a dead one: %v", err)
	}
	defer alive.Close()
	if err := d.Release(first, "name"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reserve(state.NewID(), "name"); !errors.Is(err, driver.ErrNameInUse) {
		t.Errorf("somebody else's release freed the name: %v", err)
	}
}

func TestSweep(t *testing.T) {
	d := openDir(t)
	lost, unfinished, living, old := state.NewID(), state.NewID(), state.NewID(), state.NewID()
	locks := make(map[string]*os.File)
	for _, id := range []string{lost, unfinished, living, old} {
		f, err := d.Reserve(id, "")
		if err != nil {
			t.Fatal(err)
		}
		locks[id] = f
	}
	ended := running(old, "")
	ended.Info.State, ended.Info.EndedAt = driver.StateEnded, time.Now().Add(-2*state.Keep)
	for _, r := range []*state.Record{running(lost, ""), running(living, ""), ended} {
		if err := d.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{lost, unfinished, old} {
		locks[id].Close()
	}
	defer locks[living].Close()
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	rec, err := d.Check(lost)
	if err != nil || rec.Info.State != driver.StateEnded || rec.Info.End != driver.EndProviderLost {
		t.Errorf("the lost one: %+v, %v", rec, err)
	}
	if rec, err := d.Check(living); err != nil || rec.Info.State != driver.StateRunning {
		t.Errorf("the living one: %+v, %v", rec, err)
	}
	for _, id := range []string{unfinished, old} {
		if _, err := os.Stat(d.Box(id)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", id, err)
		}
	}
}

func TestIDsLeadNowhereElse(t *testing.T) {
	d := openDir(t)
	for _, id := range []string{"", ".", "..", "../names", "box-", "/etc", "box-../../../../../../etc", strings.Repeat("a", 300), "box-\x00"} {
		if _, err := d.Read(id); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("read %q: %v", id, err)
		}
		if _, err := d.Snapshot(id); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("snapshot %q: %v", id, err)
		}
	}
	if _, err := d.Snapshot(state.NewSnapshotID()); err != nil {
		t.Error(err)
	}
}

func TestSocketsInDeepDirectories(t *testing.T) {
	d := openDir(t)
	id := state.NewID()
	alive, err := d.Reserve(id, "")
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	l, err := d.Listen(id)
	if err != nil {
		t.Skipf("a socket's path is limited here: %v", err)
	}
	defer l.Close()
	c, err := d.Dial(id)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestDirectoryOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(dir); err == nil {
		t.Error("a directory that everybody can write to was accepted")
	}
}

// TestUnreadableRecords: what a machine that lost power left of a record keeps
// nobody from the other sandboxes.
func TestUnreadableRecords(t *testing.T) {
	d := openDir(t)
	for name, text := range map[string]string{"empty": "", "torn": `{"Info":{"ID":"box-`, "zeros": strings.Repeat("\x00", 512)} {
		for _, look := range []string{"sweep", "check"} {
			id := state.NewID()
			alive, err := d.Reserve(id, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d.Box(id), "info.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Check(id); err == nil || errors.Is(err, driver.ErrNotFound) {
				t.Errorf("%s, of a living one: %v", name, err)
			}
			alive.Close()
			if look == "sweep" {
				err = d.Sweep()
			} else if _, err = d.Check(id); errors.Is(err, driver.ErrNotFound) {
				err = nil
			}
			if err != nil {
				t.Errorf("%s, %s: %v", name, look, err)
			}
			if _, err := os.Stat(d.Box(id)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, %s: it is left: %v", name, look, err)
			}
		}
	}
}

// TestSweepGoesOn: one sandbox that cannot be removed keeps nobody from those
// after it, and is known to have ended.
func TestSweepGoesOn(t *testing.T) {
	d := openDir(t)
	ids := []string{state.NewID(), state.NewID(), state.NewID()}
	stuck := filepath.Join(t.TempDir(), "group") // not empty and no cgroup: rmdir never works
	if err := os.MkdirAll(filepath.Join(stuck, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		alive, err := d.Reserve(id, "")
		if err != nil {
			t.Fatal(err)
		}
		rec := running(id, "")
		if i == 1 {
			rec.Cgroups = []string{stuck}
		}
		if err := d.Write(rec); err != nil {
			t.Fatal(err)
		}
		alive.Close()
	}
	err := d.Sweep()
	if err == nil {
		t.Skip("this system has no control groups")
	}
	for _, id := range ids {
		rec, cerr := d.Check(id)
		if rec == nil || rec.Info.State != driver.StateEnded {
			t.Errorf("after %v: %+v, %v", err, rec, cerr)
		}
		if (cerr != nil) != (id == ids[1]) {
			t.Errorf("%s: %v", id, cerr)
		}
	}
	if err := os.RemoveAll(stuck); err != nil {
		t.Fatal(err)
	}
	if err := d.Sweep(); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if _, err := d.Check(ids[1]); err != nil {
		t.Error(err)
	}
}

// TestSweepFindsGroups: a maker that was killed once it had made groups leaves none.
func TestSweepFindsGroups(t *testing.T) {
	d := openDir(t)
	id := state.NewID()
	alive, err := d.Reserve(id, "")
	if err != nil {
		t.Fatal(err)
	}
	groups := t.TempDir()
	made, never := filepath.Join(groups, "made"), filepath.Join(groups, "never", "made")
	if err := d.NoteCgroups(id, []string{never, made}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(made, 0o700); err != nil {
		t.Fatal(err)
	}
	alive.Close()
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(made); err == nil && runtime.GOOS == "linux" {
		t.Error("the group is left")
	}
}
