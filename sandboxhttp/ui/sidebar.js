// The list of sandboxes.

import { byID, el, icon } from "./dom.js";
import { problem, sandboxEnd } from "./explain.js";
import { ago, oneLine } from "./text.js";

const every = 20_000; // ms between looks at the list while the page is seen

/** nameOf is what a sandbox is called on the page. */
export const nameOf = (s) => (s.name ? oneLine(s.name, 80) : "Sandbox " + oneLine(String(s.id).slice(0, 8)));

/** Sidebar shows the sandboxes of the account, and is a drawer on a small screen. */
export class Sidebar {
  #api;
  #nav = byID("list");
  #side = byID("side");
  #veil = byID("veil");
  #small = matchMedia("(max-width: 760px)");
  #sandboxes = [];
  #cursor = "";
  #pages = 1;
  #picked = "";
  #saving = new Set();
  #asking = "";
  #opener = null;
  #says = "";

  /** remove is called with a sandbox whose bin was pressed; gone when the list was read. */
  constructor(api, { remove, listed }) {
    this.#api = api;
    this.#remove = remove;
    this.#listed = listed;
    byID("new").append(icon("plus"), "New sandbox");
    this.#veil.addEventListener("click", () => this.close());
    this.#side.addEventListener("keydown", (e) => e.key === "Escape" && this.close());
    this.#side.addEventListener("click", (e) => e.target.closest("a") && this.close());
    this.#small.addEventListener("change", () => this.close());
    this.close();
    setInterval(() => document.hidden || this.refresh(), every);
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  #remove;
  #listed;

  open(opener) {
    this.#opener = opener;
    this.#side.inert = false;
    this.#side.classList.add("open");
    this.#veil.hidden = false;
    byID("main").inert = true;
    byID("new").focus();
  }

  /** close puts the drawer away; on a large screen the list always stands. */
  close() {
    this.#side.classList.remove("open");
    this.#side.inert = this.#small.matches;
    this.#veil.hidden = true;
    byID("main").inert = false;
    this.#opener?.focus();
    this.#opener = null;
  }

  pick(id) {
    this.#picked = id;
    this.#draw();
  }

  /** saving marks a sandbox that is being saved and deleted. */
  saving(id, on) {
    if (on) this.#saving.add(id);
    else this.#saving.delete(id);
    this.#draw();
  }

  /** asking marks a sandbox in which Claude waits for an answer. */
  asking(id, on) {
    this.#asking = on ? id : "";
    this.#draw();
  }

  isSaving(id) {
    return this.#saving.has(id);
  }

  /** put shows a sandbox at once that was made or changed here. */
  put(sandbox) {
    const i = this.#sandboxes.findIndex((s) => s.id === sandbox.id);
    if (i < 0) this.#sandboxes.unshift(sandbox);
    else this.#sandboxes[i] = sandbox;
    this.#draw();
  }

  /** refresh reads the list; wanted says that somebody pressed a button for it. */
  async refresh(wanted = false) {
    try {
      const all = [];
      let cursor = "";
      for (let page = 0; page < this.#pages; page++) {
        const answer = await this.#api.list(cursor, wanted);
        all.push(...(answer.sandboxes ?? []));
        cursor = answer.next_cursor ?? "";
        if (!cursor) break;
      }
      this.#sandboxes = all;
      this.#cursor = cursor;
      this.#draw();
      this.#listed(all);
    } catch (err) {
      this.#fail(err);
    }
  }

  #fail(err) {
    if (this.#nav.querySelector(".trouble")) return;
    const { title, text } = problem(err);
    this.#nav.prepend(el("div", { class: "trouble" }, el("p", {}, el("strong", {}, title), " ", text),
      el("button", { type: "button", class: "button small", onclick: () => this.refresh(true) }, "Try again")));
  }

  // The list is read again and again: what stands there is left alone while it says the same, or a click on it would be lost.
  #draw() {
    const says = JSON.stringify([this.#picked, this.#cursor, this.#sandboxes.map((s) => [s, this.#about(s)])]);
    if (says === this.#says && !this.#nav.querySelector(".trouble")) return;
    this.#says = says;
    const focused = document.activeElement?.closest?.("#list [data-id]")?.dataset.id;
    const live = this.#sandboxes.filter((s) => s.state !== "ended");
    const ended = this.#sandboxes.filter((s) => s.state === "ended");
    const wasOpen = this.#nav.querySelector("details")?.open;
    const nodes = [];
    if (live.length) nodes.push(el("ul", {}, live.map((s) => this.#row(s))));
    else nodes.push(el("p", { class: "none" }, ended.length ? "No sandbox runs now." : "No sandboxes yet. Ask Claude for something, and one is made."));
    if (ended.length) {
      const open = wasOpen ?? ended.some((s) => s.id === this.#picked);
      nodes.push(el("details", { class: "old", open }, el("summary", {}, icon("chevron"), `Ended (${ended.length}${this.#cursor ? "+" : ""})`), el("ul", {}, ended.map((s) => this.#row(s)))));
    }
    if (this.#cursor) nodes.push(el("button", { type: "button", class: "link", onclick: () => {
      this.#pages++;
      this.refresh();
    } }, "Show more"));
    this.#nav.replaceChildren(...nodes);
    if (focused) this.#nav.querySelector(`[data-id="${CSS.escape(focused)}"] a`)?.focus();
  }

  #about(s) {
    if (this.#saving.has(s.id)) return s.volume_name ? "Saving…" : "Deleting…";
    if (s.state === "ended") return sandboxEnd(s.end);
    if (s.id === this.#asking) return "Claude asks you";
    return s.state === "creating" ? "Being created…" : ago(s.created_at);
  }

  #row(s) {
    const saving = this.#saving.has(s.id);
    const state = saving ? "saving" : s.state !== "ended" && s.id === this.#asking ? "asking" : s.state;
    const about = this.#about(s);
    const link = el("a", { href: "#/s/" + encodeURIComponent(s.id), "aria-current": s.id === this.#picked ? "page" : null, title: s.state === "ended" ? `${about}, ${ago(s.ended_at)}` : null },
      el("span", { class: "dot " + state }), el("span", { class: "name" }, nameOf(s)), el("span", { class: "about" }, about));
    const bin = s.state === "ended" || saving ? null
      : el("button", { type: "button", class: "ghost", "aria-label": `Delete ${nameOf(s)}`, title: "Delete", onclick: () => this.#remove(s) }, icon("trash"));
    return el("li", { "data-id": s.id }, link, bin);
  }
}
