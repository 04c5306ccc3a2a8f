package modalemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	modal "github.com/modal-labs/modal-client/go"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/modalbox/modaltest"
)

// aliveAtOnce is how many sandboxes the emulator has to carry on two cores.
const aliveAtOnce = 200

// TestManyAlive makes sandboxes, uses all of them while all are alive, ends
// them, and looks for what is left. Goroutines are TestMain's.
func TestManyAlive(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 200 sandboxes: -short")
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	server, err := modaltest.Start(nil)
	if errors.Is(err, sandbox.ErrNoIsolation) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	mounts := mountsHere(t)
	began := many(t, server)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if n := len(began); n < 2*aliveAtOnce { // a helper and a command each
		t.Errorf("only %d processes were seen while all sandboxes were alive", n)
	}
	// The keeper ends after Close has told it to, and with the race detector
	// takes a second for that.
	tick, over := time.NewTicker(20*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for remaining(began); len(began) > 0; remaining(began) {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("processes are left: %v", began)
		}
	}
	left, err := os.ReadDir(temp)
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
	if now := mountsHere(t); now != mounts {
		t.Errorf("mounts before:\n%safter:\n%s", mounts, now)
	}
}

// remaining leaves those processes that have not ended.
func remaining(began map[string]bool) {
	maps.DeleteFunc(began, func(id string, _ bool) bool {
		pid, _, _ := strings.Cut(id, " ")
		now := started(pid)
		return now == "" || id != pid+" of "+now
	})
}

// many returns the processes there were when all sandboxes were alive.
func many(t *testing.T, server *modaltest.Server) map[string]bool {
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	app, err := client.Apps.FromName(t.Context(), "many", &modal.AppFromNameParams{CreateIfMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	boxes := make([]*modal.Sandbox, aliveAtOnce)
	each := func(what string, do func(ctx context.Context, i int) error) {
		t.Helper()
		start := time.Now()
		g, ctx := errgroup.WithContext(t.Context())
		g.SetLimit(16)
		for i := range boxes {
			g.Go(func() error { return do(ctx, i) })
		}
		if err := g.Wait(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: %v", what, time.Since(start).Round(time.Millisecond))
	}
	// An Image is not for several goroutines before it was built.
	image, err := client.Images.FromRegistry("debian:12", nil).Build(t.Context(), app, nil)
	if err != nil {
		t.Fatal(err)
	}
	each("create", func(ctx context.Context, i int) (err error) {
		boxes[i], err = client.Sandboxes.Create(ctx, app, image, &modal.SandboxCreateParams{Command: []string{"sleep", "3600"}})
		return err
	})
	each("use", func(ctx context.Context, i int) error { return use(ctx, boxes[i], i) })
	each("see alive", func(ctx context.Context, i int) error {
		code, err := boxes[i].Poll(ctx, nil)
		if err == nil && code != nil {
			err = fmt.Errorf("sandbox %d has ended with %d", i, *code)
		}
		return err
	})
	began := processes(t)
	each("terminate", func(ctx context.Context, i int) error {
		_, err := boxes[i].Terminate(ctx, nil)
		return errors.Join(err, boxes[i].Detach()) // which closes its connection
	})
	return began
}

// use writes a file, has a command read it, and reads what that has written.
func use(ctx context.Context, sb *modal.Sandbox, i int) error {
	name := fmt.Sprintf("/tmp/file-%d", i)
	if err := sb.Filesystem.WriteText(ctx, name, name, nil); err != nil {
		return err
	}
	p, err := sb.Exec(ctx, []string{"sh", "-c", "cat $0 && head -c 100000 /dev/zero", name}, nil)
	if err != nil {
		return err
	}
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		return err
	}
	if code, err := p.Wait(ctx, nil); err != nil || code != 0 {
		return fmt.Errorf("exit %d, %w", code, err)
	}
	if len(out) != len(name)+100_000 || !strings.HasPrefix(string(out), name) {
		return fmt.Errorf("sandbox %d printed %d bytes", i, len(out))
	}
	return nil
}

// processes are this process's descendants, each by its number and the time it
// was started.
func processes(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := make(map[string][]string)
	for _, file := range files {
		if fields := stat(file); fields != nil {
			children[fields[1]] = append(children[fields[1]], filepath.Base(filepath.Dir(file)))
		}
	}
	found, next := make(map[string]bool), []string{strconv.Itoa(os.Getpid())}
	for len(next) > 0 {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		for _, child := range children[pid] {
			found[child+" of "+started(child)] = true
		}
	}
	return found
}

// stat are the fields behind the process's name, which may have spaces
// (proc_pid_stat(5)); nil when it has ended.
func stat(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// started is when a process was started; "" when it has ended.
func started(pid string) string {
	fields := stat("/proc/" + pid + "/stat")
	if fields == nil || fields[0] == "Z" { // whoever has adopted it will know
		return ""
	}
	return fields[19]
}

func mountsHere(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
