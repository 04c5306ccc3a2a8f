package peerbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox"
	"github.com/vivarium-go/vivarium/storage"
)

// here runs commands as plain processes of this machine.
type here struct{}

func (here) Run(ctx context.Context, stdin io.Reader, stdout io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout = stdin, stdout
	return runGroup(cmd)
}

// runGroup runs a command that ends with its context, whatever it started, and
// with what it said in its error.
func runGroup(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(words.String())
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said[max(0, len(said)-500):])
	}
	return nil
}

// place is where trees lie: on this machine, or in a sandbox.
type place struct {
	run  storage.Runner // for the harness
	ours storage.Runner // for storage
	dir  string
}

// onHere is this machine. Its trees are where they were made.
func onHere(dir string) *place { return &place{run: here{}, ours: storage.Local{}, dir: dir} }

// inSandbox makes a sandbox on this machine whose files are below dir, or says
// why it cannot.
func inSandbox(b *testing.B, dir string) (*place, error) {
	p, err := localbox.Open(&localbox.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() { _ = p.Close() })
	sb, err := p.Create(b.Context(), &sandbox.Config{Timeout: time.Hour})
	if err != nil {
		return nil, err
	}
	b.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		if err := errors.Join(sb.Terminate(ctx), sb.Close()); err != nil {
			b.Errorf("end of the sandbox: %v", err)
		}
	})
	return &place{run: sb, ours: sb, dir: sb.Dir()}, nil
}

// at is where the tree is in the place.
func (p *place) at(t *tree) string {
	if p.run == (here{}) {
		return t.dir
	}
	return path.Join(p.dir, t.name)
}

// bring copies files of the tree ("." for all) to the place.
func (p *place) bring(ctx context.Context, t *tree, names ...string) error {
	if p.run == (here{}) {
		return nil
	}
	if err := p.run.Run(ctx, nil, nil, "mkdir", "-p", p.at(t)); err != nil {
		return err
	}
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := here{}.Run(ctx, nil, w, "tar", append([]string{"-c", "--format=posix", "-C", t.dir}, names...)...)
		_ = w.CloseWithError(err)
		sent <- err
	}()
	err := p.run.Run(ctx, r, nil, "tar", "-x", "-C", p.at(t))
	_ = r.CloseWithError(err)
	return errors.Join(err, <-sent)
}

// drop removes a directory of the place.
func (p *place) drop(ctx context.Context, dir string) error {
	return p.run.Run(ctx, nil, nil, "rm", "-rf", dir)
}
