package modalemu_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"

	modal "github.com/modal-labs/modal-client/go"
	"google.golang.org/grpc/codes"

	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// noise is bytes of which no piece looks like another.
func noise(n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	sum := sha256.Sum256(nil)
	for len(b) < n {
		sum = sha256.Sum256(sum[:])
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func TestStreamsThatBreak(t *testing.T) {
	p := newPlace(t, nil)
	want := noise(20 << 20)
	if err := p.sb.Filesystem.WriteBytes(p.ctx, want, "/tmp/noise", nil); err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{-1, 1, 1000, 1 << 20} {
		remove := p.server.Inject(modaltest.Fault{Method: "TaskExecStdioRead", DropAfter: after, Times: 5})
		cp := p.exec(nil, "cat", "/tmp/noise")
		got, err := io.ReadAll(cp.Stdout)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("stdout that breaks after %d: %d bytes, the same %v, %v", after, len(got), bytes.Equal(got, want), err)
		}
		if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
			t.Error(code, err)
		}
		remove()
		remove = p.server.Inject(modaltest.Fault{Method: "TaskExecStdinWriteStream", DropAfter: after, Times: 5})
		if err := p.sb.Filesystem.WriteBytes(p.ctx, want, "/tmp/copy", nil); err != nil {
			t.Errorf("an upload that breaks after %d: %v", after, err)
		}
		remove()
		if got := p.sh("cmp /tmp/noise /tmp/copy && rm /tmp/copy; ls -A /tmp"); got != "noise\n" {
			t.Errorf("an upload that breaks after %d: %s", after, got)
		}
	}
}

func TestConnectionsThatAreCut(t *testing.T) {
	p := newPlace(t, nil)
	want := noise(30 << 20)
	local := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(local, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.sb.Filesystem.CopyFromLocal(p.ctx, local, "/tmp/noise", nil); err != nil {
		t.Fatal(err)
	}
	cp := p.exec(nil, "/bin/sh", "-c", "cat; cat /tmp/noise >&2")
	var got bytes.Buffer
	for i := 0; i < len(want); i += 1 << 20 {
		if _, err := cp.Stdin.Write(want[i : i+1<<20]); err != nil {
			t.Fatal(err)
		}
		if i%(7<<20) == 0 {
			p.server.CutConnections()
		}
		if _, err := io.CopyN(&got, cp.Stdout, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := cp.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	p.server.CutConnections()
	if rest, err := io.ReadAll(cp.Stdout); len(rest) > 0 || err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("stdout: %d bytes and %d, %v", got.Len(), len(rest), err)
	}
	if got, err := io.ReadAll(cp.Stderr); err != nil || !bytes.Equal(got, want) {
		t.Errorf("stderr: %d bytes, %v", len(got), err)
	}
	if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Error(code, err)
	}
}

// A call whose answer is lost is made again, and acts once.
func TestLostAnswers(t *testing.T) {
	p := newPlace(t, nil)
	lose := func(method string, times int) {
		t.Cleanup(p.server.Inject(modaltest.Fault{Method: method, LoseAnswer: true, Times: times}))
	}
	lose("TaskExecStart", 2)
	lose("TaskExecStdinWrite", 3)
	lose("TaskExecWait", 1)
	cp := p.exec(nil, "/bin/sh", "-c", "echo started >> /tmp/starts; cat")
	for _, s := range []string{"one ", "two ", "three"} {
		if _, err := cp.Stdin.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := cp.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := io.ReadAll(cp.Stdout); string(out) != "one two three" || err != nil {
		t.Errorf("%q %v", out, err)
	}
	if code, err := cp.Wait(p.ctx, nil); code != 0 || err != nil {
		t.Error(code, err)
	}
	if got := p.sh("cat /tmp/starts"); got != "started\n" {
		t.Errorf("started %q", got)
	}
	lose("TaskSnapshotFilesystem", 2)
	if _, err := p.sb.SnapshotFilesystem(p.ctx, nil); err != nil {
		t.Error(err)
	}
	lose("TaskContainerTerminate", 1)
	image, err := p.image.Build(p.ctx, p.app, nil)
	if err != nil {
		t.Fatal(err)
	}
	side, err := p.sb.ExperimentalSidecars.Create(p.ctx, "side", image, &modal.SidecarCreateParams{Command: []string{"sleep", "999"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, err := side.Terminate(p.ctx, &modal.SidecarTerminateParams{Wait: true}); code != 137 || err != nil {
		t.Error(code, err)
	}
}

// Whatever the router answers k times, what was asked for happens once.
func TestRefusalsThatPass(t *testing.T) {
	p := newPlace(t, nil)
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.Canceled} {
		t.Cleanup(p.server.Inject(modaltest.Fault{Method: "TaskExecStart", Code: code, Times: 2}))
		t.Cleanup(p.server.Inject(modaltest.Fault{Method: "TaskExecStdioRead", Code: code, Times: 2}))
		t.Cleanup(p.server.Inject(modaltest.Fault{Method: "TaskExecStdinWriteStream", Code: code, Times: 2}))
		if got := p.sh("echo x >> /tmp/count; wc -l < /tmp/count; rm /tmp/count"); got != "1\n" {
			t.Errorf("%v: %q", code, got)
		}
		if err := p.sb.Filesystem.WriteText(p.ctx, "text", "/tmp/text", nil); err != nil {
			t.Errorf("%v: %v", code, err)
		}
		if got, err := p.sb.Filesystem.ReadText(p.ctx, "/tmp/text", nil); got != "text" || err != nil {
			t.Errorf("%v: %q %v", code, got, err)
		}
	}
}
