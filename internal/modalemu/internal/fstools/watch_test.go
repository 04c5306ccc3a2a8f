package fstools_test

import (
	"bufio"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/modalemu/internal/process"
)

type line struct {
	Type  string `json:"event_type"`
	Paths []string
}

// lines gives the events as they come.
func (p *place) lines(tool *process.Process) func() (line, error) {
	r, w := io.Pipe()
	p.t.Cleanup(func() { r.Close() })
	go func() {
		buf := make([]byte, 4096)
		for off := int64(0); ; {
			n, err := tool.Stdout.ReadAt(p.ctx, buf, off)
			off += int64(n)
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			if err != nil {
				w.CloseWithError(err)
				return
			}
		}
	}()
	in := bufio.NewReader(r)
	return func() (l line, err error) {
		text, err := in.ReadString('\n')
		if err == nil {
			err = json.Unmarshal([]byte(text), &l)
		}
		return l, err
	}
}

// until makes a change again and again, as nothing says that the watch has
// begun, until an event is as wanted.
func (p *place) until(next func() (line, error), change string, wanted func(line) bool) {
	p.t.Helper()
	found := make(chan error, 1)
	go func() {
		for {
			l, err := next()
			if err != nil || wanted(l) {
				found <- err
				return
			}
		}
	}()
	for {
		p.sh(change)
		select {
		case err := <-found:
			if err != nil {
				p.t.Error(err)
			}
			return
		case <-p.ctx.Done():
			p.t.Fatal("no such event came")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func is(typ string, paths ...string) func(line) bool {
	return func(l line) bool { return l.Type == typ && slices.Equal(l.Paths, paths) }
}

func TestWatchEvents(t *testing.T) {
	p := newPlace(t)
	p.sh("mkdir -p /tmp/w/sub /tmp/out; ln -s w /tmp/link; echo x > /tmp/w/old")
	for _, root := range []string{"/tmp/w", "/tmp/link"} {
		tool := p.start(`{"Watch":{"path":"` + root + `","recursive":true,"filter":null,"timeout_secs":null}}`)
		next := p.lines(tool)
		p.until(next, "rm -f /tmp/w/f; touch /tmp/w/f", is("Create", "/tmp/w/f"))
		p.until(next, "rm -f /tmp/w/f; touch /tmp/w/f", is("Remove", "/tmp/w/f"))
		p.until(next, "date > /tmp/w/old", is("Modify", "/tmp/w/old"))
		p.until(next, "cat /tmp/w/old", is("Access", "/tmp/w/old"))
		p.until(next, "touch /tmp/w/sub/g; rm /tmp/w/sub/g", is("Create", "/tmp/w/sub/g"))
		p.until(next, "touch /tmp/w/1; mv /tmp/w/1 /tmp/w/sub/2", is("Rename", "/tmp/w/1", "/tmp/w/sub/2"))
		p.until(next, "touch /tmp/out/m; mv /tmp/out/m /tmp/w/m", is("RenameTo", "/tmp/w/m"))
		p.until(next, "touch /tmp/w/m; mv /tmp/w/m /tmp/out/m", is("RenameFrom", "/tmp/w/m"))
		if err := tool.Stdin.Write(p.ctx, 0, nil, true); err != nil {
			t.Error(err)
		}
		if exit, err := tool.Wait(p.ctx); err != nil || exit != (process.Exit{}) {
			t.Errorf("when stdin ends: %+v %v", exit, err)
		}
	}
}

func TestWatchFilterAndScope(t *testing.T) {
	p := newPlace(t)
	p.sh("mkdir -p /tmp/w/sub")
	removes := p.start(`{"Watch":{"path":"/tmp/w","recursive":false,"filter":["Remove"],"timeout_secs":null}}`)
	none := p.start(`{"Watch":{"path":"/tmp/w","recursive":true,"filter":[],"timeout_secs":null}}`)
	p.until(p.lines(removes), "touch /tmp/w/sub/x; rm /tmp/w/sub/x; touch /tmp/w/x; rm /tmp/w/x", is("Remove", "/tmp/w/x"))
	for _, tool := range []*process.Process{removes, none} {
		if err := tool.Stdin.Write(p.ctx, 0, nil, true); err != nil {
			t.Error(err)
		}
		if exit, err := tool.Wait(p.ctx); err != nil || exit != (process.Exit{}) {
			t.Errorf("%+v %v", exit, err)
		}
	}
	for l := range strings.Lines(p.all(&removes.Stdout)) {
		if !strings.Contains(l, `"Remove"`) || strings.Contains(l, "/sub/") {
			t.Errorf("not asked for: %s", l)
		}
	}
	if got := p.all(&none.Stdout); got != "" {
		t.Errorf("an empty filter let through %s", got)
	}
}

func TestWatchEnds(t *testing.T) {
	p := newPlace(t)
	p.sh("mkdir -p /tmp/w /tmp/gone; touch /tmp/file")
	for _, timeout := range []string{"0", "1"} {
		start := time.Now()
		_, kind := p.run(`{"Watch":{"path":"/tmp/w","recursive":true,"timeout_secs":`+timeout+`}}`, "")
		if kind != "" || time.Since(start) > 10*time.Second {
			t.Errorf("timeout %s: %q after %s", timeout, kind, time.Since(start))
		}
	}
	tool := p.start(`{"Watch":{"path":"/tmp/gone","recursive":true}}`)
	p.until(p.lines(tool), "mkdir -p /tmp/gone; touch /tmp/gone/x; rm -r /tmp/gone", is("Remove", "/tmp/gone"))
	if exit, err := tool.Wait(p.ctx); err != nil || exit != (process.Exit{}) {
		t.Errorf("what was watched is gone: %+v %v", exit, err)
	}
	file := p.start(`{"Watch":{"path":"/tmp/file","recursive":false}}`)
	p.until(p.lines(file), "echo x > /tmp/file", is("Modify", "/tmp/file"))
	if err := p.box.Terminate(p.ctx); err != nil {
		t.Fatal(err)
	}
	if exit, err := file.Wait(p.ctx); err != nil || exit.Code != -1 {
		t.Errorf("the sandbox ended: %+v %v", exit, err)
	}
}
