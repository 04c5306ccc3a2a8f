package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newBox gives a test a driver's sandbox.
func newBox(t testing.TB) driver.Sandbox {
	t.Helper()
	p := sandboxtest.NewProvider(t, nil)
	box, err := p.Driver().Create(t.Context(), &driver.Config{Timeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(box.Terminate(context.Background()), box.Close()); err != nil {
			t.Error(err)
		}
	})
	return box
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// start starts a shell command with all its streams.
func start(t testing.TB, box driver.Sandbox, script string, opts *process.Options) *process.Process {
	t.Helper()
	e := &driver.Exec{Args: []string{"/bin/sh", "-c", script}, Stdin: true, Stdout: true, Stderr: true}
	p, err := process.Start(testContext(t), box, e, t.TempDir(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.Kill(context.Background()), p.Close()); err != nil && !errors.Is(err, driver.ErrEnded) {
			t.Error(err)
		}
	})
	return p
}

// reader reads an output from an offset to its end, up to size bytes at once.
type reader struct {
	ctx context.Context
	out *process.Output
	off int64
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.out.ReadAt(r.ctx, p, r.off)
	r.off += int64(n)
	return n, err
}

func readAll(t testing.TB, o *process.Output, off int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := io.CopyBuffer(&b, struct{ io.Reader }{&reader{testContext(t), o, off}}, make([]byte, 100_000)); err != nil {
		t.Errorf("reading from %d on: %v", off, err)
	}
	return b.Bytes()
}

func exitOf(t testing.TB, p *process.Process) process.Exit {
	t.Helper()
	e, err := p.Wait(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}
