package sandboxhttp_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/internal/browsertest"
)

// gitPush is what a question says of itself beside the tool and its input.
var gitPush = map[string]any{
	"title": "Run git push?", "description": "Publishes the branch", "decision_reason": "it reaches the network",
	"permission_suggestions": []any{map[string]any{"type": "addRules", "behavior": "allow", "destination": "session", "rules": []any{map[string]any{"toolName": "Bash", "ruleContent": "git push:*"}}}},
}

const asked = `document.querySelector(".question:not([hidden])")`

// askIn opens a run in which Claude asks whether it may push.
func askIn(t *testing.T, browser context.Context, more map[string]any) (*fakeAPI, *fakeRun, *tab) {
	t.Helper()
	api := newFakeAPI(t)
	run := api.add("a", nil).addRun("publish it")
	p := openTab(t, browser, api, "#/s/a", desktop, nil)
	p.untilText("Starting Claude")
	input := map[string]any{"command": "git push origin main"}
	run.push(lineInit(), lineTool("m1", "t1", "Bash", input))
	run.ask("t1", "Bash", input, more)
	p.until(asked + `?.dataset.state === "open"`)
	return api, run, p
}

// press clicks the card's button of a name.
func (p *tab) press(label string) {
	p.Helper()
	p.until(`(document.querySelector("[data-press]")?.removeAttribute("data-press"), [...document.querySelectorAll(".question button")].find((b) => b.textContent === ` + quote(label) + `)?.setAttribute("data-press", "") === undefined && document.querySelector("[data-press]"))`)
	p.settle()
	p.click("[data-press]")
}

func (p *tab) buttons() []string {
	p.Helper()
	return eval[[]string](p, `[...document.querySelectorAll(".question button:not(.copy)")].map((b) => b.textContent)`)
}

// untilAnswered waits for the page's answers, and compares them.
func untilAnswered(p *tab, run *fakeRun, want ...map[string]any) {
	p.Helper()
	p.until(asked + `.dataset.state !== "open" && ` + asked + `.dataset.state !== "sending"`)
	if diff := cmp.Diff(want, run.answered()); diff != "" {
		p.Errorf("answers (-want +got):\n%s", diff)
	}
}

func TestPageQuestions(t *testing.T) {
	browser := browsertest.Start(t)

	t.Run("says what is asked, and takes each answer", func(t *testing.T) {
		for button, c := range map[string]struct {
			why, says string
			want      map[string]any
		}{
			"Allow":                      {"", "you allowed it", map[string]any{"question": "t1", "allow": true}},
			"Allow and do not ask again": {"", "are not asked again", map[string]any{"question": "t1", "allow": true, "remember": true}},
			"Deny":                       {"use a branch", "you denied it (use a branch)", map[string]any{"question": "t1", "allow": false, "message": "use a branch"}},
			"Deny and stop":              {"", "you denied it and stopped Claude", map[string]any{"question": "t1", "allow": false, "interrupt": true}},
		} {
			_, run, p := askIn(t, browser, gitPush)
			for _, text := range []string{"Run git push?", "Publishes the branch", "Why it asks: it reaches the network", "Not asked again: Bash(git push:*) in this conversation", "Waiting for your answer"} {
				p.untilText(text)
			}
			p.until(`document.querySelector(".question .command pre").textContent === "git push origin main"`)
			p.until(`document.querySelector(".tool").dataset.state === "asked" && document.querySelector(".tool + .question")`)
			if c.why != "" {
				p.do(chromedp.SendKeys(".question .row input", c.why))
			}
			p.press(button)
			untilAnswered(p, run, c.want)
			p.untilText(c.says)
			if n := len(p.buttons()); n > 0 {
				t.Errorf("%s: %d buttons stay", button, n)
			}
			p.until(`document.querySelector(".tool").dataset.state === "running"`)
		}
	})

	t.Run("offers what may be offered", func(t *testing.T) {
		suppressed := map[string]any{"suppress_always_allow_rule": true, "permission_suggestions": gitPush["permission_suggestions"]}
		for name, more := range map[string]map[string]any{"no suggestions": nil, "suppressed": suppressed} {
			_, _, p := askIn(t, browser, more)
			if diff := cmp.Diff([]string{"Allow", "Deny", "Deny and stop"}, p.buttons()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
			p.untilText("Claude wants to use Bash")
		}
	})

	t.Run("by keyboard only", func(t *testing.T) {
		_, run, p := askIn(t, browser, gitPush)
		p.until(`document.activeElement.textContent === "Allow"`)
		p.until(`document.getElementById("announce").textContent === "Claude waits for your answer. Run git push? git push origin main"`)
		p.until(`document.getElementById(document.activeElement.closest("[role=group]").getAttribute("aria-labelledby")).textContent.includes("Run git push?")`)
		p.enter()
		untilAnswered(p, run, map[string]any{"question": "t1", "allow": true})
		p.until(`document.activeElement.id === "prompt"`)
		p.until(`document.getElementById("announce").textContent.includes("you allowed it")`)
	})

	t.Run("Enter does not allow what is dangerous", func(t *testing.T) {
		_, run, p := askIn(t, browser, map[string]any{"default_to_no": true})
		p.until(`document.activeElement.textContent === "Deny"`)
		p.enter()
		untilAnswered(p, run, map[string]any{"question": "t1", "allow": false})
	})

	t.Run("nobody who writes is interrupted", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		p := openTab(t, browser, api, "#/s/a", desktop, nil)
		p.untilText("Starting Claude")
		p.do(chromedp.SendKeys("#prompt", "and then"))
		run.push(lineInit())
		run.ask("t1", "Bash", map[string]any{"command": "ls"}, nil)
		p.untilText("Claude waits for your answer above.")
		p.until(`document.activeElement.id === "prompt"`)
		p.do(chromedp.KeyEvent("\t", chromedp.KeyModifiers(chromedp.ModifierShift)))
		p.until(`document.activeElement.textContent === "Deny and stop"`)
		p.do(chromedp.KeyEvent("x"))
		p.until(`document.activeElement.id === "prompt" && document.activeElement.value === "and thenx"`)
		if got := run.answered(); len(got) > 0 {
			t.Errorf("answered %v", got)
		}
	})

	t.Run("marks the tab and the list", func(t *testing.T) {
		_, run, p := askIn(t, browser, nil)
		const marked = `document.title === "Claude asks · a · vivarium" && document.querySelector("link[rel=icon]").href.endsWith("/icon-asks.svg") && document.querySelector("#list .dot.asking")`
		p.until(marked)
		p.until(`fetch(document.querySelector("link[rel=icon]").href).then((r) => r.ok)`)
		p.press("Allow")
		untilAnswered(p, run, map[string]any{"question": "t1", "allow": true})
		p.until(`document.title === "a · vivarium" && document.querySelector("link[rel=icon]").href.endsWith("/icon.svg") && !document.querySelector("#list .dot.asking")`)
	})

	elsewhere := map[string]any{"status": 503, "code": "elsewhere", "title": "Service Unavailable", "detail": "another server looks after this run", "retryable": true}
	const route = "POST /sandbox/{id}/runs/{run}/answer"

	t.Run("finds the server that takes the answer", func(t *testing.T) {
		api, run, p := askIn(t, browser, nil)
		api.refuse(route, elsewhere)
		api.refuse(route, elsewhere)
		p.press("Allow")
		p.untilText("Trying again (2)")
		if !eval[bool](p, `[...document.querySelectorAll(".question .row button")].every((b) => b.getAttribute("aria-disabled") === "true")`) {
			t.Error("a button can be pressed while the answer is sent")
		}
		p.press("Deny") // does nothing
		untilAnswered(p, run, map[string]any{"question": "t1", "allow": true})
	})

	t.Run("an answer that cannot be given can be given again", func(t *testing.T) {
		api, run, p := askIn(t, browser, nil)
		for range 5 {
			api.refuse(route, elsewhere)
		}
		p.press("Allow")
		p.untilText("Not answered: Service Unavailable")
		p.keep("question-refused")
		api.refuse(route, map[string]any{"status": 403, "code": "forbidden", "title": "Forbidden"})
		p.press("Deny")
		p.untilText("Not answered: Forbidden")
		p.press("Allow")
		untilAnswered(p, run, map[string]any{"question": "t1", "allow": true})
	})

	for name, c := range map[string]struct {
		do   func(api *fakeAPI, run *fakeRun, p *tab)
		says string
	}{
		"the tool's result came": {func(_ *fakeAPI, run *fakeRun, _ *tab) {
			run.answerElsewhere("t1")
			run.push(lineToolResult("t1", "pushed", false))
		}, "answered"},
		"another client answered": {func(_ *fakeAPI, run *fakeRun, _ *tab) { run.answerElsewhere("t1") }, "answered"},
		"another client was first": {func(_ *fakeAPI, run *fakeRun, p *tab) {
			run.answerElsewhere("t1")
			p.press("Deny")
		}, "answered"},
		"Claude took it back": {func(_ *fakeAPI, run *fakeRun, _ *tab) { run.takeBack("t1") }, "no longer asked"},
		"the run ended":       {func(_ *fakeAPI, run *fakeRun, _ *tab) { run.end("cancelled", "") }, "no longer asked"},
		"the run ended, unseen": {func(api *fakeAPI, _ *fakeRun, p *tab) {
			api.refuse(route, map[string]any{"status": 409, "code": "run_ended", "title": "Conflict"})
			p.press("Allow")
		}, "no longer asked"},
		"it was answered during a reconnect": {func(_ *fakeAPI, run *fakeRun, _ *tab) {
			run.answerElsewhere("t1")
			run.reconnect()
		}, "answered"},
	} {
		t.Run("no dead buttons: "+name, func(t *testing.T) {
			api, run, p := askIn(t, browser, nil)
			c.do(api, run, p)
			p.untilText("Permission for Bash: " + c.says)
			if b := p.buttons(); len(b) > 0 {
				t.Errorf("buttons stay: %q", b)
			}
			if got := run.answered(); len(got) > 0 {
				t.Errorf("answered %v", got)
			}
			p.until(`document.title === "a · vivarium"`)
		})
	}

	t.Run("a page that is loaded later knows", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit())
		for i := range 4 {
			id := fmt.Sprintf("t%d", i+1)
			input := map[string]any{"command": "echo " + id}
			run.push(lineTool("m1", id, "Bash", input))
			run.ask(id, "Bash", input, nil)
		}
		run.answerElsewhere("t1")
		run.push(lineToolResult("t1", "t1", false))
		run.takeBack("t2")
		run.answerElsewhere("t3") // and its tool still runs
		p := openTab(t, browser, api, "#/s/a", desktop, nil)
		const states = `[...document.querySelectorAll(".question")].map((q) => q.dataset.state).join()`
		p.until(states + ` === "answered,withdrawn,unsure,open"`)
		p.until(states + ` === "answered,withdrawn,answered,open"`)
		p.do(chromedp.Reload())
		p.until(states + ` === "answered,withdrawn,answered,open"`)
		p.press("Allow")
		p.untilText("you allowed it")
		run.end("completed", "")
		p.do(chromedp.Reload())
		p.until(states + ` === "answered,withdrawn,withdrawn,withdrawn"`)
	})

	t.Run("a question whose event is gone", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit())
		run.questions.open = []map[string]any{{"id": "t9", "tool": "Bash", "title": "Run make?", "input": map[string]any{"command": "make"}}}
		p := openTab(t, browser, api, "#/s/a", desktop, nil)
		p.untilText("Run make?")
		p.until(`document.activeElement.textContent === "Deny"`)
		p.press("Allow")
		untilAnswered(p, run, map[string]any{"question": "t9", "allow": true})
	})

	t.Run("all of what it is about can be seen", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit())
		run.ask("t1", "Edit", map[string]any{"file_path": "/a", "old_string": "", "new_string": strings.Repeat("line\n", 999) + "the last"}, nil)
		run.ask("t2", "Bash", map[string]any{"command": strings.Repeat("true; ", 5000) + "the end"}, nil)
		p := openTab(t, browser, api, "#/s/a", desktop, nil)
		for _, end := range []string{"the last", "the end"} {
			p.do(chromedp.Focus(".question .more"))
			p.enter()
			p.until(`[...document.querySelectorAll(".question pre")].some((e) => e.textContent.trimEnd().endsWith(` + quote(end) + `))`)
		}
		if tall := eval[bool](p, `[...document.querySelectorAll(".question .what")].some((e) => e.clientHeight > 400)`); tall {
			t.Error("an input is shown without a bound")
		}
	})

	t.Run("a subagent's question is not folded away", func(t *testing.T) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit(), lineTool("m1", "t1", "Task", map[string]any{"description": "look"}),
			`{"type":"assistant","parent_tool_use_id":"t1","message":{"id":"s1","content":[{"type":"tool_use","id":"t2","name":"Bash","input":{"command":"ls"}}]}}`)
		run.ask("t2", "Bash", map[string]any{"command": "ls"}, nil)
		p := openTab(t, browser, api, "#/s/a", desktop, nil)
		p.until(`document.querySelector(".reply > .tool + .question")`)
		p.press("Allow")
		untilAnswered(p, run, map[string]any{"question": "t2", "allow": true})
	})

	t.Run("what it says does nothing, and hides nothing", func(t *testing.T) {
		attack := "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\u202e\x1b[31m"
		_, run, p := askIn(t, browser, map[string]any{"title": attack, "description": attack, "decision_reason": attack, "display_name": attack,
			"permission_suggestions": []any{nil, 7, map[string]any{"type": attack, "rules": []any{nil, map[string]any{"toolName": attack, "ruleContent": attack}}}}})
		run.ask("t2", attack, map[string]any{attack: attack, "command": attack}, nil)
		run.ask("t3", "AskUserQuestion", map[string]any{"questions": []any{map[string]any{"question": attack, "header": attack, "options": []any{map[string]any{"label": attack, "description": attack, "preview": attack}}}}}, nil)
		run.ask("t4", "AskUserQuestion", map[string]any{"questions": "none"}, nil)
		run.ask("t5", "__proto__", nil, nil)
		p.until(`document.querySelectorAll('.question[data-state="open"]').length === 5`)
		p.settle()
		if bad := eval[[]string](p, `[...document.querySelectorAll("#main img, #main script")].map((e) => e.outerHTML)`); len(bad) > 0 {
			t.Errorf("text became elements: %q", bad)
		}
		if text := p.text(); cmp.Equal(text, "") || eval[bool](p, `/[\u202e\u001b]/.test(document.querySelector(".runs").textContent)`) {
			t.Errorf("a hidden character is not shown as such:\n%s", text)
		}
		p.noOverflow()
	})
}

// choices are questions of the tool AskUserQuestion.
func choices() map[string]any {
	option := func(label, about string) map[string]any { return map[string]any{"label": label, "description": about} }
	return map[string]any{"questions": []any{
		map[string]any{"question": "Which database?", "header": "Database", "multiSelect": false, "options": []any{option("SQLite", "One file"), option("PostgreSQL", "A server")}},
		map[string]any{"question": "Which parts first?", "header": "Parts", "multiSelect": true, "options": []any{option("Tests", ""), option("Docs", "What users read"), option("Code", "")}},
	}}
}

func TestPageAsksForChoices(t *testing.T) {
	browser := browsertest.Start(t)
	ask := func(t *testing.T) (*fakeRun, *tab) {
		api := newFakeAPI(t)
		run := api.add("a", nil).addRun("x")
		run.push(lineInit(), lineTool("m1", "t1", "AskUserQuestion", choices()))
		run.ask("t1", "AskUserQuestion", choices(), nil)
		p := openTab(t, browser, api, "#/s/a", desktop, nil)
		p.until(`document.querySelectorAll(".question fieldset").length === 2`)
		p.until(`document.activeElement.type === "radio"`)
		return run, p
	}
	check := func(p *tab, label string) {
		p.until(`([...document.querySelectorAll(".option")].find((o) => o.textContent.startsWith(` + quote(label) + `))?.click(), true)`)
	}
	answers := func(database, parts string) map[string]any {
		input := choices()
		input["answers"] = map[string]any{"Which database?": database, "Which parts first?": parts}
		return map[string]any{"question": "t1", "allow": true, "input": input}
	}

	t.Run("chosen", func(t *testing.T) {
		run, p := ask(t)
		p.press("Answer") // with nothing chosen
		check(p, "PostgreSQL")
		p.press("Answer") // with one question left
		check(p, "Tests")
		check(p, "Code")
		if got := run.answered(); len(got) > 0 {
			t.Errorf("answered %v", got)
		}
		p.press("Answer")
		untilAnswered(p, run, answers("PostgreSQL", "Tests, Code"))
		p.untilText("You answered: PostgreSQL; Tests, Code")
	})

	t.Run("written", func(t *testing.T) {
		run, p := ask(t)
		p.do(chromedp.SendKeys(".question .other", "Berkeley DB"))
		check(p, "Docs")
		p.do(chromedp.Focus(".question .other"))
		p.enter()
		untilAnswered(p, run, answers("Berkeley DB", "Docs"))
	})

	t.Run("not answered", func(t *testing.T) {
		run, p := ask(t)
		p.press("Do not answer")
		untilAnswered(p, run, map[string]any{"question": "t1", "allow": false, "message": "The user did not want to answer."})
	})
}
