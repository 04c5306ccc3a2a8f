//go:build unix

package wire_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vivarium-go/vivarium/sandbox/localbox/internal/wire"
)

// numbered makes a file that says which it is.
func numbered(t *testing.T, n int) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(f, n); err != nil {
		t.Fatal(err)
	}
	return f
}

func number(t *testing.T, fd int) (n int) {
	t.Helper()
	var buf [16]byte
	k, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(buf[:k]), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestClaimed sends messages of many sizes, some with descriptors, which are read
// several at once or in parts: each gets its own descriptors.
func TestClaimed(t *testing.T) {
	const messages = 2000
	a, b := pair(t)
	a.Claim()
	b.Claim()
	files := make([]*os.File, 7)
	for i := range files {
		files[i] = numbered(t, i)
		defer files[i].Close()
	}
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 3, 40, 200, 4 << 10, 5000, 300 << 10}
	type message struct{ size, first, count int }
	plan := make([]message, messages)
	for i := range plan {
		plan[i] = message{size: sizes[r.IntN(len(sizes))], count: max(r.IntN(6)-2, 0), first: r.IntN(3)}
		if plan[i].size > 5000 && i%50 != 0 {
			plan[i].size = 17 // a few large ones do
		}
	}
	sent := make(chan error, 1)
	go func() {
		for i, m := range plan {
			var fds []int
			for _, f := range files[m.first : m.first+m.count] {
				fds = append(fds, int(f.Fd()))
			}
			if err := a.Send(&wire.Request{ID: uint64(i), Path: strings.Repeat("x", m.size)}, fds...); err != nil {
				sent <- err
				return
			}
		}
		sent <- a.Close()
	}()
	for i, m := range plan {
		var req wire.Request
		fds, err := b.Receive(&req)
		if err != nil || req.ID != uint64(i) || len(req.Path) != m.size || len(fds) != m.count {
			t.Fatalf("message %d of %+v: id %d, %d bytes, descriptors %v, %v", i, m, req.ID, len(req.Path), fds, err)
		}
		for j, fd := range fds {
			if n := number(t, fd); n != m.first+j {
				t.Fatalf("message %d got descriptor %d of file %d", i, j, n)
			}
		}
		wire.CloseFDs(fds)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(&wire.Request{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestClaimedCloseEndsReceive(t *testing.T) {
	a, b := pair(t)
	b.Claim()
	received := make(chan error, 1)
	go func() {
		_, err := b.Receive(&wire.Request{})
		received <- err
	}()
	if err := a.Send(&wire.Request{}); err != nil { // it is waiting from now on, or soon
		t.Fatal(err)
	}
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := b.Receive(&wire.Request{})
		received <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-received; err == nil {
		t.Error("a closed connection was received from")
	}
	if err := b.Send(&wire.Request{}); err == nil {
		t.Error("a closed connection was sent to")
	}
	if err := b.Close(); err == nil {
		t.Error("closed twice without a word")
	}
}

func TestClaimedSendDeadline(t *testing.T) {
	a, _ := pair(t)
	a.Claim()
	if err := a.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := a.Send(&wire.Request{Path: strings.Repeat("x", 1<<20)}); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Error("a peer that reads nothing was sent 100 MiB")
}
