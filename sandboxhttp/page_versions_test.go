package sandboxhttp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/vivarium-go/vivarium/internal/browsertest"
)

// addVersion puts a version on top of those of a sandbox's volume.
func (b *fakeBox) addVersion(id, note string, files int, at time.Time) map[string]any {
	v := map[string]any{"id": id, "note": note, "created_at": at, "conflict": false, "author": "local", "files": files, "size": files * 812, "stored": files * 300, "added": 4096}
	b.versions = append([]map[string]any{v}, b.versions...)
	b.fields["version"] = map[string]any{"id": id, "created_at": at}
	return v
}

const fakePage = 3 // versions on one page

func (f *fakeAPI) versions(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	all := f.box(r).versions
	to := min(from+fakePage, len(all))
	page := map[string]any{"versions": append([]map[string]any{}, all[from:to]...)}
	if to < len(all) {
		page["next_cursor"] = strconv.Itoa(to)
	}
	writeJSON(w, page)
}

func (f *fakeAPI) sync(w http.ResponseWriter, r *http.Request) {
	f.answerWork(w, r, func(b *fakeBox, body map[string]any) map[string]any {
		f.saved = append(f.saved, body)
		note, _ := body["note"].(string)
		return b.addVersion(fmt.Sprintf("saved-%d", len(f.saved)), note, 120, time.Now())
	})
}

func (f *fakeAPI) restore(w http.ResponseWriter, r *http.Request) {
	f.answerWork(w, r, func(b *fakeBox, body map[string]any) map[string]any {
		f.restored = append(f.restored, body["version"].(string))
		for _, v := range b.versions {
			if v["id"] == body["version"] {
				b.fields["version"] = v
				return v
			}
		}
		f.t.Errorf("restored %v", body)
		return nil
	})
}

func (f *fakeAPI) answerWork(w http.ResponseWriter, r *http.Request, do func(*fakeBox, map[string]any) map[string]any) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Errorf("%s: %v", r.URL, err)
	}
	f.mu.Lock()
	frames := f.work
	f.mu.Unlock()
	stream(w)
	for frames != nil {
		select {
		case frame, more := <-frames:
			if !more {
				frames = nil
			}
			io.WriteString(w, frame)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.work = nil
	result, _ := json.Marshal(do(f.box(r), body))
	fmt.Fprintf(w, "event: result\ndata: %s\n\ndata: [DONE]\n\n", result)
}

// holdSandbox makes every GET /sandbox/{id} from here on wait until what comes for it on
// the channel is closed.
func (f *fakeAPI) holdSandbox() <-chan chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = make(chan chan struct{})
	return f.held
}

func frameOf(stage, phase string, files, total int) string {
	return fmt.Sprintf("event: progress\ndata: {\"stage\":%q,\"phase\":%q,\"files\":%d,\"total_files\":%d,\"bytes\":%d,\"total_bytes\":%d}\n\n", stage, phase, files, total, files*8100, total*8100)
}

// shelf is a sandbox whose volume has versions of some days.
func shelf(api *fakeAPI) *fakeBox {
	box := api.add("primes", map[string]any{"volume_name": "primes"})
	day := time.Date(2026, 3, 9, 16, 5, 0, 0, time.UTC)
	box.addVersion("v1", "", 3, day)
	box.addVersion("v2", "the sieve works", 41, day.Add(20*time.Hour))
	box.addVersion("v3", "", 10_240, day.Add(26*time.Hour))["conflict"] = true
	box.addVersion("v4", "tests pass; before the rewrite of the segmented sieve, which may yet turn out to be a mistake", 10_000, day.Add(50*time.Hour))
	return box
}

func TestPageVersions(t *testing.T) {
	browser := browsertest.Start(t)
	open := func(t *testing.T, api *fakeAPI) *tab {
		t.Helper()
		p := openTab(t, browser, api, "#/s/primes", desktop, nil)
		p.untilText("Ready")
		p.click(`#bar [aria-label="Versions"]`)
		return p
	}

	t.Run("lists, a page at a time", func(t *testing.T) {
		api := newFakeAPI(t)
		shelf(api)
		p := open(t, api)
		p.untilText("Versions of “primes”")
		p.untilText("10,000 files · 8.1 MB · by local")
		p.until(`document.querySelector('[data-id="v4"]').textContent.includes("Current") && document.querySelector('[data-id="v3"]').textContent.includes("Kept beside")`)
		p.click(".versions .link")
		p.until(`document.querySelectorAll(".versions li").length === 4 && !document.querySelector(".versions .link")`)
	})

	t.Run("saves with a note and progress", func(t *testing.T) {
		api := newFakeAPI(t)
		shelf(api)
		api.work = make(chan string)
		p := open(t, api)
		p.untilText("10,000 files")
		p.do(chromedp.SendKeys("#version-note", "done at last"))
		p.enter()
		api.work <- frameOf("saving", "list", 0, 0)
		p.untilText("Saving the files: looking at the files…")
		api.work <- frameOf("saving", "read", 40, 120)
		p.untilText("Saving the files: 40 of 120 files, 324 kB of 972 kB…")
		p.until(`document.querySelector("progress").value > 0.3 && document.querySelector(".versions button").disabled`)
		close(api.work)
		p.untilText("Saved 120 files.")
		p.until(`document.querySelector('[data-id="saved-1"]')?.textContent.includes("done at last") && document.querySelector('[data-id="saved-1"]').textContent.includes("Current")`)
		p.until(`!document.querySelector("progress") && document.getElementById("version-note").value === ""`)
		if got := api.saved[0]["note"]; len(api.saved) != 1 || got != "done at last" {
			t.Errorf("saved %v", api.saved)
		}
	})

	t.Run("asks before it restores", func(t *testing.T) {
		api := newFakeAPI(t)
		shelf(api)
		p := open(t, api)
		p.click(`[data-id="v3"] button`)
		p.untilText("is gone, unless you save it first")
		p.until(`document.activeElement.textContent === "Cancel"`)
		p.enter()
		p.until(`document.querySelectorAll("dialog").length === 1`)
		p.click(`[data-id="v3"] button`)
		p.click("dialog .button.danger")
		p.untilText("Restored 10,240 files")
		p.until(`document.querySelector('[data-id="v3"]').textContent.includes("Current") && !document.querySelector('[data-id="v4"]').textContent.includes("Current")`)
		if len(api.saved) != 0 || len(api.restored) != 1 || api.restored[0] != "v3" {
			t.Errorf("saved %v, restored %v", api.saved, api.restored)
		}
		p.click(`[data-id="v4"] button`)
		p.click("dialog .buttons button:nth-child(2)")
		p.untilText("Restored 10,000 files")
		if len(api.saved) != 1 || len(api.restored) != 2 || api.restored[1] != "v4" {
			t.Errorf("saved %v, restored %v", api.saved, api.restored)
		}
	})

	t.Run("works with the keyboard alone", func(t *testing.T) {
		api := newFakeAPI(t)
		shelf(api)
		p := openTab(t, browser, api, "#/s/primes", desktop, nil)
		p.untilText("Ready")
		p.do(chromedp.Focus(`#bar [aria-label="Versions"]`))
		p.enter()
		p.until(`document.activeElement.closest("dialog")`)
		p.untilText("10,000 files")
		p.do(chromedp.Focus(`[data-id="v4"] button`))
		p.enter()
		p.untilText("Save first, then restore")
		p.do(chromedp.KeyEvent("\x1b"))
		p.until(`document.querySelectorAll("dialog").length === 1 && document.activeElement.closest('[data-id="v4"]')`)
		p.do(chromedp.KeyEvent("\x1b"))
		p.until(`document.querySelectorAll("dialog").length === 0 && document.activeElement.closest("#bar")`)
	})

	t.Run("errors say what to do", func(t *testing.T) {
		api := newFakeAPI(t)
		shelf(api)
		api.refuse("GET /sandbox/{id}/versions", map[string]any{"status": 502, "code": "volume_failed", "title": "Bad Gateway", "detail": "the volume's versions could not be listed"})
		p := open(t, api)
		p.untilText("The versions cannot be listed")
		p.click(".panel .notice .button")
		p.untilText("10,000 files")
		api.refuse("POST /sandbox/{id}/restore", map[string]any{"status": 409, "code": "run_in_progress", "title": "Conflict", "detail": "run 7 works with the files"})
		p.click(`[data-id="v4"] button`)
		p.click("dialog .button.danger")
		p.untilText("Not restored: Conflict")
		p.untilText("Wait until Claude has finished, or stop it.")
		api.refuse("POST /sandbox/{id}/sync", map[string]any{"status": 409, "code": "version_conflict", "title": "Conflict", "detail": "x", "head": "v9", "version": map[string]any{"id": "v8", "note": "mine"}})
		p.click(".save .button")
		p.untilText("Another sandbox saved this volume first")
		p.click(".panel .notice .button")
		p.untilText("Saved 120 files.")
		if got := api.saved; len(got) != 1 || got[0]["parent"] != "v9" || got[0]["note"] != "mine" {
			t.Errorf("saved %v", got)
		}
	})

	t.Run("is cut and taken up again", func(t *testing.T) {
		api := newFakeAPI(t)
		shelf(api)
		p := open(t, api)
		p.untilText("10,000 files")
		api.refuse("POST /sandbox/{id}/sync", nil)
		api.refuse("POST /sandbox/{id}/sync", map[string]any{"status": 409, "code": "idempotency_in_flight", "title": "In flight"})
		p.click(".save .button")
		p.untilText("Saved 120 files.")
	})

	t.Run("only lists when the sandbox has ended", func(t *testing.T) {
		api := newFakeAPI(t)
		box := shelf(api)
		box.fields["state"], box.fields["end"] = "ended", "lifetime"
		p := openTab(t, browser, api, "#/s/primes", desktop, nil)
		p.click(`#bar [aria-label="Versions"]`)
		p.untilText("10,000 files")
		p.until(`!document.querySelector(".save")?.checkVisibility() && document.querySelectorAll(".versions li").length === 3 && !document.querySelector(".versions li button")`)
	})

	t.Run("not without a volume", func(t *testing.T) {
		api := newFakeAPI(t)
		api.add("primes", nil)
		p := openTab(t, browser, api, "#/s/primes", desktop, nil)
		p.untilText("Ready")
		p.until(`!document.querySelector('#bar [aria-label="Versions"]')`)
	})
}

// Which version is the current one is told by the sandbox, which is read again after
// each save and restore. A list that comes first must not be drawn with what was
// current before, so the sandbox's answer is held back for as long as a list is asked for.
func TestPageCurrentVersion(t *testing.T) {
	browser := browsertest.Start(t)
	for name, test := range map[string]struct {
		change  func(p *tab)
		current string
	}{
		"after a save": {func(p *tab) { p.click(".save .button") }, "saved-1"},
		"after a restore": {func(p *tab) {
			p.click(`[data-id="v3"] button`)
			p.click("dialog .button.danger")
		}, "v3"},
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t)
			shelf(api)
			p := openTab(t, browser, api, "#/s/primes", desktop, nil)
			p.untilText("Ready")
			p.click(`#bar [aria-label="Versions"]`)
			p.untilText("10,000 files")
			held := api.holdSandbox()
			eval[bool](p, countLists)
			test.change(p)
			var release chan struct{}
			select {
			case release = <-held:
			case <-time.After(patience):
				t.Fatal("the sandbox was not read again")
			}
			// The page calls fetch for both in one go or not at all, and this runs after that.
			if eval[int](p, `lists.asked`) > 0 {
				p.until(`lists.read > 0`)
				p.settle()
			}
			close(release)
			p.until(`[...document.querySelectorAll(".versions li")].filter((e) => e.textContent.includes("Current")).map((e) => e.dataset.id).join() === ` + quote(test.current))
		})
	}
}

// countLists counts from here on how often versions were asked for, and their answer read.
const countLists = `(() => {
	const real = fetch;
	window.lists = { asked: 0, read: 0 };
	window.fetch = async (url, ...rest) => {
		const list = new URL(url, location).pathname.endsWith("/versions");
		if (list) lists.asked++;
		const answer = await real(url, ...rest);
		if (list) answer.clone().text().then(() => lists.read++);
		return answer;
	};
	return true;
})()`
