// A tool call on the page: one line that unfolds into what was asked for and what came back.

import { copyButton, el, icon, visible } from "./dom.js";
import { failure, parts, results, summary, title } from "./tools.js";
import { bytes, duration, number, oneLine } from "./text.js";

const longText = 10_000; // characters of one part shown at once: laying out a megabyte of preformatted text takes seconds
const longDiff = 400; // lines of a change, for the same reason

/** ToolView draws one tool item of run.js; items is where the calls of a subagent go. */
export class ToolView {
  #item;
  #state = el("span", { class: "state" });
  #name = el("span", { class: "name" });
  #about = el("span", { class: "about", dir: "ltr" });
  #meta = el("span", { class: "meta" });
  #why = el("span", { class: "why" });
  #asked = el("div", { class: "asked" });
  #answered = el("div", { class: "answered" });
  #shown = { state: "", input: null, result: null };
  items = el("div", { class: "items" });

  constructor(item) {
    this.#item = item;
    const summaryRow = el("summary", {}, this.#state, this.#name, this.#about, this.#meta, icon("chevron"), this.#why);
    this.element = el("details", { class: "tool", ontoggle: () => this.#body() }, summaryRow,
      el("div", { class: "body" }, this.#asked, this.items, this.#answered));
  }

  draw() {
    const item = this.#item;
    if (this.#shown.state !== item.state) this.#drawState(item.state);
    this.#name.textContent = title(item);
    this.#about.replaceChildren(...visible(summary(item)));
    this.#meta.textContent = item.seconds && item.state === "running" ? duration(item.seconds * 1000) : "";
    this.#why.replaceChildren(...(item.state === "failed" ? visible(failure(item)) : []));
    this.#body();
  }

  #drawState(state) {
    const says = { writing: "being prepared", asked: "waiting for your answer", running: "running", done: "done", failed: "failed", stopped: "stopped" }[state];
    const mark = { asked: "ask", done: "check", failed: "cross", stopped: "pause" }[state];
    this.#shown.state = state;
    this.element.dataset.state = state;
    this.#state.replaceChildren(mark ? icon(mark) : el("span", { class: "spinner" }), el("span", { class: "offscreen" }, says + ": "));
  }

  // What is folded away is not built: a long run has hundreds of calls that nobody looks into.
  #body() {
    if (!this.element.open) return;
    const { input, partial, open, result } = this.#item;
    const asked = open && partial ? partial : input;
    if (this.#shown.input !== asked) {
      this.#shown.input = asked;
      const nodes = typeof asked === "string" ? [block("Input, being written", asked)] : parts(this.#item).map(drawPart);
      this.#asked.replaceChildren(...nodes);
    }
    if (this.#shown.result !== result) {
      this.#shown.result = result;
      this.#answered.replaceChildren(...drawResult(this.#item));
    }
  }
}

/** drawPart draws one of the parts of what a tool was asked to do. */
export function drawPart(part) {
  switch (part.type) {
    case "command": return block("Command", part.text, { className: "command", count: part.text.length > 400 });
    case "note": return el("p", { class: "note" }, visible(part.text));
    case "file": return block(part.path, part.text, { count: true });
    case "diff": return drawDiff(part);
    case "todos": return drawTodos(part.todos);
    default: return part.text.includes("\n") || part.text.length > 120 ? block(part.name, part.text) : el("p", { class: "pair" }, el("span", {}, part.name), el("code", { dir: "ltr" }, visible(part.text)));
  }
}

function drawResult(item) {
  if (item.result === null) return [];
  const all = results(item.result);
  if (all.length === 0) return [el("p", { class: "note" }, "No output")];
  return all.map((r) => r.type === "image"
    ? el("img", { src: r.src, alt: "Picture that the tool returned", loading: "lazy" })
    : block(item.state === "failed" ? "Error" : "Result", r.text, { className: item.state === "failed" ? "error" : "" }));
}

function block(label, text, { className = "", count = false } = {}) {
  const pre = el("pre", { tabindex: "0", role: "region", "aria-label": oneLine(label, 80) }, visible(text.slice(0, longText)));
  const size = count ? el("span", { class: "size" }, bytes(new Blob([text]).size)) : null;
  const more = text.length > longText && el("button", { type: "button", class: "more", onclick: () => {
    pre.replaceChildren(...visible(text));
    more.remove();
    pre.focus();
  } }, `Show all ${bytes(text.length)}`);
  return el("figure", { class: "code " + className },
    el("figcaption", {}, el("span", { class: "lang" }, visible(label)), size, copyButton(() => text)), pre, more);
}

function drawDiff({ path, lines }) {
  const rows = (some) => some.map(({ sign, text }) =>
    el("span", { class: { "-": "gone", "+": "come", " ": "kept" }[sign] }, sign + " ", visible(text), "\n"));
  const pre = el("pre", { tabindex: "0", role: "region", "aria-label": "Change" }, rows(lines.slice(0, longDiff)));
  const more = lines.length > longDiff && el("button", { type: "button", class: "more", onclick: () => {
    pre.append(...rows(lines.slice(longDiff)));
    more.remove();
    pre.focus();
  } }, `Show all ${number(lines.length)} lines`);
  return el("figure", { class: "code diff" }, el("figcaption", {}, el("span", { class: "lang" }, visible(path))), pre, more);
}

function drawTodos(todos) {
  return el("ul", { class: "todos" }, todos.map((t) => {
    const state = ["completed", "in_progress"].includes(t.status) ? t.status : "pending";
    return el("li", { class: state }, el("span", { class: "offscreen" }, state.replace("_", " ") + ": "), visible(String(t.content ?? "")));
  }));
}
