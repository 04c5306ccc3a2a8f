package sandboxhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// patience is how long a test waits for what should come at once: only a failing test waits it out.
const patience = 30 * time.Second

// tab is one browser tab with storage of its own. Whatever the page writes to the console as an error fails the test.
type tab struct {
	*testing.T
	ctx context.Context
	url string
}

type look struct {
	width, height int64
	dark          bool
}

var (
	desktop = look{width: 1440, height: 900}
	phone   = look{width: 390, height: 844}
)

// openTab serves the page over api and opens hash in a new tab.
func openTab(t *testing.T, browser context.Context, api *fakeAPI, hash string, as look, opts *sandboxhttp.PageOptions) *tab {
	t.Helper()
	page, err := sandboxhttp.NewPage("/sandbox", opts)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/sandbox", api)
	mux.Handle("/sandbox/", api)
	mux.Handle("/", page)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return openURL(t, browser, server.URL+"/"+hash, as)
}

func openURL(t *testing.T, browser context.Context, url string, as look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &tab{T: t, ctx: ctx, url: url}
	if err := chromedp.Do(ctx); err != nil { // not through p.do: the tab lives as long as the first call's context
		t.Fatal(err)
	}
	p.watchConsole()
	p.show(as)
	p.do(chromedp.Navigate(url))
	return p
}

// watchConsole fails the test for every error and every violation of the Content-Security-Policy that the page causes.
func (p *tab) watchConsole() {
	messages := chromedp.Console(p.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for m, err := range messages {
			if err != nil {
				return // the tab is closed
			}
			if m.Source == "network" { // an answer that is an error, which the tests ask for
				continue
			}
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.Type == chromedp.ConsoleException {
				p.Errorf("the console says: %s: %s %s", m.Type, m.Text, m.URL)
			}
		}
	})
	p.Cleanup(func() {
		if err := chromedp.Cancel(p.ctx); err != nil {
			p.Logf("close the tab: %v", err)
		}
		done.Wait()
	})
}

func (p *tab) show(as look) {
	p.Helper()
	scheme := "light"
	if as.dark {
		scheme = "dark"
	}
	size := []chromedp.EmulateViewportOption{}
	if as.width < 760 {
		size = append(size, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
	}
	p.do(chromedp.EmulateViewport(as.width, as.height, size...))
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, media); err != nil {
		p.Fatal(err)
	}
}

// settle waits until the page has been drawn as it stands: transitions have ended, and two frames have passed.
func (p *tab) settle() {
	p.Helper()
	eval[bool](p, `(async () => {
		const frame = () => new Promise(requestAnimationFrame);
		await frame(), await frame();
		await Promise.all(document.getAnimations().filter((a) => a instanceof CSSTransition).map((a) => a.finished.catch(() => {})));
		await frame();
		return true;
	})()`)
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.keep("failed")
		p.Fatal(err)
	}
}

func eval[T any](p *tab, js string) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		p.Fatalf("%.300s: %v", js, err)
	}
	return v
}

// until waits for an expression to be true.
func (p *tab) until(js string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[bool]("Boolean("+js+")", chromedp.WithPollingInterval(20*time.Millisecond)))
	if err != nil {
		text := eval[string](p, "document.body.innerText")
		p.keep("failed")
		p.Fatalf("never true: %s: %v\nthe page reads:\n%s", js, err, text)
	}
}

// untilText waits until the page shows a text.
func (p *tab) untilText(text string) {
	p.Helper()
	p.until("document.body.innerText.includes(" + quote(text) + ")")
}

func (p *tab) text() string {
	p.Helper()
	return eval[string](p, "document.body.innerText")
}

// click presses the middle of an element, as a mouse does.
func (p *tab) click(selector string) {
	p.Helper()
	p.until(`document.querySelector(` + quote(selector) + `)?.checkVisibility({ visibilityProperty: true })`)
	at := eval[[]float64](p, `(() => {
		const e = document.querySelector(`+quote(selector)+`);
		e.scrollIntoView({ block: "nearest" });
		const r = e.getBoundingClientRect();
		return [r.x + r.width / 2, r.y + r.height / 2];
	})()`)
	p.do(chromedp.MouseClickXY(at[0], at[1]))
}

// send writes a message and presses Enter.
func (p *tab) send(text string) {
	p.Helper()
	p.do(chromedp.SendKeys("#prompt", text))
	p.enter()
}

// enter presses Enter as a keyboard does: a page that handles the key keeps it from making a new line.
func (p *tab) enter() {
	p.Helper()
	for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		event := input.DispatchKeyEventParams{Type: kind, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13}
		if kind == input.DispatchKeyEventTypeKeyDown {
			event.Text = "\r"
		}
		if _, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, event); err != nil {
			p.Fatal(err)
		}
	}
}

// noOverflow checks that nothing is wider than the window.
func (p *tab) noOverflow() {
	p.Helper()
	wide := eval[[]string](p, `[...document.querySelectorAll("body *")].filter((e) => {
		if (e.closest("pre, .table, dialog, .side, .offscreen, .skip") || !e.getClientRects().length) return false;
		const r = e.getBoundingClientRect();
		return r.right > innerWidth + 1 || r.left < -1;
	}).map((e) => e.tagName + "." + e.className)`)
	if len(wide) > 0 || eval[bool](p, "document.documentElement.scrollWidth > innerWidth || document.getElementById('log').scrollWidth > document.getElementById('log').clientWidth") {
		p.Errorf("wider than the window: %q", wide)
	}
}

// keep saves a screenshot where VIVARIUM_SCREENSHOTS says.
func (p *tab) keep(name string) {
	p.Helper()
	dir := os.Getenv("VIVARIUM_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.Logf("screenshot %s: %v", name, err)
		return
	}
	if name == "failed" {
		name += "-" + strings.NewReplacer("/", "_", " ", "_").Replace(p.Name())
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		p.Fatal(err)
	}
}
