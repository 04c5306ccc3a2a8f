package sandboxhttp_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/claude"
	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/internal/figure"
	"github.com/vivarium-go/vivarium/sandbox"
	"github.com/vivarium-go/vivarium/sandbox/pool"
	"github.com/vivarium-go/vivarium/sandboxhttp"
	"github.com/vivarium-go/vivarium/sandboxhttp/internal/eventlog"
)

// The benchmarks compare the way of an event through the log with the least that
// any server does: a handler that copies a pipe, line by line, as events. Both
// read the same kind of pipe in the same process, and one after the other in the
// same loop. The last lines of each are its figures.

// bare writes and flushes every line of a pipe as an event.
func bare(pipe io.Reader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		lines := bufio.NewReaderSize(pipe, 64<<10)
		for id := 1; ; id++ {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(w, "id: %d\ndata: %s\n", id, line)
			_ = rc.Flush()
		}
	})
}

// logged puts the lines of a pipe into a log and serves that.
func logged(pipe io.Reader) http.Handler {
	log := eventlog.New(32 << 20)
	go func() {
		lines := bufio.NewReaderSize(pipe, 64<<10)
		for {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				log.End("end", []byte("{}"))
				return
			}
			log.Append("", line[:len(line)-1])
		}
	}()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = eventlog.Timing{}.Serve(w, r, log, 0)
	})
}

// wire is a pipe at one end and an HTTP client at the other.
type wire struct {
	in     *os.File
	events *bufio.Reader
}

func newWire(b *testing.B, handler func(io.Reader) http.Handler) *wire {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(handler(r))
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = w.Close()
		_ = resp.Body.Close()
		srv.Close()
		_ = r.Close()
	})
	return &wire{w, bufio.NewReaderSize(resp.Body, 64<<10)}
}

// trip writes a line and waits until the client has its event.
func (w *wire) trip(b *testing.B, line []byte) {
	if _, err := w.in.Write(line); err != nil {
		b.Fatal(err)
	}
	w.read(b, 1)
}

// read reads so many events.
func (w *wire) read(b *testing.B, n int) {
	for n > 0 {
		line, err := w.events.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if len(line) == 1 {
			n--
		}
	}
}

func benchLine(size int) []byte {
	return []byte(`{"type":"stream_event","text":"` + strings.Repeat("x", size-34) + "\"}\n")
}

// BenchmarkEventLatency is from the writing of a line of 300 bytes into a pipe
// until an HTTP client has it.
func BenchmarkEventLatency(b *testing.B) {
	line := benchLine(300)
	theirs, ours := newWire(b, bare), newWire(b, logged)
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() { ours.trip(b, line) }, func() { theirs.trip(b, line) })
	}
	times.Print(os.Stdout, "event_latency", "bare-handler")
}

// BenchmarkEventThroughput is how many lines of 300 bytes reach one client in a
// second when they come as fast as they are taken.
func BenchmarkEventThroughput(b *testing.B) {
	const burst = 20_000
	lines := bytes.Repeat(benchLine(300), burst)
	theirs, ours := newWire(b, bare), newWire(b, logged)
	push := func(w *wire) {
		go func() { _, _ = w.in.Write(lines) }()
		w.read(b, burst)
	}
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() { push(ours) }, func() { push(theirs) })
	}
	rate := func(took []time.Duration) float64 { return burst / figure.Quantile(took, 0.5).Seconds() }
	own, peer := rate(times.Ours), rate(times.Peer)
	b.ReportMetric(own, "events/s")
	figure.Line(os.Stdout, "event_throughput", own, "events/s", own/peer, "bare-handler")
}

// BenchmarkRunLatency is the way from the CLI's file in the sandbox, through packages
// sandbox and claude, to an HTTP client, against the bare handler on a pipe. The test
// writes both.
func BenchmarkRunLatency(b *testing.B) {
	line := benchLine(300)
	players, over := make(chan *player, 1), make(chan struct{})
	s := serve(b, newPlace(b, func(p *player) {
		players <- p
		<-over
		p.succeed()
	}), nil)
	f := s.prompt(s.create(""), "go")
	p := <-players
	theirs, ours := newWire(b, bare), &wire{p.stdout, f.br}
	ours.read(b, 1) // the answer to this server
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() { ours.trip(b, line) }, func() { theirs.trip(b, line) })
	}
	close(over)
	f.all()
	times.Print(os.Stdout, "run_latency", "bare-handler")
}

// pace is a CLI that answers a prompt "N" with so many lines, one each millisecond,
// which say when they were written.
func pace(stdin io.Reader, stdout io.Writer) {
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Type      string `json:"type"`
			RequestID string `json:"request_id"`
			Message   struct {
				Content string `json:"content"`
			} `json:"message"`
		}
		_ = json.Unmarshal(lines.Bytes(), &line)
		switch line.Type {
		case "control_request":
			fmt.Fprintf(stdout, `{"type":"control_response","response":{"subtype":"success","request_id":"%s","response":{}}}`+"\n", line.RequestID)
		case "user":
			n, _ := strconv.Atoi(line.Message.Content)
			tick := time.NewTicker(time.Millisecond)
			for range n {
				<-tick.C
				fmt.Fprintf(stdout, `{"type":"stream_event","at":%d,"text":"%0240d"}`+"\n", time.Now().UnixNano(), 0)
			}
			tick.Stop()
			fmt.Fprintln(stdout, `{"type":"result","subtype":"success","is_error":false,"result":"done"}`)
			return
		}
	}
}

// onTheWay reads the events of a pace to their end, and gives how long each was on its way.
func onTheWay(b *testing.B, events *bufio.Reader) (list []time.Duration) {
	for {
		line, err := events.ReadSlice('\n')
		now := time.Now()
		if err != nil {
			b.Fatal(err)
		}
		data, ok := bytes.CutPrefix(line, []byte(`data: {"type":"stream_event","at":`))
		if ok {
			at, _, _ := bytes.Cut(data, []byte(","))
			nanos, err := strconv.ParseInt(string(at), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			list = append(list, now.Sub(time.Unix(0, nanos)))
		}
		if bytes.Contains(line, []byte(`"subtype":"success","is_error"`)) {
			return list
		}
	}
}

// BenchmarkDurableLatency is the whole way with everything that makes it durable: a CLI
// that is a program writes a line, in a sandbox of this machine, to the journal there; an
// HTTP client gets it, and it goes to a log on disk. Against the same program on a pipe
// to the bare handler.
func BenchmarkDurableLatency(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	logs, err := runlog.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s := localServer(b, localPlace(b), func(c *sandboxhttp.Config) {
		c.Store, c.Pool, c.Logs = new(sandboxhttp.MemoryStore), &pool.Options{Store: new(pool.MemoryStore)}, logs
		c.Sandbox = &sandbox.Config{Mounts: []sandbox.Mount{{Source: self, Target: "/opt/fake/" + paceName}}, Timeout: 10 * time.Minute}
		c.Claude = &claude.Options{CLIPath: "/opt/fake/" + paceName}
	})
	box := s.create("")
	var times figure.Pair
	for b.Loop() {
		f := s.prompt(box, paced200)
		times.Ours = append(times.Ours, onTheWay(b, f.br)...)
		f.close()
		times.Peer = append(times.Peer, barePace(b, self)...)
	}
	times.Print(os.Stdout, "durable_latency", "bare-pipe-and-handler")
}

const (
	paceName = "pace-claude" // makes the test's binary a pace
	paced200 = "200"         // a prompt of it
)

// barePace is how long the lines of a pace take through a pipe and the bare handler.
func barePace(b *testing.B, self string) []time.Duration {
	cmd := exec.Command(self)
	cmd.Args[0], cmd.Stdin = paceName, strings.NewReader(`{"type":"user","message":{"content":"`+paced200+`"}}`+"\n")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(bare(out))
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	list := onTheWay(b, bufio.NewReaderSize(resp.Body, 64<<10))
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return list
}
