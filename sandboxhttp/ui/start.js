// The start page: say what you want, and a sandbox is made for it.

import { createSandbox, Settings } from "./create.js";
import { announce } from "./dialogs.js";
import { byID, el, icon } from "./dom.js";
import { problem } from "./explain.js";
import { notice } from "./runview.js";
import { howFar } from "./task.js";
import { oneLine } from "./text.js";

const stages = { creating: "Creating the sandbox", restoring: "Restoring the workspace" };

/** Start shows the start page. page has composer, created(sandbox, prompt), plainBar, suggestions. */
export class Start {
  #api;
  #page;
  #column = byID("column");
  #settings = new Settings();
  #making = false;

  constructor(api, page) {
    this.#api = api;
    this.#page = page;
  }

  open() {
    this.#page.plainBar();
    document.title = this.#page.title;
    byID("ended").hidden = true;
    const only = el("button", { type: "button", class: "link", onclick: () => this.#make("") }, "Create it without a message");
    byID("settings").replaceChildren(this.#settings.element, only);
    this.#page.composer.use("new", { placeholder: "Describe a task…" });
    this.#drawHero();
  }

  close() {
    byID("settings").replaceChildren();
  }

  send(text) {
    if (this.#making) return false;
    this.#make(text);
    return true;
  }

  stop() {}

  refresh() {}

  #drawHero(trouble = null) {
    const chips = this.#page.suggestions.map((s) => el("li", {}, el("button", { type: "button", class: "chip", onclick: () => this.#page.composer.put(s) }, s)));
    this.#column.replaceChildren(el("div", { class: "hero" },
      el("h1", {}, "What should Claude do?"),
      el("p", {}, "It works in a sandbox of its own: it can run commands and change files there, and not on your machine."),
      chips.length > 0 && el("ul", { class: "chips", "aria-label": "Suggestions" }, chips)), trouble ?? "");
  }

  async #make(prompt) {
    if (this.#making) return;
    this.#making = true;
    const steps = new Steps();
    byID("main").dataset.view = "making";
    byID("settings").hidden = true;
    this.#column.replaceChildren(prompt && el("article", { class: "asked-by-you" }, el("div", { class: "prompt", dir: "auto" }, prompt)), steps.element);
    try {
      const sandbox = await createSandbox(this.#api, this.#settings.config(), (p) => steps.progress(p), (s) => steps.connection(s));
      this.#page.created(sandbox, prompt);
    } catch (err) {
      this.#failed(err, prompt);
    } finally {
      this.#making = false;
      byID("settings").hidden = false;
    }
  }

  #failed(err, prompt) {
    const { title, text, detail } = problem(err);
    byID("main").dataset.view = "start";
    announce("No sandbox was made: " + title);
    this.#drawHero(notice("error", "No sandbox was made: " + title, text, detail));
    if (err.errors?.length || err.code === "name_in_use" || err.code === "restore_failed") this.#settings.open();
    this.#page.composer.put(prompt);
  }
}

// Steps lists the stages of a creation: those done, and the one that goes on.
class Steps {
  #last = null;
  #far = el("span", { class: "far" });
  #lost = el("p", { class: "lost", hidden: true }, "Connection lost. Reconnecting…");
  #list = el("ol", { class: "steps" });
  element = el("div", {}, this.#list, this.#lost);

  constructor() {
    this.next("creating");
  }

  progress(event) {
    this.next(event.stage);
    this.#far.textContent = howFar(event);
  }

  next(stage) {
    if (this.#last?.dataset.stage === stage) return;
    this.#last?.replaceChildren(icon("check"), this.#last.querySelector(".label").textContent.replace(/…$/, ""));
    this.#last?.classList.add("done");
    const label = Object.hasOwn(stages, stage) ? stages[stage] : oneLine(stage, 80);
    this.#last = el("li", { "data-stage": stage }, el("span", { class: "spinner" }), el("span", { class: "what" }, el("span", { class: "label" }, label + "…"), this.#far));
    this.#list.append(this.#last);
    announce(label);
  }

  connection(state) {
    this.#lost.hidden = state !== "lost";
  }
}
