//go:build linux

package localbox_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/state"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// forwarded checks that a port inside is reachable from this machine.
func forwarded(t *testing.T, sb *sandbox.Sandbox) {
	t.Helper()
	l, err := sb.Listen(testContext(t), "127.0.0.1:8123")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("from inside"))
			c.Close()
		}
	}()
	info, err := sb.Info(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", info.Ports[8123])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deadline))
	buf := make([]byte, 32)
	n, err := c.Read(buf)
	if string(buf[:n]) != "from inside" {
		t.Errorf("through the port: %q, %v", buf[:n], err)
	}
}

// TestHostileClients: nothing that comes over the socket takes a sandbox down.
func TestHostileClients(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	sb := create(t, p, nil)
	d, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(body []byte) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	garbage := make([]byte, 4096)
	for i := range garbage {
		garbage[i] = byte(rand.IntN(256))
	}
	for name, message := range map[string][]byte{
		"nothing":       {},
		"half a length": {1, 2},
		"a huge length": {0xff, 0xff, 0xff, 0xff},
		"large claim":   {0, 0, 0xff, 0},
		"garbage":       garbage,
		"framed":        frame(garbage),
		"unknown op":    frame(wire.Marshal(&wire.Request{ID: 1, Op: 200, Path: "/x"})),
		"no arguments":  frame(wire.Marshal(&wire.Request{ID: 1, Op: wire.OpStart})),
		"lost streams":  frame(wire.Marshal(&wire.Request{ID: 1, Op: wire.OpStart, Args: []string{"true"}, Stdout: true})),
		"no command":    frame(wire.Marshal(&wire.Request{ID: 1, Op: wire.OpSignal, Num: 9, Proc: 77})),
		"kill all":      frame(wire.Marshal(&wire.Request{ID: 1, Op: wire.OpKill, Num: -1})),
		"save nowhere":  frame(wire.Marshal(&wire.Request{ID: 1, Op: wire.OpSave})),
		"old program":   frame(wire.Marshal(&wire.Request{ID: 1, Op: wire.OpHello, Num: -1})),
	} {
		c, err := d.Dial(sb.ID())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// With descriptors, which must not pile up inside.
		_, _, _ = c.WriteMsgUnix(append([]byte(nil), message...), unix.UnixRights(0, 1, 2), nil)
		_ = c.CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = c.Read(make([]byte, 1024))
		c.Close()
		if out := sh(t, sb, "echo alive"); out != "alive" {
			t.Fatalf("after %s: %q", name, out)
		}
	}
	if out := sh(t, sb, "for i in 1 2 3 4 5; do kill -9 1; kill -TERM 1; kill -STOP 1; kill -SEGV 1; kill -QUIT 1; done; echo alive"); out != "alive" {
		t.Errorf("after signals to process 1: %q", out)
	}
}

// TestHostileStalledClient: one that does not read holds nobody else up.
func TestHostileStalledClient(t *testing.T) {
	dir := stateDir(t)
	sb := create(t, open(t, dir), nil)
	d, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	uc, err := d.Dial(sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	c := wire.NewConn(uc)
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for i := range 100_000 {
		if c.Send(&wire.Request{ID: uint64(i + 1), Op: wire.OpReadDir, Path: "/usr/bin"}) != nil {
			break
		}
	}
	for range 10 {
		if out := sh(t, sb, "echo alive"); out != "alive" {
			t.Fatal(out)
		}
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestManyAtOnce makes many sandboxes side by side; each has a user of its own
// where root makes them, and nothing is left of any.
func TestManyAtOnce(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 20
	}
	// With the race detector each of them starts for a fifth of a second and more.
	many, cancel := context.WithTimeout(t.Context(), 5*deadline)
	defer cancel()
	dir := stateDir(t)
	p := open(t, dir)
	first, err := p.Create(testContext(t), nil) // what stays open for good is open by now
	if err != nil {
		t.Fatal(err)
	}
	end(t, first)
	before := openFDs(t)
	users := make([]string, n)
	g, ctx := errgroup.WithContext(many)
	boxes := make([]*sandbox.Sandbox, n)
	for i := range n {
		g.Go(func() (err error) {
			if boxes[i], err = p.Create(ctx, nil); err != nil {
				return err
			}
			out, err := boxes[i].Command(ctx, "cat", "/proc/self/uid_map").Output()
			users[i] = strings.Join(strings.Fields(string(out)), " ")
			return err
		})
	}
	err = g.Wait()
	for _, sb := range boxes {
		if sb != nil {
			g.Go(func() error { return errors.Join(sb.Terminate(many), sb.Close()) })
		}
	}
	if err := errors.Join(err, g.Wait()); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, u := range users {
		seen[u]++
	}
	if os.Geteuid() == 0 && len(seen) != n {
		t.Errorf("%d users for %d sandboxes", len(seen), n)
	}
	eventually(t, fmt.Sprintf("descriptors are closed (%d before)", before), func() bool { return openFDs(t) <= before })
	left, _ := filepath.Glob(filepath.Join(dir, "boxes", "*", "sock"))
	if len(left) > 0 {
		t.Errorf("%d sockets are left", len(left))
	}
}

// TestCreateCancelled gives up at every stage of a creation.
func TestCreateCancelled(t *testing.T) {
	dir := stateDir(t)
	p := open(t, dir)
	made := 0
	for i := range 60 {
		ctx, cancel := context.WithTimeout(testContext(t), time.Duration(i)*400*time.Microsecond)
		sb, err := p.Create(ctx, &sandbox.Config{Name: "n" + strconv.Itoa(i)})
		cancel()
		if err == nil {
			made++
			end(t, sb)
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("attempt %d: %v", i, err)
		}
		if _, err := p.AttachName(testContext(t), "n"+strconv.Itoa(i)); !errors.Is(err, sandbox.ErrNotFound) {
			t.Errorf("attempt %d left its name: %v", i, err)
		}
	}
	t.Logf("%d of 60 were fast enough", made)
	for info, err := range p.List(testContext(t), nil) {
		t.Errorf("left: %+v, %v", info, err)
	}
	for _, pattern := range []string{"boxes/*/alive", "boxes/*/sock", "names/*"} {
		left, _ := filepath.Glob(filepath.Join(dir, pattern))
		if len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	for _, k := range children(t, "keeper", os.Getpid()) {
		if h := append(children(t, "helper", k), children(t, "setup", k)...); len(h) > 0 {
			t.Errorf("processes %v are left", h)
		}
	}
}
