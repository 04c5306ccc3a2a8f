package sandboxhttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vivarium-go/vivarium/sandbox/driver"
)

// In a place, "claude" is this test's binary once more. It hands its streams to the test
// over a socket, where a player plays the CLI, and ends as that says.

const (
	socketVariable = "PLACE_SOCKET="
	boxVariable    = "PLACE_ID="
)

// beClaude is the program "claude".
func beClaude() (code int) {
	conn, err := net.Dial("unix", os.Getenv(strings.TrimSuffix(socketVariable, "=")))
	if err != nil {
		return 1
	}
	hello, _ := json.Marshal(greeting{os.Args, os.Environ(), os.Getenv(strings.TrimSuffix(boxVariable, "="))})
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{'\n'}, syscall.UnixRights(0, 1, 2), nil); err != nil {
		return 1
	}
	if _, err := conn.Write(append(hello, '\n')); err != nil {
		return 1
	}
	var exit driver.Exit
	if json.NewDecoder(conn).Decode(&exit) != nil {
		return 1 // the test is over
	}
	if exit.Signal != 0 {
		_ = syscall.Kill(os.Getpid(), syscall.Signal(exit.Signal))
		select {}
	}
	return exit.Code
}

// greeting is what the program tells of itself.
type greeting struct {
	Args, Env []string
	Box       string
}

// listen accepts the CLIs of a place until the test ends.
func (p *place) listen(t testing.TB) {
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.perform(conn.(*net.UnixConn)) })
		}
	})
	t.Cleanup(func() {
		p.endAll()
		_ = l.Close()
		all.Wait()
	})
}

// endAll ends the sandboxes that are left.
func (p *place) endAll() {
	p.mu.Lock()
	left := slices.Clone(p.all)
	p.mu.Unlock()
	for _, b := range left {
		b.end(driver.EndCancelled)
	}
}

// accept takes the streams over.
func (p *place) accept(conn *net.UnixConn) (*player, io.ReadCloser, *bufio.Reader, error) {
	first, rights := make([]byte, 1), make([]byte, 256)
	_, n, _, _, err := conn.ReadMsgUnix(first, rights)
	if err != nil {
		return nil, nil, nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return nil, nil, nil, err
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, nil, nil, err
	}
	var files []*os.File
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		_ = syscall.SetNonblock(fds[i], true) // so that Close ends what goes on
		files = append(files, os.NewFile(uintptr(fds[i]), name))
	}
	br := bufio.NewReader(conn)
	line, err := br.ReadBytes('\n')
	var hello greeting
	if err == nil {
		err = json.Unmarshal(line, &hello)
	}
	pl := &player{
		args: hello.Args, env: hello.Env, interrupted: make(chan struct{}), answers: make(chan string, 100), stdout: files[1], stderr: files[2],
		session: "session-of-" + hello.Box,
	}
	for _, arg := range hello.Args {
		for _, flag := range []string{"--session-id=", "--resume="} {
			if id, ok := strings.CutPrefix(arg, flag); ok {
				pl.session = id
			}
		}
	}
	return pl, files[0], br, err
}

// perform plays one CLI to its end.
func (p *place) perform(conn *net.UnixConn) {
	defer conn.Close()
	pl, stdin, br, err := p.accept(conn)
	if err != nil {
		return // it was killed early
	}
	ctx, cancel := context.WithCancel(context.Background())
	pl.ctx = ctx
	var all sync.WaitGroup
	all.Go(func() {
		_, _ = br.ReadByte() // it says nothing more: it was killed, or has ended
		cancel()
		_, _, _ = stdin.Close(), pl.stdout.Close(), pl.stderr.Close() // a killed process writes no more
	})
	prompts := make(chan string, 1)
	if p.deaf {
		all.Go(func() { _, _ = io.Copy(io.Discard, stdin) })
	} else {
		all.Go(func() { pl.listen(stdin, prompts) })
	}
	select {
	case prompt, ok := <-prompts:
		if ok {
			pl.prompt = prompt
			p.play(pl)
		}
	case <-ctx.Done():
	}
	if pl.exit.OOM {
		p.ooms.Add(1)
	}
	_ = json.NewEncoder(conn).Encode(pl.exit)
	all.Wait()
	cancel()
}

// player is one run of the CLI, as a test writes it.
type player struct {
	args        []string
	env         []string
	prompt      string
	session     string
	system      string
	ctx         context.Context // ends when the CLI is killed or the sandbox ends
	interrupted chan struct{}   // closed when an interrupt was asked for
	answers     chan string     // what the server answers, a line each

	mu     sync.Mutex
	stdout *os.File
	stderr *os.File
	exit   driver.Exit
}

// write writes a line, or fails silently when nobody reads any more.
func (p *player) write(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.stdout, line+"\n")
}

// say writes an assistant's line.
func (p *player) say(text string) {
	data, _ := json.Marshal(text)
	p.write(`{"type":"assistant","message":{"content":[{"type":"text","text":` + string(data) + `}]},"session_id":"` + p.session + `"}`)
}

// succeed writes the result of a turn that went well.
func (p *player) succeed() {
	p.write(`{"type":"result","subtype":"success","is_error":false,"result":"done","num_turns":2,"total_cost_usd":0.25,"session_id":"` + p.session + `"}`)
}

// stopped writes the result of a turn that was interrupted.
func (p *player) stopped() {
	p.write(`{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_streaming","num_turns":1,"total_cost_usd":0.1,"session_id":"` + p.session + `"}`)
}

// listen speaks the control protocol's side of the CLI.
func (p *player) listen(stdin io.Reader, prompts chan<- string) {
	defer close(prompts)
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, 16<<20)
	var once sync.Once
	for lines.Scan() {
		var line struct {
			Type      string `json:"type"`
			RequestID string `json:"request_id"`
			Request   struct {
				Subtype string   `json:"subtype"`
				System  []string `json:"systemPrompt"`
			} `json:"request"`
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return
		}
		switch line.Type {
		case "user":
			prompts <- line.Message.Content
		case "control_response":
			p.answers <- lines.Text()
		case "control_request":
			if line.Request.Subtype == "initialize" {
				p.system = strings.Join(line.Request.System, "\n")
			}
			p.write(`{"type":"control_response","response":{"subtype":"success","request_id":"` + line.RequestID + `","response":{}}}`)
			if line.Request.Subtype == "interrupt" {
				once.Do(func() { close(p.interrupted) })
			}
		}
	}
}
