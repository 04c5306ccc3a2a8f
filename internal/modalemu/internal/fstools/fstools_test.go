package fstools_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/fstools"
	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is a sandbox, and a shell in it.
type place struct {
	t   *testing.T
	ctx context.Context
	box driver.Sandbox
}

func newPlace(t *testing.T) *place {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	box, err := sandboxtest.NewProvider(t, nil).Driver().Create(ctx, &driver.Config{Timeout: 10 * time.Minute, Disk: 16 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(box.Terminate(context.Background()), box.Close()); err != nil {
			t.Error(err)
		}
	})
	return &place{t, ctx, box}
}

// sh runs a script, and gives what it printed.
func (p *place) sh(script string) string {
	p.t.Helper()
	e := &driver.Exec{Args: []string{"/bin/sh", "-ec", script}, Stdout: true, Merge: true}
	cmd, err := process.Start(p.ctx, p.box, e, p.t.TempDir(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer cmd.Close()
	out := p.all(&cmd.Stdout)
	if exit, err := cmd.Wait(p.ctx); err != nil || exit != (process.Exit{}) {
		p.t.Fatalf("%s: %+v %v %s", script, exit, err, out)
	}
	return out
}

func (p *place) all(o *process.Output) string {
	p.t.Helper()
	var b bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		n, err := o.ReadAt(p.ctx, buf, int64(b.Len()))
		b.Write(buf[:n])
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			p.t.Error(err)
			return b.String()
		}
	}
}

// start starts the tool; the command is JSON.
func (p *place) start(command string) *process.Process {
	tool := process.Run(fstools.Program(p.box, []string{command}), p.t.TempDir(), nil)
	p.t.Cleanup(func() {
		if err := tool.Close(); err != nil {
			p.t.Error(err)
		}
	})
	return tool
}

// run runs the tool to its end. kind is of the error object that the client
// would parse, "" for success.
func (p *place) run(command, stdin string) (stdout, kind string) {
	p.t.Helper()
	tool := p.start(command)
	if err := tool.Stdin.Write(p.ctx, 0, []byte(stdin), true); err != nil && !errors.Is(err, process.ErrStdinClosed) {
		p.t.Fatal(err)
	}
	exit, err := tool.Wait(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, stderr := p.all(&tool.Stdout), p.all(&tool.Stderr)
	if exit.Code == 0 {
		if stderr != "" {
			p.t.Errorf("%s: success, and stderr %q", command, stderr)
		}
		return stdout, ""
	}
	var failure struct {
		Kind    string `json:"error_kind"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(stderr)), &failure); err != nil || failure.Message == "" {
		p.t.Errorf("%s: stderr %q: %v", command, stderr, err)
	}
	return stdout, failure.Kind
}

func onPath(what, name string) string {
	b, _ := json.Marshal(map[string]any{what: map[string]any{"path": name}})
	return string(b)
}

func TestFailures(t *testing.T) {
	p := newPlace(t)
	p.sh("cd /tmp; mkdir dir full; touch full/x; echo text > file; truncate -s 6G large; mkfifo pipe; ln -s loop loop")
	for _, tt := range []struct{ command, want string }{
		{onPath("Stat", "/tmp/none"), "NotFound"},
		{onPath("Stat", "/tmp/file/x"), "NotDirectory"},
		{onPath("ListFiles", "/tmp/none"), "NotFound"},
		{onPath("ListFiles", "/tmp/file"), "IsFile"},
		{onPath("ListFiles", "/tmp/file/x"), "NotDirectory"},
		{onPath("ReadFile", "/tmp/none"), "NotFound"},
		{onPath("ReadFile", "/tmp/dir"), "IsDirectory"},
		{onPath("ReadFile", "/tmp/large"), "FileTooLarge"},
		{onPath("ReadFile", "/tmp/pipe"), "Io"},
		{onPath("WriteFile", "/tmp/dir"), "IsDirectory"},
		{onPath("WriteFile", "/tmp/file/x"), "NotDirectory"},
		{onPath("WriteFile", "/tmp/file/x/y"), "NotDirectory"},
		{onPath("WriteFile", "/tmp/loop"), "Io"},
		{onPath("WriteFile", "/usr/x"), "PermissionDenied"},
		{onPath("MakeDirectory", "/tmp/none/x"), "NotFound"},
		{onPath("MakeDirectory", "/tmp/dir"), "PathAlreadyExists"},
		{onPath("MakeDirectory", "/tmp/file"), "PathAlreadyExists"},
		{`{"MakeDirectory":{"path":"/tmp/file","parents":true}}`, "PathAlreadyExists"},
		{`{"MakeDirectory":{"path":"/tmp/file/x","parents":true}}`, "NotDirectory"},
		{`{"MakeDirectory":{"path":"/usr/x","parents":true}}`, "PermissionDenied"},
		{onPath("Remove", "/tmp/none"), "NotFound"},
		{onPath("Remove", "/tmp/full"), "DirectoryNotEmpty"},
		{`{"Remove":{"path":"/tmp/none","recursive":true}}`, "NotFound"},
		{`{"Remove":{"path":"/usr/bin","recursive":true}}`, "PermissionDenied"},
		{onPath("Watch", "/tmp/none"), "NotFound"},
	} {
		if _, got := p.run(tt.command, ""); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.command, got, tt.want)
		}
	}
	if got := p.sh("cd /tmp; ls -A; cat file"); got != "dir\nfile\nfull\nlarge\nloop\npipe\ntext\n" {
		t.Errorf("what failed left this:\n%s", got)
	}
}

func TestUsage(t *testing.T) {
	p := newPlace(t)
	for _, args := range [][]string{nil, {"a", "b"}, {"{"}, {"{}"}, {`{"Chmod":{"path":"/"}}`}, {`{"Stat":{"path":"relative"}}`}, {`{"Stat":{}}`}} {
		tool := process.Run(fstools.Program(p.box, args), t.TempDir(), nil)
		if exit, err := tool.Wait(p.ctx); err != nil || exit.Code != 2 {
			t.Errorf("%q: %+v %v", args, exit, err)
		}
		if p.all(&tool.Stderr) == "" {
			t.Errorf("%q: nothing on stderr", args)
		}
		if err := tool.Close(); err != nil {
			t.Error(err)
		}
	}
}

type info struct {
	Name, Path, Type, Permissions, Owner, Group string
	Size                                        int64
	Mode                                        uint32
	Modified                                    float64 `json:"modified_time"`
	Target                                      *string `json:"symlink_target"`
}

func TestStatSaysWhatTheShellSays(t *testing.T) {
	p := newPlace(t)
	p.sh("cd /tmp; mkdir -m 1751 dir; echo text > file; chmod 4640 file; ln -s ../tmp/none link; mkfifo pipe")
	types := map[string]string{"dir": "directory", "file": "file", "link": "symlink", "pipe": "file"}
	for name, typ := range types {
		out, kind := p.run(onPath("Stat", "/tmp//./"+name), "")
		if kind != "" {
			t.Fatal(kind)
		}
		var got info
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		want := strings.Fields(p.sh("stat -c '%a %U %G %Y %f %s' /tmp/" + name))
		mode, _ := strconv.ParseUint(want[4], 16, 32)
		perm, _ := strconv.ParseUint(want[0], 8, 32)
		mtime, _ := strconv.ParseFloat(want[3], 64)
		gotPerm, _ := strconv.ParseUint(got.Permissions, 8, 32)
		if gotPerm != perm || len(got.Permissions) != 4 || got.Owner != want[1] || got.Group != want[2] ||
			uint64(got.Mode) != mode || got.Modified < mtime || got.Modified >= mtime+1 {
			t.Errorf("%s: %+v, the shell says %v", name, got, want)
		}
		if got.Name != name || got.Path != "/tmp/"+name || got.Type != typ || (got.Target != nil) != (typ == "symlink") {
			t.Errorf("%s: %+v", name, got)
		}
		if typ == "symlink" && *got.Target != "../tmp/none" {
			t.Errorf("target %q", *got.Target)
		}
		if typ == "file" && name == "file" && got.Size != 5 {
			t.Errorf("size %d", got.Size)
		}
	}
}

func TestList(t *testing.T) {
	p := newPlace(t)
	p.sh("mkdir -p /tmp/a/sub /tmp/empty; cd /tmp/a; touch z .hidden 'with space'; ln -s none dangling; ln -s sub to-dir; ln -s /tmp/a /tmp/link")
	for _, dir := range []string{"/tmp/a", "/tmp/link"} {
		out, kind := p.run(onPath("ListFiles", dir), "")
		var got []info
		if err := json.Unmarshal([]byte(out), &got); kind != "" || err != nil {
			t.Fatal(kind, err)
		}
		var names []string
		for _, i := range got {
			names = append(names, i.Name+" "+i.Type)
			if i.Path != dir+"/"+i.Name {
				t.Errorf("path %q", i.Path)
			}
		}
		want := ".hidden file,dangling symlink,sub directory,to-dir symlink,with space file,z file"
		if s := strings.Join(names, ","); s != want {
			t.Errorf("%s: %s", dir, s)
		}
	}
	if out, kind := p.run(onPath("ListFiles", "/tmp/empty"), ""); strings.TrimSpace(out) != "[]" || kind != "" {
		t.Errorf("empty: %q %s", out, kind)
	}
}

func TestWriteAndRead(t *testing.T) {
	p := newPlace(t)
	large := strings.Repeat("0123456789abcde\n", 200_000)
	for _, content := range []string{"", "text\n", "\x00\xff\n", large, "shorter"} {
		if out, kind := p.run(onPath("WriteFile", "/tmp/new/sub/file"), content); out != "" || kind != "" {
			t.Fatal(out, kind)
		}
		if got, kind := p.run(onPath("ReadFile", "/tmp/new/sub/file"), ""); got != content || kind != "" {
			t.Errorf("%d bytes %s, want %d", len(got), kind, len(content))
		}
	}
	if got := p.sh("ls -A /tmp/new/sub; stat -c %a /tmp/new/sub/file"); got != "file\n644\n" {
		t.Errorf("left behind: %s", got)
	}
}

// A file that is written keeps what it is: its permissions, and the links to it.
func TestWriteKeeps(t *testing.T) {
	p := newPlace(t)
	p.sh("cd /tmp; echo old > file; chmod 750 file; ln -s file link; ln -s new dangling; mkdir d; ln -s ../file d/link")
	for _, name := range []string{"link", "dangling", "d/link"} {
		if _, kind := p.run(onPath("WriteFile", "/tmp/"+name), "by "+name); kind != "" {
			t.Fatal(kind)
		}
	}
	got := p.sh("cd /tmp; cat file; echo; cat new; echo; stat -c %a file; readlink link dangling d/link; ls -A")
	want := "by d/link\nby dangling\n750\nfile\nnew\n../file\nd\ndangling\nfile\nlink\nnew\n"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// Until stdin has ended the old content is there; when it never ends the new one
// never is.
func TestWriteIsAllOrNothing(t *testing.T) {
	p := newPlace(t)
	p.sh("echo old > /tmp/file")
	tool := p.start(onPath("WriteFile", "/tmp/file"))
	if err := tool.Stdin.Write(p.ctx, 0, bytes.Repeat([]byte("new"), 1<<20), false); err != nil {
		t.Fatal(err)
	}
	if got := p.sh("cat /tmp/file"); got != "old\n" {
		t.Errorf("half written: %d bytes", len(got))
	}
	if err := tool.Kill(p.ctx); err != nil {
		t.Fatal(err)
	}
	if exit, err := tool.Wait(p.ctx); err != nil || exit.Signal != driver.SIGKILL {
		t.Errorf("%+v %v", exit, err)
	}
	if got := p.sh("cd /tmp; ls -A; cat file"); got != "file\nold\n" {
		t.Errorf("killed: %s", got)
	}
}

func TestMakeAndRemove(t *testing.T) {
	p := newPlace(t)
	for _, command := range []string{
		`{"MakeDirectory":{"path":"/tmp/a/b/c","parents":true}}`,
		`{"MakeDirectory":{"path":"/tmp/a/b/c","parents":true}}`,
		`{"MakeDirectory":{"path":"/tmp/a/d","parents":false}}`,
		`{"WriteFile":{"path":"/tmp/a/file"}}`,
		`{"Remove":{"path":"/tmp/a/d","recursive":false}}`,
		`{"Remove":{"path":"/tmp/a/file","recursive":false}}`,
	} {
		if _, kind := p.run(command, ""); kind != "" {
			t.Errorf("%s: %s", command, kind)
		}
	}
	if got := p.sh("find /tmp/a; ln -s a /tmp/link"); got != "/tmp/a\n/tmp/a/b\n/tmp/a/b/c\n" {
		t.Error(got)
	}
	for _, name := range []string{"link", "a"} {
		if _, kind := p.run(`{"Remove":{"path":"/tmp/`+name+`","recursive":true}}`, ""); kind != "" {
			t.Errorf("%s: %s", name, kind)
		}
		if name == "link" && p.sh("ls /tmp") != "a\n" {
			t.Error("removing a link removed more")
		}
	}
}

func TestSandboxHasEnded(t *testing.T) {
	p := newPlace(t)
	if err := p.box.Terminate(p.ctx); err != nil {
		t.Fatal(err)
	}
	tool := p.start(onPath("Stat", "/tmp"))
	if exit, err := tool.Wait(p.ctx); err != nil || exit.Signal != driver.SIGKILL {
		t.Errorf("%+v %v", exit, err)
	}
}
