package sandboxhttp_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// What BenchmarkStreams opens at each of two servers: each idle run has
// idleStreams/streamRuns followers, and each active one activeStreams/streamRuns.
const (
	idleStreams   = 10_000
	activeStreams = 1_000
	streamRuns    = 10 // idle ones, and as many active ones
	streamProbes  = 200
	streamPace    = 100 * time.Millisecond // between two lines of an active run
	streamBeat    = 10 * time.Second       // the default of Limits.Heartbeat
	streamFiles   = idleStreams + activeStreams + 500
)

// BenchmarkStreams follows 10 idle runs by 10,000 connections, and 10 runs that write a
// line each 100 ms by 1,000, of a server that is a process of its own: the handler, and a bare
// one that sends the same events to as many. Memory is what the server's heap and stacks
// take after a collection, and what it has resident, beyond that of the server without
// streams. First byte is from a request on a connection that stands to the first byte of
// an event that is there already, while all other streams are open; the servers have their
// active streams in turns.
func BenchmarkStreams(b *testing.B) {
	var limit syscall.Rlimit // the runtime has raised it as far as it goes
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < streamFiles {
		b.Skipf("needs %d open files, and the limit is %d (%v)", streamFiles, limit.Cur, err)
	}
	ours, peer := startStreams(b, "handler"), startStreams(b, "bare")
	inUse, resident := ours.openIdle(b)
	bareInUse, bareResident := peer.openIdle(b)
	var firstByte figure.Pair
	for b.Loop() {
		firstByte.Ours = append(firstByte.Ours, ours.probe(b)...)
		firstByte.Peer = append(firstByte.Peer, peer.probe(b)...)
	}
	figure.Line(os.Stdout, "idle_stream_memory", inUse/1000, "kB", inUse/bareInUse, "bare-handler")
	figure.Line(os.Stdout, "idle_stream_resident", resident/1000, "kB", resident/bareResident, "bare-handler")
	firstByte.Print(os.Stdout, "stream_first_byte", "bare-handler")
}

// streamServer is a server in another process.
type streamServer struct {
	process *streamProcess
	at      streamPlace
}

// streamPlace is where a server's streams are.
type streamPlace struct {
	Addr         string
	Idle, Active []string // paths
}

// streamMemory is what a server takes, in bytes.
type streamMemory struct{ InUse, Resident int64 }

func startStreams(b *testing.B, kind string) *streamServer {
	b.Helper()
	s := &streamServer{process: startStreamProcess(b, kind, "")}
	s.process.read(b, &s.at)
	return s
}

// openIdle opens the idle streams, in a process of their own since one may not have the
// files for those of two servers. It gives what one takes of the server, in bytes.
func (s *streamServer) openIdle(b *testing.B) (inUse, resident float64) {
	b.Helper()
	var before, after streamMemory
	s.process.ask(b, &before)
	at, _ := json.Marshal(s.at)
	var open int
	startStreamProcess(b, "clients", string(at)).read(b, &open)
	s.process.ask(b, &after)
	return float64(after.InUse-before.InUse) / float64(open), float64(after.Resident-before.Resident) / float64(open)
}

// probe opens the active streams, some of them once more when all are open, and closes
// them all. It gives how long the first bytes of those took.
func (s *streamServer) probe(b *testing.B) (firstBytes []time.Duration) {
	b.Helper()
	var last [streamRuns]atomic.Int64
	var reading sync.WaitGroup
	active := make([]net.Conn, activeStreams+streamProbes)
	for i := range active {
		if i >= activeStreams {
			_ = active[i-activeStreams].Close()
		}
		run := i % streamRuns
		conn, got, took, err := s.at.open(s.at.Active[run], last[run].Load())
		if err != nil {
			b.Fatal(err)
		}
		reading.Go(func() { readStream(conn, got, &last[run]) })
		active[i] = conn
		if i >= activeStreams {
			firstBytes = append(firstBytes, took)
		}
	}
	for _, conn := range active {
		_ = conn.Close()
	}
	reading.Wait()
	return firstBytes
}

// streamProcess is a part of the benchmark that is a process of its own, until its input
// ends. It answers in lines of JSON.
type streamProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
}

// What a streamProcess is, and where, in its environment.
const (
	streamKind = "STREAM_KIND"
	streamAt   = "STREAM_AT"
)

func startStreamProcess(b *testing.B, kind, at string) *streamProcess {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p := &streamProcess{cmd: exec.Command(self, "-test.run=^TestStreamProcess$")}
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), streamKind+"="+kind, streamAt+"="+at), os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	p.answers = json.NewDecoder(out)
	b.Cleanup(func() {
		_ = p.in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := p.cmd.Wait(); err != nil {
			b.Errorf("%s: %v", kind, err)
		}
	})
	return p
}

func (p *streamProcess) read(b *testing.B, answer any) {
	b.Helper()
	if err := p.answers.Decode(answer); err != nil {
		b.Fatal(err)
	}
}

func (p *streamProcess) ask(b *testing.B, answer any) {
	b.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		b.Fatal(err)
	}
	p.read(b, answer)
}

// open follows a run after the event before the last one, of which there may be none yet.
// It gives what has come until there was a first byte of an event, and how long that took.
func (at *streamPlace) open(path string, last int64) (conn net.Conn, got []byte, took time.Duration, err error) {
	conn, err = net.Dial("tcp", at.Addr)
	if err != nil {
		return nil, nil, 0, err
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nLast-Event-ID: %d\r\n\r\n", path, at.Addr, max(last-1, 0))
	buf := make([]byte, 0, 4096)
	start := time.Now()
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, nil, 0, err
	}
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		took := time.Since(start)
		buf = buf[:len(buf)+n]
		if _, body, _ := bytes.Cut(buf, []byte("\r\n\r\n")); bytes.Contains(body, []byte("data:")) {
			return conn, buf, took, nil
		}
		if err != nil || len(buf) == cap(buf) {
			return nil, nil, 0, fmt.Errorf("after %q: %w", buf, cmp.Or(err, io.ErrShortBuffer))
		}
	}
}

// readStream reads until the connection is closed. What it has read first, it is given.
func readStream(conn net.Conn, buf []byte, last *atomic.Int64) {
	for {
		if i := bytes.LastIndex(buf, []byte("id: ")); i >= 0 {
			number, _, whole := bytes.Cut(buf[i+4:], []byte("\n"))
			if n, err := strconv.ParseInt(string(number), 10, 64); whole && err == nil {
				last.Store(n)
			}
		}
		n, err := conn.Read(buf[:cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:n]
	}
}

// TestStreamProcess is a part of BenchmarkStreams in a process of its own.
func TestStreamProcess(t *testing.T) {
	switch os.Getenv(streamKind) {
	case "handler":
		serveStreams(t, serveRuns)
	case "bare":
		serveStreams(t, serveBare)
	case "clients":
		beClients(t)
	default:
		t.Skip("it is a part of BenchmarkStreams")
	}
}

// beClients follows the idle runs.
func beClients(t *testing.T) {
	var at streamPlace
	if err := json.Unmarshal([]byte(os.Getenv(streamAt)), &at); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	for i := range idleStreams {
		conn, _, _, err := at.open(at.Idle[i%streamRuns], 0)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		reading.Go(func() { readStream(conn, make([]byte, 0, 256), new(atomic.Int64)) })
	}
	fmt.Println(idleStreams)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// serveStreams serves until its input ends, each line of which asks what memory it takes.
func serveStreams(t *testing.T, handler func(testing.TB, *streamPlace) http.Handler) {
	var at streamPlace
	srv := &http.Server{Handler: handler(t, &at)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()
	at.Addr = l.Addr().String()
	answers := json.NewEncoder(os.Stdout)
	err = answers.Encode(at)
	for asked := bufio.NewScanner(os.Stdin); err == nil && asked.Scan(); {
		err = answers.Encode(takenMemory())
	}
	if err := errors.Join(err, srv.Close()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func takenMemory() (m streamMemory) {
	for range 3 { // stacks shrink by half each time
		runtime.GC()
	}
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.InUse = int64(stats.HeapInuse + stats.StackInuse)
	statm, _ := os.ReadFile("/proc/self/statm")
	if words := strings.Fields(string(statm)); len(words) > 1 {
		pages, _ := strconv.ParseInt(words[1], 10, 64)
		m.Resident = pages * int64(os.Getpagesize())
	}
	return m
}

// everyTick calls fn each streamPace until over is closed, and each of the runs at a time
// of its own: all at once would be a burst and silence.
func everyTick(run int, over <-chan struct{}, fn func()) {
	at := time.Now().Truncate(streamPace).Add(streamPace * time.Duration(run) / streamRuns)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		at = at.Add(streamPace)
		timer.Reset(time.Until(at))
		select {
		case <-over:
			return
		case <-timer.C:
			fn()
		}
	}
}

// serveRuns is the handler, with runs in one sandbox, their logs on disk.
func serveRuns(t testing.TB, at *streamPlace) http.Handler {
	logs, err := runlog.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(string(benchLine(300)), "\n")
	s := serve(t, newPlace(t, func(p *player) {
		p.write(line)
		if run, err := strconv.Atoi(p.prompt); err == nil {
			everyTick(run, p.ctx.Done(), func() { p.write(line) })
		}
		<-p.ctx.Done()
	}), func(c *sandboxhttp.Config) {
		c.Auth, c.Logs, c.Limits.Runs, c.Limits.Heartbeat = sandboxhttp.Local("me"), logs, 2*streamRuns, streamBeat
	})
	s.account = ""
	box := s.create("")
	begin := func(prompt string) string {
		f := s.prompt(box, prompt)
		defer f.close()
		for f.must().name != "" { // its first line, or it may still be answering
		}
		return f.run(box) + "/events"
	}
	for run := range streamRuns {
		at.Idle, at.Active = append(at.Idle, begin("idle")), append(at.Active, begin(strconv.Itoa(run)))
	}
	return s.handler
}

// bareSource is what a bare handler follows: a line now and then, of which it knows only
// the newest.
type bareSource struct {
	mu   sync.Mutex
	id   int
	next chan struct{} // closed when there is another
}

func (s *bareSource) newest() (id int, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id, s.next
}

func (s *bareSource) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id++
	close(s.next)
	s.next = make(chan struct{})
}

// serveBare is the least that serves such streams: it writes and flushes the newest event,
// each that comes, and a heartbeat in silence.
func serveBare(t testing.TB, at *streamPlace) http.Handler {
	line := bytes.TrimSuffix(benchLine(300), []byte("\n"))
	mux := http.NewServeMux()
	follow := func(name string) (string, *bareSource) {
		s := &bareSource{id: 1, next: make(chan struct{})}
		mux.HandleFunc(name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			rc := http.NewResponseController(w)
			beat := time.NewTimer(streamBeat)
			defer beat.Stop()
			for event := true; ; {
				id, next := s.newest()
				if event {
					_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", id, line)
				}
				if rc.Flush() != nil {
					return
				}
				beat.Reset(streamBeat)
				select {
				case <-next:
					event = true
				case <-beat.C:
					event = false
					_, _ = io.WriteString(w, "event: heartbeat\ndata: {}\n\n")
				case <-r.Context().Done():
					return
				}
			}
		})
		return name, s
	}
	over := make(chan struct{})
	var ticking sync.WaitGroup
	for i := range streamRuns {
		idle, _ := follow(fmt.Sprintf("/idle/%d", i))
		active, s := follow(fmt.Sprintf("/active/%d", i))
		at.Idle, at.Active = append(at.Idle, idle), append(at.Active, active)
		ticking.Go(func() { everyTick(i, over, s.tick) })
	}
	t.Cleanup(func() {
		close(over)
		ticking.Wait()
	})
	return mux
}
