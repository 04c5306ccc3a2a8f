package sandboxhttp_test

import (
	"bufio"
	"bytes"
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
	"slices"
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

// What BenchmarkStreams opens: each idle run has idleStreams/streamRuns followers, and
// each active one activeStreams/streamRuns.
const (
	idleStreams   = 10_000
	activeStreams = 1_000
	streamRuns    = 10 // idle ones, and as many active ones
	streamRounds  = 3
	streamPace    = 100 * time.Millisecond // between two lines of an active run
	streamBeat    = 10 * time.Second       // the default of Limits.Heartbeat
	streamFiles   = idleStreams + activeStreams + 500
)

// BenchmarkStreams follows 10 idle runs by 10,000 connections, and 10 runs that write a
// line each 100 ms by 1,000, of a server that is a process of its own: the handler, and a bare
// one that sends the same events to as many. Memory is what the server's heap and stacks
// take after a collection, and what it has resident, beyond that of the server without
// streams. First byte is from a request on a connection that stands to the first byte of
// an event that is there already, while all other streams are open.
func BenchmarkStreams(b *testing.B) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < streamFiles {
		b.Skipf("needs %d open files, and the limit is %d (%v)", streamFiles, files.Cur, err)
	}
	var ours, peer streamFigures
	for b.Loop() {
		for range streamRounds {
			ours.measure(b, "handler")
			peer.measure(b, "bare")
		}
	}
	kilobytes := func(name string, own, other []float64) {
		slices.Sort(own)
		slices.Sort(other)
		own50, other50 := own[len(own)/2], other[len(other)/2]
		figure.Line(os.Stdout, name, own50/1000, "kB", own50/other50, "bare-handler")
	}
	kilobytes("idle_stream_memory", ours.memory, peer.memory)
	kilobytes("idle_stream_resident", ours.resident, peer.resident)
	firstByte := figure.Pair{Ours: ours.firstByte, Peer: peer.firstByte}
	firstByte.Print(os.Stdout, "stream_first_byte", "bare-handler")
}

// streamFigures are those of one kind of server, over all rounds.
type streamFigures struct {
	memory, resident []float64 // of an idle stream, in bytes
	firstByte        []time.Duration
}

func (f *streamFigures) measure(b *testing.B, kind string) {
	s := startStreams(b, kind)
	defer s.stop()
	before := s.memory()
	for i := range idleStreams {
		s.open(s.idle[i%streamRuns], new(atomic.Int64))
	}
	after := s.memory()
	f.memory = append(f.memory, float64(after.InUse-before.InUse)/idleStreams)
	f.resident = append(f.resident, float64(after.Resident-before.Resident)/idleStreams)
	var last [streamRuns]atomic.Int64
	active := make([]net.Conn, activeStreams)
	for i := range active {
		active[i], _ = s.open(s.active[i%streamRuns], &last[i%streamRuns])
	}
	for i := range active { // each anew, so that all others are open
		_ = active[i].Close()
		_, took := s.open(s.active[i%streamRuns], &last[i%streamRuns])
		f.firstByte = append(f.firstByte, took)
	}
}

// streamServer is a server in another process, and the connections to it.
type streamServer struct {
	b       *testing.B
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
	place   streamPlace
	idle    []string
	active  []string

	conns   []net.Conn
	reading sync.WaitGroup
}

// streamPlace is where the server's streams are.
type streamPlace struct {
	Addr         string
	Idle, Active []string // paths
}

// streamMemory is what a server takes, in bytes.
type streamMemory struct{ InUse, Resident int64 }

const streamKind = "STREAM_SERVER"

func startStreams(b *testing.B, kind string) *streamServer {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	s := &streamServer{b: b, cmd: exec.Command(self, "-test.run=^TestStreamServer$")}
	s.cmd.Env, s.cmd.Stderr = append(os.Environ(), streamKind+"="+kind), os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.in, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	s.answers = json.NewDecoder(out)
	if err := s.answers.Decode(&s.place); err != nil {
		_ = s.cmd.Process.Kill()
		b.Fatalf("the server of streams: %v, %v", err, s.cmd.Wait())
	}
	s.idle, s.active = s.place.Idle, s.place.Active
	return s
}

func (s *streamServer) stop() {
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.reading.Wait()
	_ = s.in.Close()
	_, _ = io.Copy(io.Discard, s.answers.Buffered())
	if err := s.cmd.Wait(); err != nil {
		s.b.Errorf("the server of streams: %v", err)
	}
}

// memory asks what the server takes.
func (s *streamServer) memory() (m streamMemory) {
	s.b.Helper()
	if _, err := io.WriteString(s.in, "memory\n"); err != nil {
		s.b.Fatal(err)
	}
	if err := s.answers.Decode(&m); err != nil {
		s.b.Fatal(err)
	}
	return m
}

// open follows a run after the event before the last one, of which there may be none yet,
// and gives how long its first byte took. Its reader notes the last event's number.
func (s *streamServer) open(path string, last *atomic.Int64) (net.Conn, time.Duration) {
	s.b.Helper()
	conn, err := net.Dial("tcp", s.place.Addr)
	if err != nil {
		s.b.Fatal(err)
	}
	s.conns = append(s.conns, conn)
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nLast-Event-ID: %d\r\n\r\n", path, s.place.Addr, max(last.Load()-1, 0))
	buf := make([]byte, 0, 1024)
	start := time.Now()
	if _, err := io.WriteString(conn, request); err != nil {
		s.b.Fatal(err)
	}
	for {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		took := time.Since(start)
		buf = buf[:len(buf)+n]
		if _, body, _ := bytes.Cut(buf, []byte("\r\n\r\n")); bytes.Contains(body, []byte("data:")) {
			s.reading.Go(func() { readStream(conn, buf, last) })
			return conn, took
		}
		if err != nil || len(buf) == cap(buf) {
			s.b.Fatalf("%v after %q", err, buf)
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

// TestStreamServer is the server of BenchmarkStreams, in a process of its own, until its
// input ends.
func TestStreamServer(t *testing.T) {
	var handler http.Handler
	var at streamPlace
	switch os.Getenv(streamKind) {
	case "handler":
		handler = serveRuns(t, &at)
	case "bare":
		handler = serveBare(t, &at)
	default:
		t.Skip("it is a part of BenchmarkStreams")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	served := make(chan error)
	go func() { served <- srv.Serve(l) }()
	at.Addr = l.Addr().String()
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(at); err != nil {
		t.Fatal(err)
	}
	for asked := bufio.NewScanner(os.Stdin); asked.Scan(); {
		if err := answers.Encode(takenMemory()); err != nil {
			t.Fatal(err)
		}
	}
	if err := srv.Close(); err != nil {
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

// serveRuns is the handler, with runs in one sandbox, their logs on disk.
func serveRuns(t *testing.T, at *streamPlace) http.Handler {
	logs, err := runlog.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(string(benchLine(300)), "\n")
	s := serve(t, newPlace(t, func(p *player) {
		tick := time.NewTicker(streamPace)
		defer tick.Stop()
		p.write(line)
		for {
			select {
			case <-p.ctx.Done():
				return
			case <-tick.C:
				if p.prompt == "active" {
					p.write(line)
				}
			}
		}
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
	for range streamRuns {
		at.Idle, at.Active = append(at.Idle, begin("idle")), append(at.Active, begin("active"))
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
func serveBare(t *testing.T, at *streamPlace) http.Handler {
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
		ticking.Go(func() {
			tick := time.NewTicker(streamPace)
			defer tick.Stop()
			for {
				select {
				case <-over:
					return
				case <-tick.C:
					s.tick()
				}
			}
		})
	}
	t.Cleanup(func() {
		close(over)
		ticking.Wait()
	})
	return mux
}
