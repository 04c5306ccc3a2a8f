// The page: puts its parts together, and shows what the address says ("#/" the start page, "#/s/ID" a sandbox).

import { API, Token } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { askToken } from "./dialogs.js";
import { byID, el, icon } from "./dom.js";
import { removeSandbox } from "./remove.js";
import { Follower } from "./scroll.js";
import { Sidebar } from "./sidebar.js";
import { Start } from "./start.js";

const { api: base, suggestions } = document.documentElement.dataset;

class App {
  title = document.title;
  suggestions = JSON.parse(suggestions);
  #api = new API(base, new Token(askToken));
  #view = null;
  #fresh = null; // a sandbox just made, and the message it was made for
  follower = new Follower(byID("log"), byID("column"), byID("jump"));
  composer = new Composer({ submit: (text) => this.#view.send(text), stop: () => this.#view.stop() });
  #sidebar = new Sidebar(this.#api, { remove: (s) => this.remove(s), listed: (all) => this.#listed(all) });

  run() {
    byID("jump").prepend(icon("down"));
    byID("skip").addEventListener("click", (e) => {
      e.preventDefault(); // the address says which sandbox is shown
      this.composer.focus();
    });
    addEventListener("hashchange", () => this.#route());
    document.addEventListener("visibilitychange", () => document.hidden || this.#view.refresh());
    fitKeyboard();
    this.#route();
    this.#sidebar.refresh();
  }

  #route() {
    const id = decode(/^#\/s\/([^/]+)$/.exec(location.hash)?.[1] ?? "");
    this.#view?.close();
    const view = id ? new Chat(this.#api, id, this) : new Start(this.#api, this);
    this.#view = view;
    byID("main").dataset.view = id ? "chat" : "start";
    this.#sidebar.pick(id);
    const { sandbox, prompt } = this.#fresh ?? {};
    this.#fresh = null;
    const opened = view.open(sandbox?.id === id ? sandbox : null);
    this.follower.jump();
    if (matchMedia("(hover: hover)").matches) this.composer.focus(); // on a phone it would bring up the keyboard
    if (prompt) opened.then(() => view.send(prompt));
  }

  // What the parts of the page ask of it.

  created(sandbox, prompt) {
    this.#fresh = { sandbox, prompt };
    this.#sidebar.put(sandbox);
    location.hash = "#/s/" + encodeURIComponent(sandbox.id);
  }

  changed() {
    this.#sidebar.refresh();
  }

  /** asks marks a sandbox in which Claude waits for an answer. */
  asks(id, on) {
    this.#sidebar.asking(id, on);
    const mark = document.querySelector("link[rel=icon]");
    mark.href = mark.href.replace(/icon(-asks)?\.svg$/, on ? "icon-asks.svg" : "icon.svg");
  }

  isSaving(id) {
    return this.#sidebar.isSaving(id);
  }

  drawer(opener) {
    this.#sidebar.open(opener);
  }

  /** plainBar is the bar of a page without a sandbox. */
  plainBar() {
    byID("bar").replaceChildren(
      el("button", { type: "button", class: "ghost drawer", "aria-label": "Show sandboxes", title: "Show sandboxes", onclick: (e) => this.drawer(e.currentTarget) }, icon("menu")));
  }

  async remove(sandbox) {
    const gone = await removeSandbox(this.#api, sandbox, (on) => {
      this.#sidebar.saving(sandbox.id, on);
      if (this.#view.sandbox?.id === sandbox.id) this.#view.show(this.#view.sandbox);
    });
    if (gone && this.#view.id === sandbox.id) location.hash = "#/";
    this.#sidebar.refresh();
  }

  #listed(all) {
    const now = all.find((s) => s.id === this.#view.id);
    if (now && this.#view.sandbox) this.#view.show(now);
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // an address that somebody cut short
  }
}

// Safari lays its keyboard over the page instead of making it smaller: the page then takes the height that is left.
function fitKeyboard() {
  const view = window.visualViewport;
  if (!view) return;
  const fit = () => {
    const covered = view.scale === 1 && innerHeight - view.height > 60;
    document.documentElement.style.setProperty("--height", covered ? view.height + "px" : "100dvh");
    if (covered) scrollTo(0, 0);
  };
  view.addEventListener("resize", fit);
  fit();
}

new App().run();
