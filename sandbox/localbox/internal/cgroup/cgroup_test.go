//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseVersion1(t *testing.T) {
	mounts := `30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
31 25 0:27 / /cg/memory rw,nosuid - cgroup cgroup rw,memory
32 25 0:28 /docker/1 /cg/cpu\040acct rw - cgroup cgroup rw,cpu,cpuacct
33 25 0:29 / /cg/pids rw - cgroup cgroup rw,pids
short line
`
	h := parse(mounts, "8:pids:/\n4:memory:/nowhere/else\n2:cpu,cpuacct:/docker/1\n0::/\nbroken\n")
	for c, want := range map[string]string{Memory: "/cg/memory", CPU: "/cg/cpu acct", Pids: "/cg/pids"} {
		if h.v1[c] != want {
			t.Errorf("%s below %q, want %q", c, h.v1[c], want)
		}
	}
	if !slices.Equal(h.v2, []string{"/sys/fs/cgroup/unified"}) {
		t.Errorf("version 2: %q", h.v2)
	}
}

// fakeV2 is a directory that looks like a cgroup of version 2.
func fakeV2(t *testing.T, dir, controllers, handedDown string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": handedDown, "cgroup.procs": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDelegated: the group of the session holds processes and hands nothing
// down; the one above it, delegated by systemd, does.
func TestDelegated(t *testing.T) {
	top := t.TempDir()
	slice := filepath.Join(top, "user.slice", "app.slice")
	scope := filepath.Join(slice, "shell.scope")
	fakeV2(t, top, "cpu memory pids", "memory pids")
	fakeV2(t, filepath.Dir(slice), "memory pids", "memory pids")
	fakeV2(t, slice, "memory pids", "memory pids")
	fakeV2(t, scope, "", "")
	h := parse("30 25 0:26 / "+top+" rw - cgroup2 cgroup2 rw\n", "0::/user.slice/app.slice/shell.scope\n")
	if len(h.v2) != 4 || h.v2[0] != scope || h.v2[3] != top {
		t.Fatalf("directories to try: %q", h.v2)
	}
	dir, have := h.createV2("box", []string{Memory, Pids, CPU})
	if dir != filepath.Join(slice, "box") || !slices.Equal(have, []string{Memory, Pids}) {
		t.Errorf("created %s with %v", dir, have)
	}
	if left, _ := filepath.Glob(filepath.Join(top, "box")); len(left) > 0 {
		t.Error("a group that was not used is left")
	}
}

func TestMissingIsTold(t *testing.T) {
	g := (&Hierarchy{}).Create("box", Limits{Memory: 1, Pids: 2})
	if len(g.Missing) != 2 || g.Missing[Memory] == "" || g.Missing[CPU] != "" || len(g.Dirs) != 0 || g.OOM != "" {
		t.Errorf("%+v", g)
	}
}

// TestReal makes a group where this user may.
func TestReal(t *testing.T) {
	h, err := Find()
	if err != nil {
		t.Skip(err)
	}
	g := h.Create("vivarium-test-"+strings.ToLower(filepath.Base(t.TempDir())+filepath.Base(filepath.Dir(t.TempDir()))),
		Limits{Memory: 64 << 20, Pids: 10, CPU: 0.5})
	t.Cleanup(func() {
		if err := Remove(g.Dirs, 0); err != nil {
			t.Error(err)
		}
	})
	if len(g.Dirs) == 0 {
		t.Skipf("no cgroup can be made here: %v", g.Missing)
	}
	for _, dir := range g.Dirs {
		for name, want := range map[string]string{"pids.max": "10", "memory.max": "67108864", "memory.limit_in_bytes": "67108864"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil && strings.TrimSpace(string(text)) != want {
				t.Errorf("%s/%s is %s, want %s", dir, name, text, want)
			}
		}
	}
}

// TestCandidates: what Create makes is among what was named before.
func TestCandidates(t *testing.T) {
	top := t.TempDir()
	scope := filepath.Join(top, "shell.scope")
	fakeV2(t, top, "memory", "memory")
	fakeV2(t, scope, "", "")
	v1 := t.TempDir()
	h := parse("30 25 0:26 / "+top+" rw - cgroup2 cgroup2 rw\n31 25 0:27 / "+v1+" rw - cgroup cgroup rw,pids,cpu\n",
		"2:pids,cpu:/\n0::/shell.scope\n")
	want := []string{filepath.Join(scope, "box"), filepath.Join(top, "box"), filepath.Join(v1, "box")}
	if got := h.Candidates("box"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if dir, _ := h.createV2("box", []string{Memory}); !slices.Contains(want, dir) {
		t.Errorf("%s was not among them", dir)
	}
	if err := Remove(want, 0); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(top, "box")); len(left) > 0 {
		t.Error("it is left")
	}
}
