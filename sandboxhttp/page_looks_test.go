package sandboxhttp_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vivarium-go/vivarium/internal/browsertest"
	"github.com/vivarium-go/vivarium/sandboxhttp"
)

const longAnswer = "## What I did\n\nI wrote `primes.go`, ran it, and **checked** the output against a [table](https://example.com/primes).\n\n" +
	"1. A sieve up to 100\n2. The first 20 of them\n   - printed one a line\n   - `go vet` is clean\n\n" +
	"```go\npackage main\n\nimport \"fmt\"\n\nfunc main() {\n\tfor _, p := range sieve(100)[:20] { // a rather long comment that goes on until the line is wider than a phone\n\t\tfmt.Println(p)\n\t}\n}\n```\n\n" +
	"| n | prime | gap |\n|--:|:-----:|-----|\n| 1 | 2 | 1 |\n| 2 | 3 | 2 |\n| 3 | 5 | 2 |\n\n> Sieves use memory in proportion to the limit.\n\n- [x] written\n- [ ] published\n\nA path that does not break: `/workspace/" + "very-long-directory-name/" + "very-long-directory-name/very-long-directory-name/primes.go`"

// fill puts a conversation with everything in it into a sandbox.
func fill(box *fakeBox) *fakeRun {
	run := box.addRun("Write a small program that prints the first 20 primes, and run it.\nKeep it simple.")
	run.push(lineInit(),
		lineThought("m1", "The user wants primes.\nA sieve is simplest.", 2300), lineText("m1", "I'll write a sieve and run it."),
		lineTool("m1", "t1", "Write", map[string]any{"file_path": "/workspace/primes.go", "content": "package main\n\nfunc main() {}\n"}), lineToolResult("t1", "File created successfully at: /workspace/primes.go", false),
		lineTool("m1", "t2", "Bash", map[string]any{"command": "go vet ./... && go run primes.go | head -n 20", "description": "Vet and run the program"}), lineToolResult("t2", "Exit code 1\n./primes.go:7:2: undefined: sieve", true),
		lineTool("m2", "t3", "Edit", map[string]any{"file_path": "/workspace/primes.go", "old_string": "func main() {}\n", "new_string": "func main() {\n\tprint(sieve(100))\n}\n"}), lineToolResult("t3", "The file has been updated.", false),
		lineTool("m2", "t4", "Bash", map[string]any{"command": "go run primes.go"}), lineToolResult("t4", "\x1b[32m2\n3\n5\n7\x1b[0m\n11", false),
		lineText("m3", longAnswer), lineDone())
	return run
}

func lists(api *fakeAPI) {
	api.add("old-experiment", map[string]any{"state": "ended", "end": "lifetime", "ended_at": time.Now().Add(-2 * time.Hour)})
	api.add("docs-site", map[string]any{"created_at": time.Now().Add(-26 * time.Hour)})
}

// TestPageLooks opens the page in every state, at the size of a phone and of a desk, in light and dark. It checks that nothing is wider
// than the window and that text has contrast; VIVARIUM_SCREENSHOTS=dir keeps what it saw.
func TestPageLooks(t *testing.T) {
	browser := browsertest.Start(t)
	scenes := map[string]func(t *testing.T) *tab{
		"start": func(t *testing.T) *tab {
			p := openTab(t, browser, newFakeAPI(t), "", desktop, &sandboxhttp.PageOptions{Banner: "No model is configured: a scripted stand-in answers."})
			p.untilText("No sandboxes yet")
			return p
		},
		"empty": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			api.add("primes", nil)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			return p
		},
		"answer": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			fill(api.add("primes", map[string]any{"volume_name": "primes"})).end("completed", "")
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("$0.02")
			return p
		},
		"tools": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			fill(api.add("primes", map[string]any{"isolated": false})).end("completed", "")
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("$0.02")
			eval[bool](p, `document.querySelectorAll("details.tool, details.thinking").forEach((d) => (d.open = true)), document.getElementById("log").scrollTop = 0, true`)
			p.untilText("undefined: sieve")
			return p
		},
		"streaming": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			run := api.add("primes", nil).addRun("Explain sieves")
			run.push(lineInit(), lineThought("m1", "Short.", 900), lineTool("m1", "t1", "Bash", map[string]any{"command": "sleep 100"}), lineStart("m2"), lineBlock(0, "text"), lineDelta(0, "A **sieve** crosses out multiples:\n\n1. start at 2\n2. cross out `4, 6, 8"))
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("cross out 4, 6, 8")
			return p
		},
		"error": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			box := api.add("primes", nil)
			fill(box).end("agent_error", "API Error: 401 invalid x-api-key")
			run := box.addRun("And now?")
			run.push(lineInit())
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("invalid x-api-key")
			for range 20 { // longer than it is looked at
				api.refuse("GET /sandbox/{id}/runs/{run}/events", nil)
			}
			run.sever("")
			p.untilText("Reconnecting")
			return p
		},
		"ended": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			box := api.add("primes", map[string]any{"state": "ended", "end": "oom", "ended_at": time.Now()})
			fill(box).end("oom", "")
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("This sandbox has ended")
			p.untilText("$0.02")
			return p
		},
		"delete": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			api.add("primes", map[string]any{"volume_name": "primes"})
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			p.click(`#bar [aria-label="Delete sandbox"]`)
			p.untilText("Save and delete")
			return p
		},
		"versions": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			shelf(api)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			p.click(`#bar [aria-label="Versions"]`)
			p.untilText("10,000 files")
			return p
		},
		"saving": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			shelf(api)
			api.work = make(chan string)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			p.click(`#bar [aria-label="Versions"]`)
			p.untilText("10,000 files")
			p.click(".save .button")
			api.work <- frameOf("saving", "read", 3120, 10000)
			p.untilText("3,120 of 10,000 files")
			return p
		},
		"conflict": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			shelf(api)
			api.refuse("POST /sandbox/{id}/sync", map[string]any{"status": 409, "code": "version_conflict", "title": "Conflict", "detail": "x", "head": "v4"})
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			p.click(`#bar [aria-label="Versions"]`)
			p.untilText("10,000 files")
			p.click(".save .button")
			p.untilText("Another sandbox saved this volume first")
			return p
		},
		"restore": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			shelf(api)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			p.click(`#bar [aria-label="Versions"]`)
			p.click(`[data-id="v4"] button`)
			p.untilText("Save first, then restore")
			return p
		},
		"restoring": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			api.creation = make(chan string)
			p := openTab(t, browser, api, "", desktop, nil)
			p.untilText("No sandboxes yet")
			p.send("go on with the sieve")
			api.creation <- frameOf("restoring", "write", 3120, 10000)
			p.untilText("3,120 of 10,000 files")
			return p
		},
		"question": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			run := api.add("primes", nil).addRun("Publish it")
			script := "set -e\n" + strings.Repeat("git push origin main --follow-tags --atomic --verbose https://git.example.com/a/rather/long/path.git\n", 30)
			run.push(lineInit(), lineText("m1", "I'll push the branch."), lineTool("m1", "t1", "Bash", map[string]any{"command": script, "description": "Push"}))
			run.ask("t1", "Bash", map[string]any{"command": script, "description": "Push the branch and its tags"}, gitPush)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Run git push?")
			return p
		},
		"questions": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			run := api.add("primes", nil).addRun("Publish it")
			run.push(lineInit())
			edit := map[string]any{"file_path": "/workspace/primes.go", "old_string": "func main() {}\n", "new_string": "func main() {\n\tprint(sieve(100))\n}\n"}
			run.push(lineTool("m1", "t1", "Bash", map[string]any{"command": "ls"}), lineTool("m1", "t2", "Edit", edit))
			run.ask("t1", "Bash", map[string]any{"command": "ls"}, nil)
			run.takeBack("t1")
			run.ask("t2", "Edit", edit, map[string]any{"default_to_no": true, "title": "Edit primes.go?\u202e"})
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Edit primes.go?")
			for range 5 {
				api.refuse("POST /sandbox/{id}/runs/{run}/answer", map[string]any{"status": 503, "code": "elsewhere", "title": "Service Unavailable", "detail": "another server looks after this run; ask again", "retryable": true})
			}
			p.press("Allow")
			p.untilText("Not answered")
			return p
		},
		"choices": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			run := api.add("primes", nil).addRun("Set it up")
			run.push(lineInit(), lineTool("m1", "t1", "AskUserQuestion", choices()))
			run.ask("t1", "AskUserQuestion", choices(), nil)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Which database?")
			p.click(".option")
			return p
		},
		"restarting": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			lists(api)
			run := api.add("primes", nil).addRun("Set it up")
			run.push(lineInit(), lineText("m1", "I'll look."))
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("I'll look.")
			for range 20 { // longer than it is looked at
				api.refuse("GET /sandbox/{id}/runs/{run}/events", map[string]any{"status": 503, "code": "shutting_down", "title": "Service Unavailable"})
			}
			run.reconnect()
			p.untilText("The server is being restarted")
			return p
		},
		"token": func(t *testing.T) *tab {
			api := newFakeAPI(t)
			api.token = "secret"
			p := openTab(t, browser, api, "", desktop, nil)
			p.untilText("asks for a token")
			return p
		},
	}
	sizes := map[string]look{"390-light": phone, "390-dark": {390, 844, true}, "1440-light": desktop, "1440-dark": {1440, 900, true}}
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			p := scene(t)
			for size, as := range sizes {
				p.show(as)
				p.settle()
				p.noOverflow()
				if low := eval[[]string](p, contrast); len(low) > 0 {
					t.Errorf("%s: text with too little contrast: %s", size, strings.Join(low, "; "))
				}
				p.keep(name + "-" + size)
			}
		})
	}
}

// contrast lists the texts whose colour stands out less from what is behind it than WCAG 2.2 AA asks for (4.5 to 1; 3 to 1 for large text).
const contrast = `(() => {
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
	const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
	const lum = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
	const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; } return rgba("Canvas"); };
	const out = new Set();
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; (n = walk.nextNode()); ) {
		const e = n.parentElement, s = getComputedStyle(e);
		if (!n.data.trim() || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || e.closest(".offscreen, [inert], noscript") || s.animationName !== "none") continue;
		const [a, b] = [lum(rgba(s.color)), lum(behind(e))].sort((x, y) => y - x);
		const large = parseFloat(s.fontSize) >= 24 || (parseFloat(s.fontSize) >= 18.6 && s.fontWeight >= 700);
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < (large ? 3 : 4.5)) out.add(e.className + " " + JSON.stringify(n.data.slice(0, 30)) + " " + ratio.toFixed(2));
	}
	return [...out];
})()`
