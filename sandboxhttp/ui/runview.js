// One run on the page: the prompt, what Claude did and said, what it is doing now, and how it ended.

import { copyButton, el, icon, visible } from "./dom.js";
import { Markdown, growText } from "./markdown.js";
import { ToolView } from "./toolview.js";
import { doing, problem, runEnd } from "./explain.js";
import { QuestionView } from "./questionview.js";
import { title } from "./tools.js";
import { duration, money } from "./text.js";

/** RunView draws a Run. It is redrawn at most once a frame, however many events came. */
export class RunView {
  #run;
  #views = new Map(); // by item
  #reply = el("div", { class: "reply" });
  #now = el("p", { class: "now", hidden: true });
  #label = el("span", { class: "label" });
  #clock = el("span", { class: "clock" });
  #foot = el("div", { class: "foot-note" });
  #actions;
  #scheduled = false;
  #connection = "live";
  #began = Date.now();

  /** actions: retryNow (reconnect at once), resend (send the prompt again), and those of a QuestionView. */
  constructor(run, actions) {
    this.#run = run;
    this.#actions = actions;
    const prompt = el("div", { class: "prompt", dir: "auto" }, visible(run.record.prompt ?? ""));
    const dots = el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
    this.#now.append(dots, this.#label, this.#clock);
    this.element = el("section", { class: "run", "aria-label": "Message and answer" },
      el("article", { class: "asked-by-you" }, el("h2", { class: "offscreen" }, "You"), prompt),
      el("article", { class: "answer" }, el("h2", { class: "offscreen" }, "Claude"), this.#reply, this.#now, this.#foot));
    if (run.record.started_at) this.#began = Date.parse(run.record.started_at) || Date.now();
  }

  /** changed asks for a redraw. A hidden page gets no frames, and needs none. */
  changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.draw();
    });
  }

  /** connection is "live", "moving" or "lost". */
  connection(state) {
    this.#connection = state;
    this.changed();
  }

  /** tick moves the clock on. */
  tick() {
    if (this.#run.ended || this.#run.failed) return;
    const ms = Date.now() - this.#began;
    this.#clock.textContent = ms > 3000 ? duration(Math.floor(ms / 1000) * 1000).replace(".0", "") : "";
  }

  draw() {
    const run = this.#run;
    for (const item of run.touched) this.#item(item);
    run.touched.clear();
    this.#drawNow();
    this.#drawFoot();
    const busy = !run.ended && !run.failed && run.questions.waiting.length === 0;
    this.element.setAttribute("aria-busy", String(busy));
  }

  #item(item) {
    const view = this.#views.get(item);
    if (item.gone) {
      view?.element.remove();
      this.#views.delete(item);
      return;
    }
    (view ?? this.#create(item)).draw();
  }

  #create(item) {
    const view = item.kind === "tool" ? new ToolView(item) : new views[item.kind](item, this.#actions);
    const home = item.parent ? this.#views.get(item.parent)?.items : null;
    this.#views.set(item, view);
    const above = this.#views.get(item.after)?.element;
    if (above) lastQuestion(above).after(view.element);
    else (home ?? this.#reply).append(view.element);
    return view;
  }

  #drawNow() {
    const run = this.#run;
    const over = run.ended || Boolean(run.failed);
    this.#now.hidden = over;
    if (over) return;
    const at = this.#connection;
    const state = run.doing();
    this.#now.classList.toggle("lost", at === "lost");
    this.#now.classList.toggle("asks", at === "live" && state?.what === "question");
    const name = state?.name && title({ name: state.name, state: "running" });
    if (at === "live") this.#label.textContent = doing(state, name);
    else if (at === "moving") this.#label.textContent = "The server is being restarted, and Claude works on. Reconnecting…";
    else if (!this.#label.querySelector("button")) this.#label.replaceChildren("Connection lost. Reconnecting… ", el("button", { type: "button", class: "link", onclick: this.#actions.retryNow }, "Reconnect now"));
    this.tick();
  }

  #drawFoot() {
    const run = this.#run;
    if (run.failed) {
      const { title: head, text, detail } = problem(run.failed);
      const again = el("button", { type: "button", class: "button small", onclick: () => this.#actions.resend() }, run.record.id ? "Reconnect" : "Send again");
      this.#foot.replaceChildren(notice("error", run.record.id ? "The answer could not be read: " + head : "Not sent: " + head, text, detail, again));
    } else if (run.end && !this.#foot.hasChildNodes()) {
      const end = runEnd(run.end);
      if (end) this.#foot.append(notice(end.level, end.head, end.text, said(run, end.detail) ? "" : end.detail));
      this.#foot.append(this.#figures());
    } else if (!run.end && this.#foot.hasChildNodes()) {
      this.#foot.replaceChildren();
    }
  }

  #figures() {
    const { end, result, record } = this.#run;
    const turns = end.num_turns ?? result?.num_turns;
    const ms = result?.duration_ms ?? Date.parse(record.ended_at) - Date.parse(record.started_at);
    const figures = [duration(ms), turns ? `${turns} turn${turns === 1 ? "" : "s"}` : "", money(end.cost_usd ?? result?.total_cost_usd)];
    const answer = this.#run.answer();
    return el("div", { class: "figures" }, answer && copyButton(() => this.#run.answer(), "Copy answer"), el("span", {}, figures.filter(Boolean).join(" · ")));
  }
}

// said reports whether the answer ends with the error's own words: the CLI writes an API's error as text as well.
const said = (run, detail) => detail !== "" && run.answer().trim() !== "" && (detail.includes(run.answer().trim()) || run.answer().includes(detail.trim()));

/** notice makes a note: level quiet, warn or error; what happened, what to do, and small print. */
export function notice(level, head, text = "", detail = "", ...more) {
  return el("div", { class: "notice " + level },
    level === "quiet" ? null : icon("warn"),
    el("div", {}, el("p", { class: "head" }, visible(head)), text && el("p", {}, visible(text)), detail && el("p", { class: "detail" }, visible(detail)), more));
}

class TextView {
  constructor(item) {
    this.item = item;
    this.element = el("div", { class: "prose" });
    this.markdown = new Markdown(this.element);
  }

  draw() {
    this.element.classList.toggle("failed", Boolean(this.item.error));
    this.markdown.update(this.item.text, this.item.open);
  }
}

class ThinkingView {
  #before = null;

  constructor(item) {
    this.item = item;
    this.label = el("span", { class: "name" });
    this.text = el("div", { class: "body", dir: "auto" });
    this.element = el("details", { class: "thinking" }, el("summary", {}, this.label, icon("chevron")), this.text);
  }

  draw() {
    const { text, open, ms } = this.item;
    this.element.dataset.state = open ? "running" : "done";
    this.element.classList.toggle("empty", text === "");
    this.label.textContent = open ? "Thinking" : ms >= 1000 ? `Thought for ${duration(ms)}` : "Thought";
    if (this.#before !== text) growText(this.text, this.#before, text);
    this.#before = text;
  }
}

class NoticeView {
  constructor(item) {
    this.element = notice(item.level, item.text);
  }

  draw() {}
}

// lastQuestion is the last of the questions that stand below an element already, or the element.
function lastQuestion(at) {
  while (at.nextElementSibling?.classList.contains("question")) at = at.nextElementSibling;
  return at;
}

const views = { text: TextView, thinking: ThinkingView, notice: NoticeView, question: QuestionView };
