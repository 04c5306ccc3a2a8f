package localbox_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
)

// hostRoot makes a sandbox with this machine's programs as a root of its own.
func hostRoot(t *testing.T) *sandbox.Sandbox {
	t.Helper()
	return create(t, open(t, stateDir(t)), &sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
}

// shell runs a script and returns what it wrote, without the last newline.
func shell(t *testing.T, sb *sandbox.Sandbox, script string) string {
	t.Helper()
	out, err := sb.Command(testContext(t), "sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

func TestHostRoot(t *testing.T) {
	sb := hostRoot(t)
	root := os.Geteuid() == 0
	for _, c := range []struct {
		script, want string
		root         bool // only root has users to map
	}{
		{"id -u; pwd; echo $HOME", "0\n/workspace\n/root", false},
		{"echo hi > /usr/local/bin/x; rm /usr/bin/env; ! test -e /usr/bin/env; cat /usr/local/bin/x", "hi", false},
		{"cp /bin/true /bin/mine; mv /bin/mine /bin/false; /bin/false", "", false},
		{"chmod 600 /etc/ssl/openssl.cnf; stat -c %a /etc/ssl/openssl.cnf", "600", false},
		{"touch /opt/f; chown 5:7 /opt/f; stat -c %u:%g /opt/f", "5:7", true},
		{"stat -c %u $(readlink -f /usr/bin/sh) /usr/lib/os-release | sort -u", "65534", false},
		{"ls -d /home/* /root/* /var/lib/* 2>/dev/null || echo nothing", "nothing", false},
		{"echo more >> /etc/hosts; tail -n 1 /etc/hosts; cat /etc/hostname", "more\nsandbox", false},
		{"sed -n 's/^NoNewPrivs:.//p' /proc/self/status", "1", false},
	} {
		if c.root && !root {
			continue
		}
		if got := shell(t, sb, c.script); got != c.want {
			t.Errorf("%s: %q, want %q", c.script, got, c.want)
		}
	}
}

// from makes a sandbox that starts from an image.
func from(t *testing.T, p *sandbox.Provider, id string) *sandbox.Sandbox {
	t.Helper()
	return create(t, p, &sandbox.Config{Image: sandbox.Image{Snapshot: id}})
}

func TestImageSnapshot(t *testing.T) {
	p := open(t, stateDir(t))
	sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
	owner := "0:0"
	if os.Geteuid() == 0 {
		owner = "12:34"
	}
	shell(t, sb, `
mkdir -p /opt/a /srv/link; echo data > /opt/a/file; ln -s ../../opt/a/file /srv/link/to; ln /opt/a/file /opt/a/second
chown `+owner+` /opt/a; chmod 2750 /opt/a; mkfifo /opt/fifo
rm -r /etc/alternatives; mkdir /etc/alternatives; echo mine > /etc/alternatives/only
rm /etc/services /usr/bin/env; echo tool > /usr/bin/tool; chmod +x /usr/bin/tool
echo host > /etc/hosts`)
	first, err := sb.Snapshot(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	shell(t, sb, "rm /opt/a/second; echo later > /opt/a/later")
	check := `stat -c '%u:%g %a' /opt/a; cat /srv/link/to; stat -c %h /opt/a/file; test -p /opt/fifo; ls -A /etc/alternatives
test ! -e /etc/services; test ! -e /usr/bin/env; test -x /usr/bin/tool; head -n 1 /etc/hosts; ls /opt/a`
	want := owner + " 2750\ndata\n2\nonly\n127.0.0.1 localhost sandbox\nfile\nsecond"
	again := from(t, p, first.Snapshot)
	if got := shell(t, again, check); got != want {
		t.Errorf("from the snapshot: %q, want %q", got, want)
	}
	shell(t, again, "rm -r /etc/alternatives /opt/a; mkdir -m 700 /opt/a; echo third > /opt/a/third; echo back > /etc/services")
	second, err := again.Snapshot(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	third := from(t, p, second.Snapshot)
	if got := shell(t, third, "ls /opt/a; cat /etc/services; stat -c %a /opt/a; test ! -e /etc/alternatives; test -x /usr/bin/tool"); got != "third\nback\n700" {
		t.Errorf("from a snapshot of that: %q", got)
	}
}

func TestSnapshotDir(t *testing.T) {
	p := open(t, stateDir(t))
	sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
	shell(t, sb, "mkdir -p /srv/tree/below; echo x > /srv/tree/below/file; rm /usr/bin/env")
	d, ok := sb.Driver().(driver.DirSnapshotter)
	if !ok {
		t.Fatal("it cannot save a directory")
	}
	id, err := d.SnapshotDir(testContext(t), "/srv/tree")
	if err != nil {
		t.Fatal(err)
	}
	fsys := create(t, p, &sandbox.Config{Image: sandbox.Image{Snapshot: id}, Dir: "/"}).FS(testContext(t))
	info, err := fsys.Stat("below")
	if err != nil || !info.IsDir() {
		t.Errorf("below: %v, %v", info, err)
	}
	if text, err := fsys.ReadFile("below/file"); err != nil || string(text) != "x\n" {
		t.Errorf("below/file: %q, %v", text, err)
	}
	if _, err := d.SnapshotDir(testContext(t), "/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := d.SnapshotDir(testContext(t), "/proc"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("/proc: %v", err)
	}
}

// TestWritableMount: what is written inside belongs here to the source's owner.
func TestWritableMount(t *testing.T) {
	p := open(t, stateDir(t))
	for name, image := range map[string]string{"default": "", "image": localbox.HostRoot} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			owner := os.Geteuid()
			if owner == 0 {
				if name == "default" {
					owner = 4321
				}
				if err := os.Chown(dir, owner, owner); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "here"), []byte("here"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Lchown(filepath.Join(dir, "here"), owner, owner); err != nil {
				t.Fatal(err)
			}
			sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: image},
				Mounts: []sandbox.Mount{{Source: dir, Target: "/data", Writable: true}}})
			if got := shell(t, sb, "cat /data/here; echo more > /data/here; mkdir /data/new; echo x > /data/new/file"); got != "here" {
				t.Errorf("read %q", got)
			}
			for file, want := range map[string]string{"here": "more\n", "new/file": "x\n"} {
				text, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil || string(text) != want {
					t.Errorf("%s: %q, %v", file, text, err)
				}
				info, err := os.Stat(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != owner || int(st.Gid) != owner && owner != os.Geteuid() {
					t.Errorf("%s belongs to %d:%d, want %d", file, st.Uid, st.Gid, owner)
				}
			}
		})
	}
}

// TestOwnedMount: what only the source's owner may read can be read inside, and
// not written to.
func TestOwnedMount(t *testing.T) {
	p := open(t, stateDir(t))
	for name, image := range map[string]string{"default": "", "image": localbox.HostRoot} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "here"), []byte("here"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, m := range []sandbox.Mount{{Owned: true}, {}} {
				m.Source, m.Target = dir, "/data"
				sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: image}, Mounts: []sandbox.Mount{m}})
				// An ordinary user owns its own files in any case.
				want := "here"
				if !m.Owned && os.Geteuid() == 0 {
					want = ""
				}
				if got := shell(t, sb, "exec 2>/dev/null; cat /data/here || true; (echo more >> /data/here) || true"); got != want {
					t.Errorf("Owned %t: read %q, want %q", m.Owned, got, want)
				}
			}
			if text, _ := os.ReadFile(filepath.Join(dir, "here")); string(text) != "here" {
				t.Errorf("the file is %q", text)
			}
		})
	}
}

func TestMountImage(t *testing.T) {
	p := open(t, stateDir(t))
	sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
	ctx := testContext(t)
	if os.Geteuid() != 0 {
		if err := sb.MountImage(ctx, "/mnt/a", sandbox.Image{}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("as an ordinary user: %v", err)
		}
		return
	}
	shell(t, sb, "mkdir -p /srv/tree/below; echo x > /srv/tree/below/file; echo tool > /usr/bin/tool")
	tree, err := sb.SnapshotDir(ctx, "/srv/tree")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := sb.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, image := range map[string]string{"default": "", "image": localbox.HostRoot} {
		t.Run(name, func(t *testing.T) {
			sb := create(t, p, &sandbox.Config{Image: sandbox.Image{Base: image}})
			at := "/workspace/at"
			shell(t, sb, "mkdir -p "+at+"; echo under > "+at+"/under")
			mount := func(image sandbox.Image) {
				t.Helper()
				if err := sb.MountImage(ctx, at, image); err != nil {
					t.Fatal(err)
				}
			}
			check := func(script, want string) {
				t.Helper()
				if got := shell(t, sb, "cd "+at+"; "+script); got != want {
					t.Errorf("%s: %q, want %q", script, got, want)
				}
			}
			mount(tree)
			check("ls; cat below/file; echo changed > below/file; rm -r below; ls; echo more > more; cat more", "below\nx\nmore")
			mount(sandbox.Image{})
			check("ls; echo empty > file; cat file", "empty")
			mount(whole)
			check("ls; cat usr/bin/tool srv/tree/below/file; test -d usr/lib; echo y > usr/local/y", "bin\ndev\netc\nhome\nlib\nlib64\nmedia\nmnt\nopt\nproc\nroot\nrun\nsbin\nsrv\nsys\ntmp\nusr\nvar\nworkspace\ntool\nx")
			for _, want := range []string{"file", "more", "under"} {
				if err := sb.UnmountImage(ctx, at); err != nil {
					t.Fatal(err)
				}
				check("ls", want)
			}
			for path, want := range map[string]error{at: sandbox.ErrInvalid, "/workspace": sandbox.ErrInvalid, "/": sandbox.ErrInvalid,
				"/proc": fs.ErrPermission, "/nowhere": fs.ErrNotExist} {
				if err := sb.UnmountImage(ctx, path); !errors.Is(err, want) {
					t.Errorf("unmount %s: %v, want %v", path, err, want)
				}
			}
			for path, want := range map[string]error{"/": sandbox.ErrInvalid, "/proc": fs.ErrPermission, "/dev/x": fs.ErrPermission} {
				if err := sb.MountImage(ctx, path, tree); !errors.Is(err, want) {
					t.Errorf("mount on %s: %v, want %v", path, err, want)
				}
			}
			if err := sb.MountImage(ctx, at, sandbox.Image{Snapshot: "img-00000000000000000000"}); !errors.Is(err, sandbox.ErrNotFound) {
				t.Errorf("an unknown image: %v", err)
			}
		})
	}
}

// TestImageLeavesNothing: neither a sandbox nor its provider leaves a mount, a
// directory or a process.
func TestImageLeavesNothing(t *testing.T) {
	dir := stateDir(t)
	before := readFile(t, "/proc/self/mountinfo")
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		t.Skipf("sandboxes are not possible here: %v", err)
	}
	for range 3 {
		sb, err := p.Create(testContext(t), &sandbox.Config{Image: sandbox.Image{Base: localbox.HostRoot}})
		if err != nil {
			t.Fatal(err)
		}
		if err := sb.MountImage(testContext(t), "/mnt/x", sandbox.Image{}); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		if err := sb.Terminate(testContext(t)); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if after := readFile(t, "/proc/self/mountinfo"); string(after) != string(before) {
		t.Errorf("mounts were\n%s\nand are\n%s", before, after)
	}
	left, err := os.ReadDir(filepath.Join(dir, "scratch"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
