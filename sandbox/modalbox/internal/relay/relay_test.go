package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs a test with every interpreter.
func each(t *testing.T, test func(t *testing.T, r *Relay, sb *sandbox.Sandbox)) {
	for name, args := range map[string][]string{
		"node":    {"node", "-e", nodeScript},
		"python3": {"python3", "-c", pythonScript},
	} {
		t.Run(name, func(t *testing.T) {
			sb := sandboxtest.New(t, nil)
			if err := sb.Run(t.Context(), nil, nil, name, "--version"); err != nil {
				t.Skipf("no %s in the sandbox: %v", name, err)
			}
			r, err := start(t.Context(), sb.Driver(), args...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test(t, r, sb)
		})
	}
}

func context10(t *testing.T) context.Context {
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(stop)
	return ctx
}

// TestEcho dials a server that is on the same relay's listener: every byte
// crosses the streams four times.
func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, r *Relay, _ *sandbox.Sandbox) {
		l, err := r.Listen(context10(t), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var served sync.WaitGroup
		served.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				served.Go(func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
					_ = c.(*conn).CloseWrite()
				})
			}
		})
		data := make([]byte, 3*Window+17)
		_, _ = rand.Read(data)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				c, err := r.Dial(context10(t), l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				all.Go(func() {
					if _, err := c.Write(data); err != nil {
						t.Error(err)
					}
					_ = c.(*conn).CloseWrite()
				})
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
					t.Errorf("got %d bytes (%v), want the %d sent", len(got), err, len(data))
				}
			})
		}
		all.Wait()
		l.Close()
		served.Wait()
	})
}

// TestHTTP serves a handler of this process to a program inside.
func TestHTTP(t *testing.T) {
	each(t, func(t *testing.T, r *Relay, sb *sandbox.Sandbox) {
		l, err := r.Listen(context10(t), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "from outside: "+r.URL.Path)
		}))
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		defer srv.Close()
		var out strings.Builder
		err = sb.Run(context10(t), nil, &out, "node", "-e",
			`fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))`, "http://"+l.Addr().String()+"/hello")
		if err != nil || out.String() != "from outside: /hello" {
			t.Fatalf("got %q, %v", out.String(), err)
		}
	})
}

// TestSlowReader: one connection that nobody reads stops neither the others nor
// grows without end.
func TestSlowReader(t *testing.T) {
	each(t, func(t *testing.T, r *Relay, sb *sandbox.Sandbox) {
		l, err := r.Listen(context10(t), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		stuck, err := r.Dial(context10(t), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer stuck.Close()
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		_ = stuck.SetWriteDeadline(time.Now().Add(2 * time.Second))
		n, err := stuck.Write(make([]byte, 64<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d bytes that nobody reads: %v", n, err)
		}
		c, err := r.Dial(context10(t), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if b := make([]byte, 1); readOne(t, other, b) != "x" {
			t.Fatal("the other connection is stuck too")
		}
	})
}

func readOne(t *testing.T, c net.Conn, b []byte) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := c.Read(b)
	if err != nil {
		t.Error(err)
	}
	return string(b[:n])
}

func TestRefused(t *testing.T) {
	each(t, func(t *testing.T, r *Relay, _ *sandbox.Sandbox) {
		if c, err := r.Dial(context10(t), "127.0.0.1:1"); err == nil {
			c.Close()
			t.Error("nobody listens there")
		}
		l, err := r.Listen(context10(t), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l2, err := r.Listen(context10(t), l.Addr().String()); err == nil {
			l2.Close()
			t.Error("two listeners on one address")
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
	})
}

// TestGone: the end of the sandbox ends everything that waits.
func TestGone(t *testing.T) {
	each(t, func(t *testing.T, r *Relay, sb *sandbox.Sandbox) {
		l, err := r.Listen(context10(t), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Dial(context10(t), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ends := make(chan error, 2)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ends <- err
		}()
		go func() {
			for {
				if _, err := l.Accept(); err != nil {
					ends <- err
					return
				}
			}
		}()
		if err := sb.Terminate(context10(t)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-ends; err == nil {
				t.Error("got nil, want an error")
			}
		}
		if _, err := r.Dial(context10(t), "127.0.0.1:1"); err == nil || r.Alive() {
			t.Errorf("the relay outlived its sandbox: %v", err)
		}
	})
}

// FuzzFrame: what an image's own programs write in the relay's place breaks
// nothing here.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, kindDone, 1, []byte("127.0.0.1:80")), kindOpen, 1, []byte{0, 0, 0, 2}))
	f.Add(appendFrame(nil, kindData, 3, []byte("data")))
	f.Add(appendFrame(nil, kindCredit, 3, []byte{255, 255, 255, 255}))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &Relay{conns: map[uint32]*conn{}, lists: map[uint32]*listener{}, asked: map[uint32]chan error{}, stop: func() {}}
		r.out.init()
		r.lists[1] = &listener{r: r, id: 1, ready: make(chan struct{}, 1)}
		r.conns[3] = newConn(r, 3, "x")
		err := r.read(bytes.NewReader(in))
		if err == nil {
			t.Fatal("read ended without an error")
		}
		r.end(err)
	})
}
