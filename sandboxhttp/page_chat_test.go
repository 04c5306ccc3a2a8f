package sandboxhttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/vivarium-go/vivarium/internal/browsertest"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

// TestPageChat drives the page in a real browser against a server that does what the test says.
func TestPageChat(t *testing.T) {
	browser := browsertest.Start(t)
	open := func(t *testing.T, api *fakeAPI, hash string) *tab {
		t.Helper()
		return openTab(t, browser, api, hash, desktop, nil)
	}

	t.Run("creates with progress, then asks", func(t *testing.T) {
		api := newFakeAPI(t)
		api.creation = make(chan string)
		p := open(t, api, "")
		p.click(".settings summary")
		p.do(chromedp.SendKeys("#set-name", "my-box"), chromedp.SendKeys("#set-volume", "work"))
		p.send("make a file")
		api.creation <- "event: progress\ndata: {\"stage\":\"creating\"}\n\n"
		p.untilText("Creating the sandbox")
		api.creation <- "event: progress\ndata: {\"stage\":\"restoring\"}\n\n"
		p.untilText("Restoring the workspace")
		api.creation <- frameOf("restoring", "write", 3120, 10000)
		p.untilText("3,120 of 10,000 files, 25.3 MB of 81.0 MB")
		p.until(`document.querySelector(".steps .done").textContent.includes("Creating")`)
		p.keep("creating")
		close(api.creation)
		run := api.next()
		if run.prompt != "make a file" || run.body["session_id"] != nil {
			t.Errorf("the first message was %v", run.body)
		}
		p.until(`location.hash === "#/s/made-1"`)
		p.until(`document.querySelector("#list [aria-current=page]").textContent.includes("my-box")`)
		if c := api.created[0]; len(api.created) != 1 || c["name"] != "my-box" || c["volume_name"] != "work" || len(c) != 2 {
			t.Errorf("created %v", api.created)
		}
	})

	t.Run("a creation that is cut is taken up with the same key", func(t *testing.T) {
		api := newFakeAPI(t)
		api.refuse("POST /sandbox", nil)
		p := open(t, api, "")
		p.send("hello")
		api.next()
		p.until(`location.hash === "#/s/made-1"`)
	})

	t.Run("a refused creation keeps the message and says what to do", func(t *testing.T) {
		api := newFakeAPI(t)
		api.refuse("POST /sandbox", map[string]any{"status": 422, "code": "unsupported_setting", "title": "Unsupported setting", "detail": "This server has no volumes",
			"errors": []any{map[string]any{"field": "volume_name", "detail": "no volumes are configured"}}})
		p := open(t, api, "")
		p.send("my long message")
		p.untilText("No sandbox was made")
		p.untilText("volume_name: no volumes are configured")
		p.until(`document.getElementById("prompt").value === "my long message"`)
		p.until(`document.querySelector(".settings").open`)
		p.keep("refused")
	})

	t.Run("shows words before the end, as Markdown", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		p.send("hi")
		run := api.next()
		p.untilText("Starting Claude")
		run.push(lineInit(), lineStart("m1"), lineBlock(0, "thinking"), lineThink(0, "secret thought"))
		p.untilText("Thinking")
		run.push(lineThought("m1", "secret thought", 1500), lineBlock(1, "text"), lineDelta(1, "Some **bol"))
		p.until(`document.querySelector(".prose strong")?.textContent === "bol"`)
		p.until(`!document.getElementById("stop").hidden && document.getElementById("send").hidden`)
		if strings.Contains(p.text(), "secret thought") {
			t.Error("thinking is not folded")
		}
		run.push(lineDelta(1, "d** and `co"))
		p.until(`document.querySelector(".prose code")?.textContent === "co"`)
		run.push(lineText("m1", "Some **bold** and `code`."), lineDone())
		run.end("completed", "")
		p.untilText("4.2 s · 2 turns · $0.02")
		p.until(`document.getElementById("stop").hidden`)
		if got := eval[string](p, `document.querySelector(".prose").textContent`); got != "Some bold and code." {
			t.Errorf("the answer reads %q", got)
		}
		p.until(`document.getElementById("announce").textContent.includes("Some **bold**")`)
		p.send("more")
		if got := api.next().body["session_id"]; got != "session-1" {
			t.Errorf("the second message goes to session %v", got)
		}
	})

	t.Run("tool calls fold", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit(), lineTool("m1", "t1", "Bash", map[string]any{"command": "make test\u202e", "description": "Run the tests"}))
		p := open(t, api, "#/s/a")
		p.until(`document.querySelector(".tool")?.dataset.state === "running"`)
		p.untilText("make testU+202E")
		run.push(lineToolResult("t1", "Exit code 2\nboom happened", true))
		p.until(`document.querySelector(".tool").dataset.state === "failed"`)
		p.untilText("Exit code 2: boom happened")
		if eval[bool](p, `document.querySelector(".tool").open`) {
			t.Error("the call is unfolded")
		}
		p.do(chromedp.Focus(".tool summary"), chromedp.KeyEvent("\r"))
		p.until(`document.querySelector(".tool .error pre")?.textContent === "Exit code 2\nboom happened"`)
		p.until(`document.querySelector(".tool .command pre .ctl")?.textContent === "U+202E"`)
		p.click(".tool summary")
		p.until(`!document.querySelector(".tool").open`)
	})

	t.Run("stops", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		p.send("hi")
		run := api.next()
		run.push(lineInit(), lineTool("m1", "t1", "Bash", map[string]any{"command": "sleep 1000"}))
		p.until(`document.querySelector(".tool")?.dataset.state === "running"`)
		p.send("draft")
		if got := eval[string](p, `document.getElementById("prompt").value`); got != "draft" {
			t.Errorf("the draft is %q", got)
		}
		p.untilText("Your message stays here")
		p.click("#stop")
		p.untilText("Stopped. What Claude did so far is kept")
		p.until(`document.querySelector(".tool").dataset.state === "stopped"`)
		p.until(`!document.getElementById("send").hidden && document.getElementById("prompt").value === "draft"`)
	})

	t.Run("reconnects, and shows each event once", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		p.send("hi")
		run := api.next()
		run.push(lineInit(), lineStart("m1"), lineBlock(0, "text"), lineDelta(0, "one "))
		p.untilText("one")
		run.sever("id: 5\ndata: " + lineDelta(0, "half")[:40]) // an event that never was whole
		run.push(lineDelta(0, "two "))
		p.untilText("one two")
		run.sever("")
		run.push(lineDelta(0, "three"))
		p.untilText("one two three")
		run.push(lineText("m1", "one two three"), lineDone())
		run.end("completed", "")
		p.untilText("$0.02")
		if got := eval[[]string](p, `[...document.querySelectorAll(".prose")].map((e) => e.textContent)`); !slices.Equal(got, []string{"one two three"}) {
			t.Errorf("the answer reads %q", got)
		}
		if got := run.askedAfter(); !slices.Equal(got, []int{4, 5}) {
			t.Errorf("asked for the events after %d, want after 4 and 5", got)
		}
	})

	t.Run("a message is sent once, whatever is cut", func(t *testing.T) {
		api := newFakeAPI(t)
		box := api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		api.refuse("POST /sandbox/{id}/claude", nil)
		api.refuse("POST /sandbox/{id}/claude", map[string]any{"status": 409, "code": "idempotency_in_flight", "title": "In flight"})
		p.send("hi")
		run := api.next()
		run.push(lineInit(), lineText("m1", "hello"), lineDone())
		run.end("completed", "")
		p.untilText("$0.02")
		if len(box.runs) != 1 || eval[int](p, `document.querySelectorAll(".run").length`) != 1 {
			t.Errorf("%d runs on the server", len(box.runs))
		}
	})

	t.Run("errors say what to do", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		api.refuse("POST /sandbox/{id}/claude", map[string]any{"status": 502, "code": "provider_failed", "title": "The sandbox did not answer", "detail": "The machine behind is busy", "request_id": "req-9"})
		p.send("hi")
		p.untilText("Not sent: The sandbox did not answer")
		p.untilText("The machine behind is busy. Try again")
		p.untilText("Request req-9")
		p.click(".foot-note .button")
		run := api.next()
		run.push(lineInit())
		run.end("agent_error", "the model said no")
		p.untilText("Claude ended with an error.")
		p.untilText("the model said no")
		if n := eval[int](p, `document.querySelectorAll(".run").length`); n != 1 {
			t.Errorf("%d messages are shown", n)
		}
	})

	t.Run("says that the model is asked again", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		p := open(t, api, "#/s/a")
		run.push(lineInit(), `{"type":"system","subtype":"api_retry","attempt":2,"max_retries":10,"retry_delay_ms":4000,"error_status":529}`)
		p.untilText("The model did not answer (529); trying again in 4.0 s, attempt 2 of 10")
	})

	t.Run("restores the conversation", func(t *testing.T) {
		api := newFakeAPI(t)
		box := api.add("a", nil)
		for i := range 13 {
			run := box.addRun(fmt.Sprintf("question %d.", i))
			run.push(lineInit(), lineText("m1", fmt.Sprintf("answer %d.", i)), lineDone())
			run.end("completed", "")
		}
		p := open(t, api, "#/s/a")
		p.untilText("answer 12.")
		p.until(`document.querySelectorAll(".figures").length === 10`)
		p.untilText("Show earlier messages (3)")
		p.do(chromedp.SendKeys("#prompt", "a draft"))
		p.do(chromedp.Reload())
		p.untilText("answer 12.")
		p.until(`document.getElementById("prompt").value === "a draft"`)
		p.until(`document.querySelectorAll(".figures").length === 10`)
		p.until(`(() => { const l = document.getElementById("log"); return l.scrollHeight - l.scrollTop - l.clientHeight < 2; })()`)
		p.click(".older button")
		p.untilText("answer 0.")
		want := make([]string, 13)
		for i := range want {
			want[i] = fmt.Sprintf("answer %d.", i)
		}
		p.until(`document.querySelectorAll(".figures").length === 13`)
		if got := eval[[]string](p, `[...document.querySelectorAll(".prose")].map((e) => e.textContent)`); !slices.Equal(got, want) {
			t.Errorf("the answers are %q", got)
		}
	})

	t.Run("a new conversation in the same files", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit())
		run.end("completed", "")
		p := open(t, api, "#/s/a")
		p.until(`document.querySelectorAll(".figures").length === 1`)
		p.click(`[aria-label="New conversation"]`)
		p.send("fresh")
		if got := api.next().body["session_id"]; got != nil {
			t.Errorf("the message goes to session %v", got)
		}
		p.untilText("New conversation, same files")
	})

	t.Run("follows what is written until the reader scrolls up", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit(), lineStart("m1"), lineBlock(0, "text"))
		p := open(t, api, "#/s/a")
		lines := func(from, to int) {
			for i := from; i < to; i++ {
				run.push(lineDelta(0, fmt.Sprintf("line %d\n\n", i)))
			}
			p.untilText(fmt.Sprintf("line %d", to-1))
		}
		const gap = `(() => { const l = document.getElementById("log"); return l.scrollHeight - l.scrollTop - l.clientHeight; })()`
		lines(0, 60)
		p.until(gap + " < 2")
		p.until(`document.getElementById("jump").hidden`)
		p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error { return wheel(ctx, target, -600) }))
		p.until(gap + " > 300")
		p.until(`!document.getElementById("jump").hidden`)
		top := eval[float64](p, `document.getElementById("log").scrollTop`)
		lines(60, 120)
		p.settle()
		if got := eval[float64](p, `document.getElementById("log").scrollTop`); got != top {
			t.Errorf("the reader was moved from %v to %v", top, got)
		}
		p.click("#jump")
		p.until(gap + " < 2")
		lines(120, 180)
		p.until(gap + " < 2")
	})

	t.Run("what a model or a tool writes does nothing", func(t *testing.T) {
		attack := "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><svg onload=\"document.title='owned'\">" +
			"[x](javascript:document.title='owned') ![y](https://tracker.invalid/pixel.png) <iframe srcdoc=\"<script>parent.document.title='owned'</script>\">"
		api := newFakeAPI(t)
		box := api.add("a", map[string]any{"name": attack, "tags": map[string]any{attack: attack}})
		run := box.addRun(attack)
		run.push(lineInit(), lineThought("m1", attack, 5), lineText("m1", attack+"\n\n```"+attack+"\n"+attack+"\n```\n\n| "+attack+" | b |\n|--|--|\n| "+attack+" | c |"),
			lineTool("m1", "t1", attack, map[string]any{attack: attack, "command": attack}), lineToolResult("t1", attack, true),
			lineTool("m1", "__proto__", "__proto__", map[string]any{"__proto__": attack}), lineToolResult("__proto__", attack, false),
			`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"image","source":{"type":"base64","media_type":"image/svg+xml","data":"PHN2Zy8+"}},{"type":"image","source":{"type":"url","url":"https://tracker.invalid/x.png"}}]}]}}`,
			`{"type":"system","subtype":"informational","content":`+quote(attack)+`}`)
		run.end("agent_error", attack)
		p := open(t, api, "#/s/a")
		p.until(`document.querySelectorAll(".figures").length === 1`)
		eval[bool](p, `document.querySelectorAll("details").forEach((d) => (d.open = true)), true`)
		p.until(`document.querySelectorAll(".tool .answered pre").length > 1`)
		p.click(`[aria-label="Details"]`)
		p.until(`document.querySelector("dialog")`)
		p.settle()
		if bad := eval[[]string](p, `[...document.querySelectorAll("#main img, #main iframe, #main script, svg[onload], dialog img, #list img, a[href^='javascript']")].map((e) => e.outerHTML)`); len(bad) > 0 {
			t.Errorf("text became elements: %q", bad)
		}
		if title := eval[string](p, "document.title"); title == "owned" {
			t.Error("a script ran")
		}
		if loads := eval[[]string](p, `performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith(location.origin))`); len(loads) > 0 {
			t.Errorf("loaded from elsewhere: %q", loads)
		}
	})

	t.Run("deletes after asking, and never loses files silently", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("a", map[string]any{"volume_name": "work"})
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		p.click(`#bar [aria-label="Delete sandbox"]`)
		p.untilText("Save and delete")
		p.do(chromedp.KeyEvent("\x1b"))
		p.until(`!document.querySelector("dialog")`)
		api.refuse("DELETE /sandbox/{id}", map[string]any{"status": 502, "code": "sync_failed", "title": "Saving failed", "detail": "the bucket does not answer"})
		p.click(`#bar [aria-label="Delete sandbox"]`)
		p.click("dialog .danger")
		p.untilText("was not deleted")
		p.untilText("the bucket does not answer. The sandbox and its files are still there.")
		if len(api.deleted) != 0 {
			t.Fatalf("deleted %q", api.deleted)
		}
		p.click("dialog .danger") // without saving
		p.until(`location.hash === "#/"`)
		p.untilText("Ended (1)")
		if !slices.Equal(api.deleted, []string{"/sandbox/a?sync=false"}) {
			t.Errorf("deleted %q", api.deleted)
		}
		p.click(".old summary")
		p.untilText("It was deleted")
	})

	t.Run("asks for a token", func(t *testing.T) {
		api := newFakeAPI(t)
		api.token = "right"
		api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.until(`document.querySelector("dialog")`)
		p.do(chromedp.KeyEvent("\x1b"))
		p.untilText("Enter a valid token to go on")
		p.click(".trouble .button")
		p.do(chromedp.SendKeys("#token", "wrong\r"))
		p.untilText("The token was not accepted")
		p.do(chromedp.SendKeys("#token", "right\r"))
		p.until(`document.querySelector("#list [data-id=a]")`)
		p.click(".notice .button")
		p.untilText("Ready")
		p.do(chromedp.Reload())
		p.untilText("Ready")
		if p.send("hi"); api.next().prompt != "hi" {
			t.Error("the message did not come")
		}
		if kept := eval[int](p, "localStorage.length"); kept != 0 {
			t.Error("something is kept beyond the tab")
		}
	})

	t.Run("an input method's Enter does not send", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("a", nil)
		p := open(t, api, "#/s/a")
		p.untilText("Ready")
		p.do(chromedp.Focus("#prompt"))
		if _, err := chromedp.Call(p.ctx, input.ImeSetComposition, input.ImeSetCompositionParams{Text: "かんじ", SelectionStart: 3, SelectionEnd: 3}); err != nil {
			t.Fatal(err)
		}
		eval[bool](p, `document.getElementById("prompt").dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))`)
		if _, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: "漢字"}); err != nil {
			t.Fatal(err)
		}
		p.do(chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierShift)))
		p.send("two")
		if got := api.next().prompt; got != "漢字\ntwo" {
			t.Errorf("sent %q", got)
		}
	})

	t.Run("the list is a drawer on a phone", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("other", nil)
		api.add("a", nil)
		p := openTab(t, browser, api, "#/s/a", phone, nil)
		p.untilText("Ready")
		if !eval[bool](p, `document.getElementById("side").inert`) {
			t.Error("the closed drawer can be reached by keyboard")
		}
		p.click(`[aria-label="Show sandboxes"]`)
		p.until(`document.getElementById("side").contains(document.activeElement)`)
		p.settle()
		p.keep("drawer")
		p.do(chromedp.KeyEvent("\x1b"))
		p.until(`document.getElementById("side").inert && document.activeElement.getAttribute("aria-label") === "Show sandboxes"`)
		p.click(`[aria-label="Show sandboxes"]`)
		p.settle()
		p.click(`#list [data-id="other"] a`)
		p.until(`location.hash === "#/s/other" && document.querySelector("h1").textContent === "other"`)
		p.until(`document.getElementById("side").inert`)
	})

	t.Run("a sandbox that is not there", func(t *testing.T) {
		p := open(t, newFakeAPI(t), "#/s/nothing")
		p.untilText("There is no such sandbox")
	})

	t.Run("a server that is away", func(t *testing.T) {
		api := newFakeAPI(t)
		for range 50 { // the browser tries more than once on its own
			api.refuse("GET /sandbox", nil)
		}
		p := open(t, api, "")
		p.untilText("The server does not answer")
		api.accept("GET /sandbox")
		p.click(".trouble .button")
		p.until(`!document.querySelector(".trouble")`)
	})

	t.Run("works under a prefix", func(t *testing.T) {
		page, err := sandboxhttp.NewPage("/v1/sandbox", &sandboxhttp.PageOptions{Title: "Workbench", Suggestions: []string{"try this"}})
		if err != nil {
			t.Fatal(err)
		}
		api := newFakeAPI(t)
		api.add("a", nil)
		p := openURL(t, browser, serveUnder(t, api, page)+"/chat/", desktop)
		p.until(`document.querySelector("#list [data-id=a]")`)
		p.click(".chip")
		p.until(`document.getElementById("prompt").value === "try this"`)
		p.until(`document.title === "Workbench"`)
	})
}

func wheel(ctx context.Context, target *chromedp.Target, by float64) error {
	_, err := cdp.Call(ctx, target, input.DispatchMouseEvent, input.DispatchMouseEventParams{
		Type: input.DispatchMouseEventTypeMouseWheel, X: 800, Y: 400, DeltaX: 1e-3, DeltaY: by,
	})
	return err
}

func serveUnder(t *testing.T, api, page http.Handler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/v1/", http.StripPrefix("/v1", api))
	mux.Handle("/chat/", page)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return server.URL
}
