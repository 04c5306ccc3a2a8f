package sandboxhttp_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/figure"
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

// BenchmarkRunLatency is the whole way: from the CLI's writing of a line, through
// packages sandbox and claude, to an HTTP client, against the bare handler on a pipe.
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
	var times figure.Pair
	for b.Loop() {
		times.Measure(func() { ours.trip(b, line) }, func() { theirs.trip(b, line) })
	}
	close(over)
	f.all()
	times.Print(os.Stdout, "run_latency", "bare-handler")
}
