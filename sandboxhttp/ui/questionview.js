// A question of Claude's on the page: a card that asks while somebody may answer, and then a line that says what became of it.

import { AskForm, canAsk } from "./askform.js";
import { el, icon, visible } from "./dom.js";
import { problem } from "./explain.js";
import { oneLine } from "./text.js";
import { parts } from "./tools.js";
import { drawPart } from "./toolview.js";

let made = 0;

/** heading says what a question is about, in one line. */
export function heading(q) {
  if (q.title) return oneLine(q.title, 300);
  if (q.tool === "AskUserQuestion") return "Claude has a question";
  return `Claude wants to use ${nameOf(q)}`;
}

// The tool's own name: a title such as "Run" reads as a verb here.
const nameOf = (q) => oneLine(q.display, 80) || oneLine(q.tool.replace(/^mcp__(.+?)__/, "$1 · "), 80);

/**
 * QuestionView draws a question of questions.js. actions: answer(question, decision), asked(view) when it begins to wait, and
 * settled(view, focused) when it no longer does; focused says that the focus was in it.
 */
export class QuestionView {
  #actions;
  #id = `question-${++made}`;
  #buttons = el("div", {});
  #trouble = el("div", { class: "trouble", role: "alert" });
  #status = el("p", { class: "status", role: "status" });
  #shown = null;
  #asks = false;
  element = el("section", { class: "question", role: "group", "aria-labelledby": this.#id, hidden: true });

  constructor(question, actions) {
    this.question = question;
    this.#actions = actions;
    this.element.addEventListener("keydown", (e) => this.#key(e));
  }

  /** outcome says what became of it. */
  get outcome() {
    return outcome(this.question);
  }

  draw() {
    const q = this.question;
    const asks = q.state === "open" || q.state === "sending";
    this.element.hidden = q.state === "unsure";
    this.element.dataset.state = q.state;
    if (!asks) return this.#close();
    if (this.#shown !== q.input) this.#build();
    this.#drawState();
    if (this.#asks) return;
    this.#asks = true;
    this.#actions.asked(this);
  }

  /** focus goes to the answer that Enter may give. */
  focus() {
    const first = this.element.querySelector(".first") ?? this.element.querySelector("input");
    first?.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest" });
  }

  #close() {
    const had = this.element.contains(document.activeElement);
    this.#shown = null;
    this.element.setAttribute("aria-busy", "false");
    const done = this.question.state === "answered" && this.question.given?.allow !== false;
    this.element.replaceChildren(el("p", { class: "outcome", id: this.#id }, icon(done ? "check" : "cross"), el("span", {}, this.outcome)));
    if (!this.#asks) return;
    this.#asks = false;
    this.#actions.settled(this, had);
  }

  #build() {
    const q = this.question;
    this.#shown = q.input;
    const form = canAsk(q.input, q.tool) ? new AskForm(q.input, this.#id) : null;
    const about = el("div", { class: "what", id: this.#id + "-what", tabindex: form ? null : "0" }, form ? form.element : parts({ name: q.tool, input: q.input }).map((p) => drawPart(p)));
    this.#buttons.replaceChildren(...(form ? this.#formButtons() : this.#allowButtons()));
    const body = el("form", { class: "ask", onsubmit: (e) => {
      e.preventDefault();
      if (form) this.#send({ allow: true, input: form.input() });
    } }, about, this.#buttons, this.#status, this.#trouble);
    const note = (...text) => el("p", { class: "note", dir: "auto" }, text.flat());
    this.element.replaceChildren(...[
      el("h3", { id: this.#id }, icon("ask"), el("span", { dir: "auto" }, heading(q)), !form && el("span", { class: "tag" }, oneLine(q.tool, 60))),
      q.description && note(visible(clip(q.description))),
      q.reason && note("Why it asks: ", visible(clip(q.reason))),
      body,
    ].filter(Boolean));
  }

  #allowButtons() {
    const q = this.question;
    const no = el("input", { type: "text", id: this.#id + "-no", autocomplete: "off", maxlength: "2000", placeholder: "Why not (optional)", dir: "auto", onkeydown: (e) => {
      if (e.key !== "Enter" || e.isComposing || e.keyCode === 229) return;
      e.preventDefault();
      if (no.value.trim()) this.#send(deny(no.value));
    } });
    const button = (label, cls, decision) => el("button", { type: "button", class: "button small " + cls, "aria-describedby": this.#id + "-what", onclick: () => this.#send(decision()) }, label);
    return [
      el("div", { class: "row" }, button("Allow", "primary" + (q.careful ? "" : " first"), () => ({ allow: true })),
        q.always && button("Allow and do not ask again", "", () => ({ allow: true, remember: true }))),
      q.always && el("p", { class: "note rules" }, "Not asked again: ", visible(q.rules.map(rule).join("; "))),
      el("div", { class: "row" }, el("label", { class: "offscreen", for: no.id }, "Why not, for Claude; optional"), no,
        button("Deny", q.careful ? "first" : "", () => deny(no.value)), button("Deny and stop", "", () => ({ ...deny(no.value), interrupt: true }))),
    ].filter(Boolean);
  }

  #formButtons() {
    const button = (label, decision) => el("button", { type: "button", class: "button small", onclick: () => this.#send(decision) }, label);
    return [el("div", { class: "row" }, el("button", { class: "button small primary" }, "Answer"), button("Do not answer", { allow: false, message: "The user did not want to answer." }), button("Deny and stop", { allow: false, interrupt: true }))];
  }

  #send(decision) {
    if (this.question.state === "open") this.#actions.answer(this.question, decision);
  }

  #drawState() {
    const { state, tries, trouble } = this.question;
    const sending = state === "sending";
    // Not disabled: a button that is loses the focus, and its reader the place.
    for (const b of this.element.querySelectorAll(".row button")) b.setAttribute("aria-disabled", String(sending));
    for (const i of this.element.querySelectorAll("input")) i.readOnly = sending;
    this.element.setAttribute("aria-busy", String(sending));
    this.#status.textContent = !sending ? "" : tries < 2 ? "Sending…" : `${problem(trouble).title}. Trying again (${tries})…`;
    if (!trouble || sending) return this.#trouble.replaceChildren();
    const { title: head, text, detail } = problem(trouble);
    this.#trouble.replaceChildren(el("p", { class: "head" }, visible(`Not answered: ${head}`)), el("p", {}, visible(`${text} The buttons above try again.`.trim())), detail ? el("p", { class: "detail" }, visible(detail)) : "");
  }

  // Who was about to write goes on writing, and answers nothing by that; a key held down answers nothing either.
  #key(e) {
    if (e.target.tagName !== "BUTTON") return;
    if (e.key === "Enter" && e.repeat) e.preventDefault();
    if (e.key.length === 1 && e.key !== " " && !e.ctrlKey && !e.metaKey && !e.altKey) this.#actions.write();
  }
}

const deny = (why) => (why.trim() ? { allow: false, message: why.trim() } : { allow: false });

const clip = (text) => (text.length > 2000 ? text.slice(0, 2000) + "…" : text);

// rule says a PermissionUpdate of the CLI, by which it would not ask again.
function rule(u) {
  const kept = { session: "in this conversation", userSettings: "in this sandbox", projectSettings: "in this project", localSettings: "in this project" }[u.destination] ?? "";
  const rules = Array.isArray(u.rules) ? u.rules.map((r) => (r?.ruleContent ? `${r.toolName}(${r.ruleContent})` : `${r?.toolName}`)).join(", ") : "";
  const about = u.type === "setMode" ? `mode ${u.mode}` : Array.isArray(u.directories) ? `directory ${u.directories.join(", ")}` : rules || String(u.type);
  return `${clip(about)} ${kept}`.trim();
}

function outcome({ state, given, display, tool }) {
  const what = tool === "AskUserQuestion" ? "Claude’s question" : `Permission for ${nameOf({ display, tool })}`;
  if (state === "withdrawn") return `${what}: no longer asked`;
  if (!given) return `${what}: answered`;
  const why = given.message && tool !== "AskUserQuestion" ? ` (${oneLine(given.message, 160)})` : "";
  if (!given.allow) return `${what}: you denied it${given.interrupt ? " and stopped Claude" : ""}${why}`;
  if (given.input?.answers) return `You answered: ${oneLine(Object.values(given.input.answers).join("; "), 300)}`;
  return `${what}: you allowed it${given.remember ? ", and are not asked again" : ""}`;
}
