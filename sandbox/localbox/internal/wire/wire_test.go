//go:build unix

package wire_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox/driver"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/reexec"
	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func messages() []wire.Message {
	return []wire.Message{
		&wire.Request{ID: 7, Op: wire.OpStart, Args: []string{"a", "", "\xff\xfe"}, Env: []string{"K=V"}, Stdin: true,
			Merge: true, TTY: true, Rows: 65535, Mtime: -1, Mode: fs.ModeDir | 0o755},
		&wire.Reply{ID: 1, More: true, Infos: []wire.FileInfo{{Base: "x\x00", Bytes: 1 << 60, Perm: fs.ModeSymlink, MTime: -5, UID: 1000, GID: 65534}},
			Exit: wire.Exit{Exit: driver.Exit{Code: -1, Signal: 9, OOM: true, UserTime: time.Second}}},
		&wire.KeeperRequest{ID: 2, Op: wire.KeeperCreate, Dir: "/d", Config: driver.Config{CPU: 0.25, Memory: 1,
			Secrets: driver.Secrets{"A=B"}, Tags: map[string]string{"k": "v", "": "e"}, Ports: []int{80},
			Mounts:  []driver.Mount{{Source: "/s", Target: "/t"}},
			Network: driver.Network{Mode: driver.NetworkAllowlist, CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}},
		&wire.KeeperReply{ID: 3, Sandbox: "box-1"},
		&wire.Setup{Probe: true, CPUs: []int{0, 3}, Mounts: []wire.SetupMount{{Source: "a", Passed: true}}, Nonce: 1 << 63},
		&wire.Boot{Plain: true, Env: []string{"A=B"}, IdleTimeout: 5, OOM: true},
		&wire.Status{Step: "s", Err: wire.NewError(driver.ErrEnded)},
	}
}

func TestMarshal(t *testing.T) {
	for _, m := range messages() {
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(wire.Message)
		if err := wire.Unmarshal(wire.Marshal(m), got); err != nil {
			t.Errorf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b wire.Error) bool { return a == b })); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for i, m := range messages() {
		f.Add(uint8(i), wire.Marshal(m))
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		all := messages()
		m := reflect.New(reflect.TypeOf(all[int(kind)%len(all)]).Elem()).Interface().(wire.Message)
		if wire.Unmarshal(b, m) != nil {
			return
		}
		again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(wire.Message)
		if err := wire.Unmarshal(wire.Marshal(m), again); err != nil {
			t.Errorf("%T: what was read cannot be read again: %v", m, err)
		}
	})
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	for _, want := range []error{
		exec.ErrNotFound, fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, os.ErrProcessDone,
		driver.ErrNotFound, driver.ErrEnded, driver.ErrNameInUse, driver.ErrExhausted, driver.ErrInvalid,
		driver.ErrNoIsolation, errors.ErrUnsupported, syscall.ENOSPC, syscall.ENOENT, syscall.E2BIG,
	} {
		r := &wire.Reply{Err: wire.NewError(&fs.PathError{Op: "op", Path: "p", Err: want})}
		var got wire.Reply
		if err := wire.Unmarshal(wire.Marshal(r), &got); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(got.Err, want) || !strings.Contains(got.Err.Error(), want.Error()) {
			t.Errorf("%v became %v", want, got.Err)
		}
		if want != driver.ErrEnded && errors.Is(got.Err, driver.ErrEnded) {
			t.Errorf("%v matches ErrEnded", want)
		}
	}
	if err := wire.NewError(&fs.PathError{Err: syscall.EROFS}); !errors.Is(err, fs.ErrPermission) {
		t.Error("a read-only file system is not a matter of permission")
	}
	if wire.NewError(nil) != nil {
		t.Error("nil became an error")
	}
}

func pair(t *testing.T) (a, b *wire.Conn) {
	t.Helper()
	x, y, err := reexec.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conn := func(f *os.File) *wire.Conn {
		defer f.Close()
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		uc, err := reexec.Conn(fd)
		if err != nil {
			t.Fatal(err)
		}
		c := wire.NewConn(uc)
		t.Cleanup(func() { c.Close() })
		return c
	}
	return conn(x), conn(y)
}

func TestLargeMessagesWithDescriptors(t *testing.T) {
	a, b := pair(t)
	large := strings.Repeat("x", 3<<20)
	sent := make(chan error, 1)
	go func() {
		err := a.Send(&wire.Request{Path: "first"})
		for range 3 {
			err = errors.Join(err, a.Send(&wire.Request{Path: large}, 0, 1))
		}
		sent <- err
	}()
	var r wire.Request
	if fds, err := b.Receive(&r); err != nil || len(fds) != 0 || r.Path != "first" {
		t.Fatalf("first: %v, %v", fds, err)
	}
	for range 3 {
		fds, err := b.Receive(&r)
		if err != nil || len(fds) != 2 || r.Path != large {
			t.Fatalf("large: %v, %v", fds, err)
		}
		wire.CloseFDs(fds)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := a.Send(&wire.Request{Path: strings.Repeat("x", 17<<20)}); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("too large: %v", err)
	}
	a.Close()
	if _, err := b.Receive(&r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestClientGivesUp(t *testing.T) {
	a, b := pair(t)
	c := wire.NewClient(a, nil)
	served := make(chan struct{})
	go func() { c.Serve(); close(served) }()
	ctx, cancel := context.WithCancel(t.Context())
	late := make(chan uint64, 1)
	called := make(chan error, 1)
	go func() {
		_, _, err := c.Call(ctx, &wire.Request{Op: wire.OpStart}, func(r *wire.Reply, _ []int) { late <- r.Proc })
		called <- err
	}()
	var req wire.Request
	if _, err := b.Receive(&req); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-called; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := b.Send(&wire.Reply{ID: req.ID, Proc: 42}); err != nil {
		t.Fatal(err)
	}
	if n := <-late; n != 42 {
		t.Errorf("the late reply: %d", n)
	}
	go func() {
		_, _, err := c.Call(t.Context(), &wire.Request{}, nil)
		called <- err
	}()
	if _, err := b.Receive(&req); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := <-called; !errors.Is(err, wire.ErrDown) {
		t.Errorf("connection gone: %v", err)
	}
	<-served
}
