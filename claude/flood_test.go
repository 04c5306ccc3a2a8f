package claude_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// endless writes one line until it is killed.
func endless(c *fakeCLI) {
	chunk := strings.Repeat("x", 64<<10)
	for {
		if _, err := io.WriteString(c.outW, chunk); err != nil {
			return
		}
	}
}

func TestMaxLine(t *testing.T) {
	const limit = 1 << 20
	ofSize := func(size int) string {
		const start, end = `{"type":"x","pad":"`, "\"}\n"
		return start + strings.Repeat("y", size-len(start)-len(end)) + end
	}
	for name, test := range map[string]struct {
		lines string
		want  string // "x" for a line, "-" for one that is too long
	}{
		"as long as it may be": {ofSize(limit), "x"},
		"a byte longer":        {ofSize(limit + 1), "-"},
		"among others":         {ofSize(100) + ofSize(limit+1) + ofSize(100), "x-x"},
		"two":                  {ofSize(10*limit) + ofSize(limit+1) + ofSize(limit), "--x"},
	} {
		t.Run(name, func(t *testing.T) {
			play := func(c *fakeCLI) {
				id, _ := c.begin()
				c.write("%s", test.lines)
				c.result(id, "")
				c.drain()
			}
			opts := &claude.Options{MaxLine: limit}
			st := query(t, opts, play)
			var got string
			for line, err := range st.Lines() {
				got += mark(t, len(line) > 0, err, limit)
			}
			if _, err := st.Result(); err != nil || got != test.want+"x" {
				t.Errorf("Lines gave %q, %v, want %q and a result", got, err, test.want)
			}
			got = ""
			for m, err := range query(t, opts, play).Messages() {
				got += mark(t, m != nil, err, limit)
			}
			if got != test.want+"x" {
				t.Errorf("Messages gave %q, want %q and a result", got, test.want)
			}
		})
	}
}

// mark is "x" for what was read, "-" for a line that was too long.
func mark(t *testing.T, read bool, err error, limit int64) string {
	t.Helper()
	var long *claude.LineTooLongError
	switch {
	case err == nil && read:
		return "x"
	case errors.As(err, &long) && long.Limit == limit && !read:
		return "-"
	}
	t.Fatalf("read %v, %v", read, err)
	return ""
}

// A line without an end is told at once, and takes no memory.
func TestEndlessLine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	st, err := claude.Query(ctx, fakeSandbox(t, func(c *fakeCLI) { c.begin(); endless(c) }), "x", &claude.Options{MaxLine: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var tooLong int
	var last error
	for _, err := range st.Lines() {
		if last = err; errors.As(err, new(*claude.LineTooLongError)) {
			tooLong++
			cancel()
		}
	}
	if tooLong != 1 || !errors.Is(last, context.Canceled) {
		t.Errorf("%d lines were too long, and the end is %v", tooLong, last)
	}
}

func TestMaxLineBeforeThePrompt(t *testing.T) {
	_, err := claude.Query(t.Context(), fakeSandbox(t, endless), "x", &claude.Options{MaxLine: 1 << 20})
	var long *claude.LineTooLongError
	var start *claude.StartError
	if !errors.As(err, &long) || !errors.As(err, &start) || claude.EndOf(err) != claude.EndAgentError {
		t.Errorf("got %v (%s)", err, claude.EndOf(err))
	}
	if _, err := claude.Query(t.Context(), fakeSandbox(t, missing), "x", &claude.Options{MaxLine: -1}); !errors.Is(err, sandbox.ErrInvalid) {
		t.Errorf("MaxLine -1: %v, want ErrInvalid", err)
	}
}

// A CLI that asks for ever and reads nothing must not fill this process's memory
// with answers.
func TestQuestionsWhoseAnswersAreNotRead(t *testing.T) {
	st := query(t, nil, func(c *fakeCLI) {
		c.begin()
		question := `{"type":"control_request","request_id":"` + strings.Repeat("r", 4<<10) + `","request":{"subtype":"can_use_tool"}}` + "\n"
		for range 4 << 10 { // 16 MiB
			if _, err := io.WriteString(c.outW, question); err != nil {
				return
			}
		}
		c.drain()
	})
	_, err := st.Result()
	var bad *claude.ProtocolError
	if !errors.Is(err, claude.ErrNotReading) || !errors.Is(err, claude.ErrNoResult) || claude.EndOf(err) != claude.EndAgentError || errors.As(err, &bad) {
		t.Errorf("ended with %v (%s), want ErrNotReading and %s", err, claude.EndOf(err), claude.EndAgentError)
	}
}

// Prompts are the caller's: they are not bounded by what the CLI reads.
func TestALongPromptIsNoAnswer(t *testing.T) {
	prompt := strings.Repeat("p", 4<<20)
	st, err := claude.Query(t.Context(), fakeSandbox(t, func(c *fakeCLI) {
		c.answer(c.read(), "{}")
		c.write(`{"type":"control_request","request_id":"q","request":{"subtype":"can_use_tool"}}` + "\n")
		id, text := "", ""
		for line := c.read(); line != nil; line = c.read() {
			if line["type"] == "user" {
				message, _ := line["message"].(map[string]any)
				id, _ = line["uuid"].(string)
				text, _ = message["content"].(string)
				break
			}
		}
		if text == prompt {
			c.result(id, "")
		}
		c.drain()
	}), prompt, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Result(); err != nil {
		t.Error(err)
	}
}

// What runs in a sandbox may open connections to the endpoint and keep them:
// only so many take a descriptor of this process.
func TestConnectionsToTheEndpointAreBounded(t *testing.T) {
	const limit = 128
	l := &countingListener{}
	box := &listeningBox{l: l}
	box.play = func(c *fakeCLI) {
		id, _ := c.begin()
		i := slices.IndexFunc(c.env, func(kv string) bool { return strings.HasPrefix(kv, "ANTHROPIC_BASE_URL=http://") })
		_, address, _ := strings.Cut(c.env[i], "http://")
		var conns []net.Conn
		for range limit + 1 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if conns = append(conns, conn); len(conns) <= limit {
				knock(t, conn) // and it is kept alive
			}
		}
		conns[0].Close()
		knock(t, conns[limit])
		c.result(id, "")
		c.drain()
	}
	sb, err := sandbox.NewProvider(boxProvider{box: box}).Create(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	st, err := claude.Query(t.Context(), sb, "x", &claude.Options{Endpoint: claude.Endpoint{Handler: handler}})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := st.Result(); err != nil {
		t.Error(err)
	}
	if most := l.most.Load(); most != limit {
		t.Errorf("%d connections were open at once, want %d", most, limit)
	}
}

// knock makes a request and leaves the connection open.
func knock(t *testing.T, conn net.Conn) {
	if _, err := io.WriteString(conn, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Error(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodHead})
	if err != nil {
		t.Error(err)
		return
	}
	resp.Body.Close()
}

type boxProvider struct {
	fakeProvider
	box driver.Sandbox
}

func (p boxProvider) Create(context.Context, *driver.Config) (driver.Sandbox, error) {
	return p.box, nil
}

// listeningBox has the loopback of this machine.
type listeningBox struct {
	fakeBox
	l *countingListener
}

func (b *listeningBox) Listen(_ context.Context, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	b.l.Listener = l
	return b.l, err
}

// countingListener counts the connections that are open.
type countingListener struct {
	net.Listener
	open, most atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.most.Store(max(l.most.Load(), l.open.Add(1)))
	return &countedConn{Conn: c, gone: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	net.Conn
	gone func()
}

func (c *countedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}
