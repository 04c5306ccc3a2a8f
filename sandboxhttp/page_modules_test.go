package sandboxhttp_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vivarium-go/vivarium/internal/browsertest"
)

// TestPageModules runs the page's modules in a real browser, each test with data of its own.
func TestPageModules(t *testing.T) {
	p := openTab(t, browsertest.Start(t), newFakeAPI(t), "", desktop, nil)
	for name, test := range map[string]func(*tab){
		"markdown": testMarkdown, "markdown grows": testMarkdownGrows, "markdown that is hostile": testMarkdownHostile,
		"event stream": testSSE, "event stream in bytes": testSSEBytes, "run": testRun, "questions": testQuestions, "safe text": testSafeText,
	} {
		t.Run(name, func(t *testing.T) { test(p.in(t)) })
	}
}

// in is the tab for a subtest.
func (p *tab) in(t *testing.T) *tab {
	q := *p
	q.T = t
	return &q
}

// with is JavaScript that has a module of the page in m.
func with(module, body string) string {
	return `(async () => {
		const m = await import(new URL("` + module + `", document.querySelector("script").src));
		` + body + `
	})()`
}

// testMarkdown renders Markdown in a real browser and compares the tree.
func testMarkdown(p *tab) {
	for name, c := range map[string]struct{ in, want string }{
		"paragraphs":        {"one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"},
		"hard breaks":       {"one  \ntwo\\\nthree", "<p>one<br>two<br>three</p>"},
		"emphasis":          {"*a* **b** ***c*** _d_ ~~e~~", "<p><em>a</em> <strong>b</strong> <em><strong>c</strong></em> <em>d</em> <del>e</del></p>"},
		"emphasis in words": {"foo*bar*baz snake_case_name 2 * 3 * 4", "<p>foo<em>bar</em>baz snake_case_name 2 * 3 * 4</p>"},
		"nested emphasis":   {"**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"},
		"rule of three":     {"foo***bar***baz *foo**bar*", "<p>foo<em><strong>bar</strong></em>baz <em>foo**bar</em></p>"},
		"code spans":        {"`a` ``b`c`` `` ` `` `d", "<p><code>a</code> <code>b`c</code> <code>`</code> `d</p>"},
		"escapes":           {`\*a\* &amp; &#65; &nope; \z`, `<p>*a* &amp; A &amp;nope; \z</p>`},
		"headings":          {"# a #\n### b\n#no\n\ntitle\n===\n\nsub\n---", `<h3 class="h1">a</h3><h5 class="h3">b</h5><p>#no</p><h3 class="h1">title</h3><h4 class="h2">sub</h4>`},
		"rule":              {"a\n\n---\n\n* * *", "<p>a</p><hr><hr>"},
		"tight list":        {"- a\n- b\n  - c\n- d", `<ul class="tight"><li><p>a</p></li><li><p>b</p><ul class="tight"><li><p>c</p></li></ul></li><li><p>d</p></li></ul>`},
		"loose list":        {"- a\n\n- b", `<ul><li><p>a</p></li><li><p>b</p></li></ul>`},
		"ordered list":      {"3. a\n4. b", `<ol class="tight" start="3"><li><p>a</p></li><li><p>b</p></li></ol>`},
		"list after text":   {"text\n- a\n\n1) b", `<p>text</p><ul class="tight"><li><p>a</p></li></ul><ol class="tight"><li><p>b</p></li></ol>`},
		"number in text":    {"It was\n1986. A good year", "<p>It was\n1986. A good year</p>"},
		"code in a list":    {"1. a\n\n   ```\n   x\n\n   y\n   ```\n2. b", `<ol><li><p>a</p>` + codeHTML("text", "x\n\ny") + `</li><li><p>b</p></li></ol>`},
		"tasks":             {"- [x] a\n- [ ] b", `<ul class="tight"><li class="task">` + box + `<p>a</p></li><li class="task">` + box + `<p>b</p></li></ul>`},
		"quote":             {"> a\nlazy\n> > b", "<blockquote><p>a\nlazy</p><blockquote><p>b</p></blockquote></blockquote>"},
		"fence":             {"```go\nfunc main() {}\n\t<b>\n```\nafter", codeHTML("go", "func main() {}\n\t&lt;b&gt;") + "<p>after</p>"},
		"fence not closed":  {"~~~\na\n```", codeHTML("text", "a\n```")},
		"indented code":     {"a\n\n    b\n      c\n\nd", "<p>a</p>" + codeHTML("text", "b\n  c") + "<p>d</p>"},
		"table": {"| a | b |\n|:-:|--:|\n| 1 \\| 2 | `x` |\n| 3 |", `<div class="table"><table><thead><tr><th class="center">a</th><th class="right">b</th></tr></thead>` +
			`<tbody><tr><td class="center">1 | 2</td><td class="right"><code>x</code></td></tr><tr><td class="center">3</td><td class="right"></td></tr></tbody></table></div>`},
		"links":            {"[a *b*](https://x.example/(y) \"t\") <https://z.example> https://w.example/a_b_c.", `<p>` + linkTo("https://x.example/(y)", "a <em>b</em>", true) + ` ` + linkTo("https://z.example/", "https://z.example", false) + ` ` + linkTo("https://w.example/a_b_c", "https://w.example/a_b_c", false) + `.</p>`},
		"images are links": {"![cat](https://x.example/cat.png)", `<p>` + linkTo("https://x.example/cat.png", `<span class="picture">Image: </span>cat`, true) + `</p>`},
		"no nested links":  {"[a https://x.example b](https://y.example)", `<p>` + linkTo("https://y.example/", "a https://x.example b", true) + `</p>`},
		"unsafe links":     {"[a](javascript:alert(1)) [b](data:text/html,x) [c](/api) [d](//x.example) <javascript:x> [e](JaVaScRiPt:x) [f](vbscript:x)", "<p>a b c d &lt;javascript:x&gt; e f</p>"},
		"html is text":     {"<img src=x onerror=alert(1)> <script>x</script>\n\n<div>\n*a*\n</div>", "<p>&lt;img src=x onerror=alert(1)&gt; &lt;script&gt;x&lt;/script&gt;</p><p>&lt;div&gt;\n<em>a</em>\n&lt;/div&gt;</p>"},
		"hidden":           {"a\u202eb `c\u200bd`", `<p>a<span class="ctl">U+202E</span>b <code>c<span class="ctl">U+200B</span>d</code></p>`},
	} {
		p.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, eval[string](p.in(t), with("./markdown.js", `
				const root = document.createElement("div");
				new m.Markdown(root).update(`+quote(c.in)+`);
				return shape(root);
				`+shape))); diff != "" {
				t.Errorf("%q (-want +got):\n%s", c.in, diff)
			}
		})
	}
}

const box = `<input type="checkbox">`

// shape gives the tree without what every element of its kind has.
const shape = `function shape(root) {
	root = root.cloneNode(true);
	for (const e of root.querySelectorAll("figcaption button")) e.remove();
	for (const e of root.querySelectorAll("*")) for (const a of ["dir", "tabindex", "role", "aria-label", "disabled"]) e.removeAttribute(a);
	for (const e of root.querySelectorAll(".ctl")) e.removeAttribute("title");
	return root.innerHTML;
}`

func codeHTML(lang, text string) string {
	return `<figure class="code"><figcaption><span class="lang">` + lang + `</span></figcaption><pre><code>` + text + `</code></pre></figure>`
}

func linkTo(href, text string, titled bool) string {
	title := ""
	if titled {
		title = ` title="` + href + `"`
	}
	return `<a href="` + href + `" target="_blank" rel="noopener noreferrer"` + title + `>` + text + `</a>`
}

// testMarkdownGrows writes a text letter by letter: after the last one the tree must be the one that is made at once, what was finished
// before must still be the same nodes, and nothing may be slow.
func testMarkdownGrows(p *tab) {
	text := strings.Repeat(longAnswer+"\n\n", 4) + "Setext\n---\n\n> quote\n> - list\n>\n>   more\n\n<b>*x*</b>\n\n***\n1. a\n1. b\n\n    code\n\nlast **bold"
	type grown struct {
		Same, Kept bool
		PerDelta   float64
	}
	got := eval[grown](p, with("./markdown.js", `
		const text = `+quote(text)+`;
		const [a, b] = [document.createElement("div"), document.createElement("div")];
		const view = new m.Markdown(a);
		let first = null;
		for (let n = 1; n <= text.length; n++) {
			view.update(text.slice(0, n), true);
			if (n === 2000) first = a.firstChild.firstChild;
		}
		const kept = first === a.firstChild.firstChild;
		view.update(text, false);
		new m.Markdown(b).update(text);
		const size = 20000, long = (text + "\n\n").repeat(8).slice(0, size), timed = new m.Markdown(document.createElement("div"));
		timed.update(long, true);
		const from = performance.now();
		for (let n = 0; n < 500; n++) timed.update(long + "word ".repeat(n), true);
		const perDelta = (performance.now() - from) / 500;
		return { Same: a.innerHTML === b.innerHTML, Kept: kept, PerDelta: perDelta };
	`))
	p.Logf("%.0f µs a delta on an answer of 20 KB", got.PerDelta*1000)
	if !got.Same || !got.Kept {
		p.Errorf("grown text: same tree %t, nodes kept %t", got.Same, got.Kept)
	}
}

// testMarkdownHostile renders what takes other renderers minutes, or overflows their stack.
func testMarkdownHostile(p *tab) {
	for _, c := range []string{"*a ", "[", "**a*", "`a``", "_a*b", "[a](", "![", "> ", "- ", "|a", "<", "a\n- ", "*a_ ", "~~a", "\\", "&", "1. a\n", "    a\n\n", "https://a", "**bold ", "[[]("} {
		in := strings.Repeat(c, 20_000)
		nodes := eval[int](p, with("./markdown.js", `
			const root = document.createElement("div");
			document.body.append(root);
			const view = new m.Markdown(root);
			for (const open of [true, false]) {
				view.update(`+quote(in)+`, open);
				root.getBoundingClientRect();
			}
			const n = root.querySelectorAll("*").length;
			root.remove();
			return n;
		`))
		if nodes == 0 {
			p.Errorf("20,000 times %q: nothing is shown", c)
		}
	}
}

// testSSE feeds a stream cut at every position, with each kind of line end.
func testSSE(p *tab) {
	const text = "\ufeff: comment\nid: 1\ndata: {\"a\":1}\n\nevent: heartbeat\ndata: {}\n\nid:2\ndata:one\ndata:  two\n\nevent: empty\n\nid: 3\nevent: end\ndata\n\nretry: 5\nunknown\ndata: [DONE] ü€😀\n\nid: 9\ndata: unfinished"
	const want = `[["1","message","{\"a\":1}"],[null,"heartbeat","{}"],["2","message","one\n two"],["3","end",""],[null,"message","[DONE] ü€😀"]]`
	for _, end := range []string{"\n", "\r\n", "\r"} {
		wrong := eval[[]string](p, with("./sse.js", `
			const text = `+quote(strings.ReplaceAll(text, "\n", end))+`;
			const run = (chunks) => { const out = []; const parser = new m.Parser((e) => out.push([e.id, e.event, e.data])); chunks.forEach((c) => parser.feed(c)); return JSON.stringify(out); };
			const wrong = [];
			const check = (what, chunks) => { const got = run(chunks); if (got !== `+quote(want)+`) wrong.push(what + ": " + got); };
			check("letters", [...text]);
			for (let i = 0; i <= text.length; i++) for (let j = i; j <= text.length; j++) check(i + "," + j, [text.slice(0, i), text.slice(i, j), text.slice(j)]);
			return wrong.slice(0, 3);
		`))
		if len(wrong) > 0 {
			p.Errorf("line end %q: %q", end, wrong)
		}
	}
}

// testSSEBytes reads a response whose letters are cut in the middle, and one on which nothing comes.
func testSSEBytes(p *tab) {
	got := eval[[]string](p, with("./sse.js", `
		const bytes = new TextEncoder().encode("data: ü€😀\n\n");
		const body = new ReadableStream({ start(c) { for (const b of bytes) c.enqueue(Uint8Array.of(b)); c.close(); } });
		const out = [];
		await m.read(new Response(body), (e) => out.push(e.data));
		try { await m.read(new Response(new ReadableStream()), () => {}, { quietMS: 10 }); } catch (err) { out.push(err.name); }
		return out;
	`))
	if diff := cmp.Diff([]string{"ü€😀", "Silence"}, got); diff != "" {
		p.Errorf("(-want +got):\n%s", diff)
	}
}

// testRun gives the reducer the CLI's lines.
func testRun(p *tab) {
	tool := func(id, name string) string { return lineTool("m1", id, name, map[string]any{"command": "ls"}) }
	child := func(line string) string {
		return strings.Replace(line, `"type":"assistant"`, `"type":"assistant","parent_tool_use_id":"t1"`, 1)
	}
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"deltas, then the whole":  {[]string{lineStart("m1"), lineBlock(0, "text"), lineDelta(0, "Hel"), lineDelta(0, "lo"), lineText("m1", "Hello!")}, `text "Hello!"`},
		"deltas only":             {[]string{lineStart("m1"), lineBlock(0, "text"), lineDelta(0, "Hel"), lineDelta(0, "lo")}, `text "Hello" open`},
		"a delta after the whole": {[]string{lineStart("m1"), lineBlock(0, "text"), lineDelta(0, "a"), lineText("m1", "abc"), lineDelta(0, "abc")}, `text "abc"`},
		"two texts of a message":  {[]string{lineStart("m1"), lineBlock(0, "text"), lineText("m1", "one"), lineBlock(1, "text"), lineDelta(1, "tw"), lineText("m1", "two")}, `text "one", text "two"`},
		"without deltas":          {[]string{lineText("m1", "one"), lineText("m1", "two")}, `text "one", text "two"`},
		"a message without an id": {[]string{`{"type":"assistant","message":{"content":[{"type":"text","text":"a"}]}}`}, `text "a"`},
		"thinking":                {[]string{lineStart("m1"), lineBlock(0, "thinking"), lineThink(0, "hm"), lineThought("m1", "hmm", 5), lineText("m1", "a")}, `thinking "hmm", text "a"`},
		"an answer begun again":   {[]string{lineStart("m1"), lineBlock(0, "text"), lineDelta(0, "half"), lineStart("m2"), lineBlock(0, "text"), lineDelta(0, "whole")}, `text "whole" open`},
		"tools":                   {[]string{tool("t1", "Bash"), tool("t2", "Bash"), lineToolResult("t2", "no", true), lineToolResult("t1", "yes", false)}, `tool Bash done "yes", tool Bash failed "no"`},
		"a tool still running":    {[]string{tool("t1", "Bash")}, `tool Bash running`},
		"a subagent":              {[]string{tool("t1", "Task"), child(tool("t2", "Read")), child(lineText("s1", "found")), lineText("m2", "so")}, `tool Task running [tool Read running, text "found"], text "so"`},
		"an unknown type":         {[]string{`{"type":"brand_new","x":1}`, `{"type":"system","subtype":"brand_new"}`, `7`, `null`, `not json`, lineText("m1", "a")}, `text "a"`},
		"lines of a wrong shape":  {[]string{`{"type":"assistant","message":{"content":[null,7,{"type":"text","text":{}},{"type":"tool_use","id":{},"name":[],"input":7}]}}`, `{"type":"user","message":7}`, `{"type":"stream_event","event":{"type":"content_block_delta","delta":7}}`, lineText("m1", "a")}, `notice, text "a"`},
	} {
		p.Run(name, func(t *testing.T) {
			got := eval[string](p.in(t), with("./run.js", `
				const run = new m.Run(), lines = `+quote(c.lines)+`;
				lines.forEach((data, i) => run.apply({ id: String(i + 1), event: "message", data }));
				const before = tell(run.items);
				lines.forEach((data, i) => run.apply({ id: String(i + 1), event: "message", data })); // seen already
				return before === tell(run.items) ? before : "changed by a replay: " + tell(run.items);
				function tell(items) {
					return items.map((i) => [i.kind, i.name, i.state, i.kind !== "notice" && i.text !== undefined && JSON.stringify(i.text), i.open && i.kind === "text" && "open", i.result && JSON.stringify(i.result), i.items?.length && "[" + tell(i.items) + "]"].filter(Boolean).join(" ")).join(", ");
				}
			`))
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// testQuestions tells a run what the API says of a question that was event 5.
func testQuestions(p *tab) {
	waits := `{ state: "running", events: 9, questions: [{ id: "t1", tool: "Bash" }] }`
	lacks := `{ state: "running", events: 9 }`
	behind := `{ state: "running", events: 0 }`
	for name, c := range map[string]struct {
		loaded string // the record that the page was loaded with
		steps  []string
		want   []string
	}{
		"asked while one looks on":        {`{}`, nil, []string{"open"}},
		"of a server that is behind":      {`{}`, []string{"told(" + behind + ")", "told(" + behind + ")"}, []string{"open", "open", "open"}},
		"it waits":                        {lacks, []string{"told(" + waits + ")"}, []string{"unsure", "open"}},
		"it waited when loaded":           {waits, nil, []string{"open"}},
		"lacking once is no answer":       {waits, []string{"told(" + lacks + ")", "told(" + waits + ")", "told(" + lacks + ")"}, []string{"open", "open", "open", "open"}},
		"lacking twice is one":            {lacks, []string{"told(" + lacks + ")", "told(" + lacks + ")"}, []string{"unsure", "unsure", "answered"}},
		"until it is asked again":         {waits, []string{"told(" + lacks + ")", "told(" + lacks + ")", "told(" + waits + ")"}, []string{"open", "open", "answered", "open"}},
		"a result is the last word":       {waits, []string{"result()", "told(" + waits + ")"}, []string{"open", "answered", "answered"}},
		"of a run that has ended":         {`{ state: "ended" }`, []string{"end()"}, []string{"unsure", "withdrawn"}},
		"of one that has ended, answered": {`{ state: "ended" }`, []string{"result()", "end()"}, []string{"unsure", "answered", "answered"}},
	} {
		p.Run(name, func(t *testing.T) {
			got := eval[[]string](p.in(t), with("./run.js", `
				const run = new m.Run(`+c.loaded+`);
				let n = 3;
				const line = (data, event = "message") => run.apply({ id: String(++n), event, data });
				const told = (record) => run.questions.told(record, run.lastID);
				const result = () => line(`+quote(lineToolResult("t1", "x", false))+`);
				const end = () => line("{}", "end");
				line(`+quote(lineTool("m1", "t1", "Bash", map[string]any{}))+`);
				line('{"type":"control_request","request_id":"r1","request":{"subtype":"can_use_tool","tool_use_id":"t1","tool_name":"Bash"}}', "control");
				const state = () => run.items.find((i) => i.kind === "question").state;
				const out = [state()];
				`+step(c.steps)+`
				return out;
			`))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
		})
	}
}

func step(steps []string) string {
	out := ""
	for _, s := range steps {
		out += s + "; out.push(state());\n"
	}
	return out
}

// testSafeText shows what cannot be seen.
func testSafeText(p *tab) {
	for in, want := range map[string]string{
		"plain ü 漢字 😀 שלום":      "plain ü 漢字 😀 שלום",
		"a\u202eb\u2066c":        "a[U+202E]b[U+2066]c",
		"rm -rf\u00a0/\u200b":    "rm -rf\u00a0/[U+200B]",
		"bell\a esc\x1b del\x7f": "bell[␇] esc[␛] del[␡]",
		"tag\U000e0041":          "tag[U+E0041]",
		"tab\tand\nline":         "tab\tand\nline",
		"e\u0301 👩‍💻":            "e\u0301 👩‍💻",
	} {
		if got := eval[string](p, with("./text.js", `return m.pieces(`+quote(in)+`).map((p) => p.mark ? "[" + p.mark + "]" : p.text).join("");`)); got != want {
			p.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := eval[string](p, with("./text.js", `return m.stripAnsi("\u001b[1;32mgreen\u001b[0m \u001b]8;;https://x\u0007link\u001b]8;;\u0007 \u001b[2K\r\nend");`)); got != "green link \nend" {
		p.Errorf("without escapes: %q", got)
	}
}
