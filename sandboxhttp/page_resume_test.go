package sandboxhttp_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/vivarium-go/vivarium/claude/runlog"
	"github.com/vivarium-go/vivarium/internal/browsertest"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// onAndOff is a server at one address that can be away.
type onAndOff struct {
	t       *testing.T
	handler http.Handler
	addr    string
	server  *http.Server
}

func serveOnAndOff(t *testing.T, api http.Handler) *onAndOff {
	mux := http.NewServeMux()
	mux.Handle("/sandbox", api)
	mux.Handle("/sandbox/", api)
	mux.Handle("/", sandboxhttp.Page("/sandbox"))
	s := &onAndOff{t: t, handler: mux, addr: "127.0.0.1:0"}
	s.on()
	t.Cleanup(s.off)
	return s
}

func (s *onAndOff) on() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = l.Addr().String()
	server := &http.Server{Handler: s.handler}
	s.server = server
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("serve: %v", err)
		}
	}()
}

// off refuses connections, and cuts those there are.
func (s *onAndOff) off() {
	if err := s.server.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
}

// countTries counts from here on how often events were asked for without an answer that is a stream, and keeps what the page said meanwhile.
const countTries = `(() => {
	const real = fetch;
	window.tries = 0;
	window.said = new Set();
	new MutationObserver(() => said.add(document.querySelector(".now .label").textContent)).observe(document.body, { subtree: true, childList: true, characterData: true });
	window.fetch = async (url, ...rest) => {
		const events = new URL(url, location).pathname.endsWith("/events");
		try {
			const answer = await real(url, ...rest);
			if (events && !answer.ok) tries++;
			return answer;
		} catch (err) {
			if (events) tries++;
			throw err;
		}
	};
	return true;
})()`

// TestPageResumes takes the server away from a page that follows a run.
func TestPageResumes(t *testing.T) {
	browser := browsertest.Start(t)
	away := map[string]any{"status": 503, "code": "shutting_down", "title": "Service Unavailable", "retryable": true}
	for name, absence := range map[string]func(p *tab, api *fakeAPI, s *onAndOff){
		"at once": func(*tab, *fakeAPI, *onAndOff) {},
		"answers that it ends": func(p *tab, api *fakeAPI, _ *onAndOff) {
			p.until(`tries >= 3`)
		},
		"refuses connections": func(p *tab, _ *fakeAPI, s *onAndOff) {
			s.off()
			p.until(`tries >= 3`)
			s.on()
		},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t)
			api.add("a", nil)
			s := serveOnAndOff(t, api)
			p := openURL(t, browser, "http://"+s.addr+"/#/s/a", desktop)
			p.untilText("Ready")
			p.send("hi")
			run := api.next()
			run.push(lineInit(), lineStart("m1"), lineBlock(0, "text"), lineDelta(0, "one "))
			p.untilText("one")
			eval[bool](p, countTries)
			if name == "answers that it ends" {
				for range 3 {
					api.refuse("GET /sandbox/{id}/runs/{run}/events", away)
				}
			}
			run.reconnect()
			p.until(`[...said].some((s) => s.includes("The server is being restarted"))`)
			run.push(lineDelta(0, "two "))
			absence(p, api, s)
			p.untilText("one two")
			p.until(`document.querySelector(".now .label").textContent === "Writing"`)
			if eval[bool](p, `[...said].some((s) => s.includes("Connection lost"))`) {
				t.Error("a server that said it ends is reported as a lost connection")
			}
			run.push(lineDelta(0, "three"))
			run.reconnect() // and once more, with everything seen
			run.push(lineText("m1", "one two three"), lineDone())
			run.end("completed", "")
			p.untilText("$0.02")
			if got := eval[[]string](p, `[...document.querySelectorAll(".prose")].map((e) => e.textContent)`); !slices.Equal(got, []string{"one two three"}) {
				t.Errorf("the answer reads %q", got)
			}
			if n := eval[int](p, `document.querySelectorAll(".run").length`); n != 1 {
				t.Errorf("%d runs are shown", n)
			}
			if after := run.askedAfter(); after[0] != 4 || !slices.IsSorted(after) {
				t.Errorf("asked for the events after %d", after)
			}
		})
	}
}

// TestPageAcrossServers has a question asked by one server and answered through the next, each of them real.
func TestPageAcrossServers(t *testing.T) {
	browser := browsertest.Start(t)
	withAndWithoutLogs(t, func(t *testing.T, logs runlog.Store) {
		place, keep := newPlace(t, askTwice), durable(new(sandboxhttp.MemoryStore), logs)
		first := serve(t, place, keep)
		box := first.create("")
		var current atomic.Pointer[sandboxhttp.Handler]
		current.Store(first.handler)
		mux := http.NewServeMux()
		api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-Test-Account", "acme")
			current.Load().ServeHTTP(w, r)
		})
		mux.Handle("/sandbox", api)
		mux.Handle("/sandbox/", api)
		mux.Handle("/", sandboxhttp.Page("/sandbox"))
		front := httptest.NewServer(mux)
		t.Cleanup(front.Close)
		t.Cleanup(front.CloseClientConnections)

		p := openURL(t, browser, front.URL+"/#/s/"+strings.TrimPrefix(box, "/sandbox/"), desktop)
		p.untilText("Ready")
		p.send("go")
		p.untilText("Run ls?")
		first.shutdown()
		p.untilText("The server is being restarted")
		p.press("Allow and do not ask again") // nobody takes it yet
		p.untilText("Trying again (2)")
		current.Store(serve(t, place, keep).handler)
		p.untilText("you allowed it, and are not asked again")
		p.until(`document.querySelectorAll('.question[data-state="open"]').length === 1`)
		p.do(chromedp.SendKeys(".question .row input", "not that"))
		p.press("Deny")
		p.untilText("you denied it (not that)")
		p.until(`document.querySelectorAll(".figures").length === 1`)
		// It says what it was answered; the question to the server that is gone was answered once.
		said := eval[[]string](p, `[...document.querySelectorAll(".prose")].map((e) => e.textContent)`)
		if len(said) != 2 || !strings.Contains(said[0], "acceptEdits") || !strings.Contains(said[1], "not that") {
			t.Errorf("Claude was answered %q", said)
		}
	})
}
