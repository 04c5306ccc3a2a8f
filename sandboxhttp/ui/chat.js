// The page of one sandbox: its bar, its conversation, and what stands there when it has ended.

import { Conversation } from "./conversation.js";
import { about, announce, toast } from "./dialogs.js";
import { byID, el, icon } from "./dom.js";
import { problem, sandboxEnd } from "./explain.js";
import { heading } from "./questionview.js";
import { notice, RunView } from "./runview.js";
import { nameOf } from "./sidebar.js";
import { ago, oneLine } from "./text.js";
import { summary } from "./tools.js";
import { Versions } from "./versions.js";

/** Chat shows one sandbox until close. page has composer, follower, remove, drawer, changed, asks. */
export class Chat {
  #api;
  #page;
  #column = byID("column");
  #bar = byID("bar");
  #views = new Map();
  #older = el("div", { class: "older" });
  #runs = el("div", { class: "runs" });
  #talk;
  #versions;
  #clock;
  #busy = false;
  #asks = false;
  #closed = false;
  #says = "";
  sandbox = null;

  constructor(api, id, page) {
    this.#api = api;
    this.#page = page;
    this.id = id;
    this.#talk = new Conversation(api, id, {
      added: (run, before) => this.#added(run, before),
      changed: (run) => this.#views.get(run)?.changed(),
      connection: (run, state) => this.#connection(run, state),
      busy: (on) => this.#setBusy(on),
      asks: (on) => this.#setAsks(on),
      older: (n) => this.#drawOlder(n),
      settled: (run) => this.#settled(run),
      stopFailed: (err) => this.#stopFailed(err),
    });
    this.#versions = new Versions(api, id, { sandbox: () => this.sandbox, changed: () => this.#look() });
    this.#clock = setInterval(() => {
      this.#views.forEach((v) => v.tick());
      this.#talk.tick();
    }, 1000);
  }

  /** open loads the sandbox and its conversation. */
  async open(sandbox = null) {
    this.#column.replaceChildren(el("p", { class: "loading" }, "Loading the conversation…"));
    try {
      this.show(sandbox ?? (await this.#api.sandbox(this.id)));
      if (this.#closed) return;
      await this.#talk.load();
      if (this.#closed) return;
      this.#column.replaceChildren(this.#older, this.#runs);
      this.#drawEmpty();
      this.#page.follower.jump();
    } catch (err) {
      if (!this.#closed) this.#fail(err);
    }
  }

  close() {
    this.#closed = true;
    clearInterval(this.#clock);
    this.#versions.close();
    this.#talk.close();
    this.#page.asks(this.id, false);
  }

  send(text) {
    if (this.#talk.running) return false;
    this.#runs.querySelector(".empty")?.remove();
    this.#talk.send(text);
    this.#page.follower.jump();
    announce("Sent. Claude is working.");
    return true;
  }

  async stop() {
    try {
      await this.#talk.stop();
    } catch (err) {
      this.#stopFailed(err);
    }
  }

  /** refresh picks up what was done elsewhere. */
  refresh() {
    if (this.sandbox) this.#talk.refresh().catch(() => {}); // the next look comes soon, and what is shown stays right
  }

  /** show draws the state of the sandbox. */
  show(sandbox) {
    if (this.#closed) return;
    const before = this.sandbox;
    this.sandbox = sandbox;
    this.#drawTitle();
    this.#drawBar();
    const over = sandbox.state === "ended";
    if (!before || over !== (before.state === "ended")) this.#drawEnded(over);
  }

  #drawTitle() {
    if (this.sandbox) document.title = (this.#asks ? "Claude asks · " : "") + nameOf(this.sandbox) + " · " + this.#page.title;
  }

  #drawBar() {
    const s = this.sandbox;
    const saving = this.#page.isSaving(s.id);
    const state = saving ? (s.volume_name ? "Saving…" : "Deleting…") : s.state === "ended" ? "Ended" : s.state === "creating" ? "Being created" : s.ending?.reason === "idle" ? `Unused, ends ${ago(s.ending.at)}` : s.expires_at ? `Ends ${ago(s.expires_at)}` : "Running";
    const says = JSON.stringify([s, saving, state]);
    if (says === this.#says) return; // a click on what is there must not be lost
    this.#says = says;
    const open = s.state !== "ended" && !saving;
    const button = (name, label, onclick, cls = "") => el("button", { type: "button", class: "ghost " + cls, "aria-label": label, title: label, onclick }, icon(name));
    const had = this.#bar.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    const parts = [
      button("menu", "Show sandboxes", (e) => this.#page.drawer(e.currentTarget), "drawer"),
      el("div", { class: "title" }, el("h1", {}, nameOf(s)), el("p", {}, el("span", { class: "dot " + (saving ? "saving" : s.state) }), state,
        s.isolated === false && el("span", { class: "tag warn", title: "What runs here can touch the machine it runs on" }, "Not isolated"))),
      open && button("pen", "New conversation", () => this.#afresh()),
      s.volume_name && !saving && s.state !== "creating" && button("clock", "Versions", () => this.#versions.open()),
      button("info", "Details", () => about(nameOf(s), details(s))),
      open && button("trash", "Delete sandbox", () => this.#page.remove(s)),
    ];
    this.#bar.replaceChildren(...parts.filter(Boolean));
    if (had) this.#bar.querySelector(`[aria-label="${CSS.escape(had)}"]`)?.focus();
  }

  #drawEnded(over) {
    const box = byID("ended");
    box.hidden = !over;
    this.#page.composer.use(this.id, { placeholder: "Ask Claude…", hidden: over });
    this.#page.composer.busy(this.#busy);
    if (!over) return;
    const { end, version, volume_name: volume } = this.sandbox;
    const kept = volume ? (version ? `Its files are kept in the volume “${oneLine(volume, 60)}”.` : `It used the volume “${oneLine(volume, 60)}”.`) : "Its files ended with it.";
    box.replaceChildren(el("div", { class: "over" }, el("p", {}, el("strong", {}, "This sandbox has ended. "), `${sandboxEnd(end)}. ${kept}`),
      el("a", { class: "button primary", href: "#/" }, "New sandbox")));
  }

  #drawEmpty() {
    this.#runs.querySelector(".empty")?.remove();
    if (this.#talk.runs.length > 0 || this.sandbox?.state === "ended") return;
    this.#runs.append(el("div", { class: "empty" }, icon("box"), el("h2", {}, "Ready"), el("p", {}, "Claude can run commands and change files here, and only here. Tell it what to do.")));
  }

  #drawOlder(n) {
    this.#older.replaceChildren(...(n === 0 ? [] : [el("button", { type: "button", class: "button small", onclick: () => this.#talk.loadOlder() }, `Show earlier messages (${n})`)]));
  }

  #added(run, before = null) {
    const view = new RunView(run, {
      retryNow: () => run.patience?.now(),
      resend: () => {
        this.#talk.again(run);
        this.#page.follower.jump();
      },
      answer: (question, decision) => this.#talk.answer(run, question, decision),
      asked: (view) => this.#asked(view),
      settled: (view, focused) => this.#answered(view, focused),
      write: () => this.#page.composer.focus(),
    });
    this.#views.set(run, view);
    const i = this.#talk.runs.indexOf(run);
    const previous = this.#talk.runs[i - 1]?.sessionID;
    if (previous && previous !== run.sessionID) view.element.prepend(el("p", { class: "divider" }, el("span", {}, "New conversation, same files")));
    this.#runs.insertBefore(view.element, before ? this.#views.get(before).element : null);
    view.draw();
  }

  #afresh() {
    this.#talk.startAfresh();
    this.#page.composer.focus();
    toast("Your next message begins a new conversation. The files stay.");
  }

  #connection(run, state) {
    const view = this.#views.get(run);
    view?.connection(state);
    if (state === "lost") announce("Connection lost. Reconnecting.");
    if (state === "moving") announce("The server is being restarted. Reconnecting.");
  }

  #setBusy(on) {
    if (on === this.#busy || this.#closed) return;
    this.#busy = on;
    this.#page.composer.busy(on);
  }

  #setAsks(on) {
    if (on === this.#asks || this.#closed) return;
    this.#asks = on;
    this.#drawTitle();
    this.#page.composer.asks(on);
    this.#page.asks(this.id, on);
  }

  // Nobody who writes or reads elsewhere is taken away from that.
  #asked(view) {
    const { tool, input } = view.question;
    announce(`Claude waits for your answer. ${heading(view.question).replace(/[^.!?]$/, "$&.")} ${summary({ name: tool, input })}`);
    if (this.#page.composer.idle && this.#page.follower.following && !document.querySelector("dialog[open]")) view.focus();
  }

  #answered(view, focused) {
    announce(view.outcome);
    if (!focused) return;
    const next = this.#column.querySelector('.question[data-state="open"] .first, .question[data-state="open"] input');
    if (next) next.focus();
    else this.#page.composer.focus();
  }

  #settled(run) {
    if (this.#closed) return;
    announce(run.failed ? problem(run.failed).title : "Claude has finished. " + run.answer().slice(0, 400));
    const lost = ["idle", "lifetime", "oom", "provider_lost"].includes(run.end?.end) || ["sandbox_ended", "not_found"].includes(run.failed?.code);
    if (lost) this.#look(); // the run's own note says what happened
    this.#page.changed();
  }

  // Reads the sandbox again; what is shown stays where that fails.
  async #look() {
    if (!this.#closed) await this.#api.sandbox(this.id).then((s) => this.show(s), () => {});
  }

  #stopFailed(err) {
    const { title, text } = problem(err);
    toast(`Not stopped: ${title}. ${text}`);
    this.#page.composer.busy(this.#busy);
  }

  #fail(err) {
    const { title, text, detail } = err.status === 404 ? { title: "There is no such sandbox", text: "It may have been deleted, or belongs to another account.", detail: "" } : problem(err);
    const act = err.status === 404 ? el("a", { class: "button small", href: "#/" }, "New sandbox") : el("button", { type: "button", class: "button small", onclick: () => this.open() }, "Try again");
    if (!this.sandbox) this.#page.plainBar();
    this.#column.replaceChildren(notice("error", title, text, detail, act));
  }
}

function details(s) {
  const time = (t) => (t ? `${new Date(t).toLocaleString()} (${ago(t)})` : "");
  const rows = [
    ["Id", el("code", {}, s.id)], ["State", s.state === "ended" ? `ended: ${sandboxEnd(s.end)}` : s.state], ["Created", time(s.created_at)],
    ["Ends", s.state === "ended" ? "" : time(s.expires_at)], ["Ended", time(s.ended_at)], ["Volume", s.volume_name], ["Version", s.version?.id],
    ["Tags", Object.entries(s.tags ?? {}).map(([k, v]) => oneLine(`${k}=${v}`, 80)).join(", ")],
    ["Isolation", s.isolated === false ? "None: what runs here can touch the machine it runs on" : "Its own files, processes and network"],
    ["Not enforced", Object.entries(s.unenforced ?? {}).map(([k, v]) => el("p", {}, oneLine(`${k}: ${v}`, 300)))],
    ["Ports", Object.entries(s.ports ?? {}).map(([k, v]) => el("p", {}, oneLine(`${k} is ${v}`, 120)))],
  ];
  return rows.filter(([, v]) => v && v.length !== 0).map(([k, v]) => [k, typeof v === "string" ? oneLine(v, 300) : v]);
}
