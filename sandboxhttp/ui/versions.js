// The versions of a sandbox's volume: listed, saved, restored.

import { announce, ask, openDialog, toast } from "./dialogs.js";
import { el, icon } from "./dom.js";
import { problem } from "./explain.js";
import { notice } from "./runview.js";
import { howFar, runTask, share } from "./task.js";
import { ago, bytes, number, oneLine } from "./text.js";

const last = { result: "result", problem: "problem" };
const labels = { saving: "Saving the files", restoring: "Restoring the version" };

/** Versions is the panel of one sandbox. Work goes on when it is closed. hooks has sandbox(), and changed(), which is awaited, for when the files are another version. */
export class Versions {
  #api;
  #id;
  #hooks;
  #dialog = null;
  #work = null; // {stage, progress, lost} of what goes on
  #versions = [];
  #unreadable = 0;
  #cursor = "";
  #loaded = false;
  #note;
  #form;
  #now = el("div", { class: "work" });
  #trouble = el("div", {});
  #list = el("div", { class: "versions" });

  constructor(api, id, hooks) {
    this.#api = api;
    this.#id = id;
    this.#hooks = hooks;
  }

  open() {
    if (this.#dialog) return;
    const { volume_name: volume } = this.#hooks.sandbox();
    const title = `Versions of “${oneLine(volume, 60)}”`;
    this.#note = el("input", { id: "version-note", type: "text", maxlength: "1000", autocomplete: "off", placeholder: "Note (optional)" });
    this.#form = el("form", { class: "save", onsubmit: (e) => {
      e.preventDefault();
      this.#save({ note: this.#note.value.trim() || undefined });
    } }, el("label", { class: "offscreen", for: "version-note" }, "Note for the version"), this.#note, el("button", { class: "button primary" }, "Save now"));
    const close = el("button", { type: "button", class: "ghost", "aria-label": "Close", title: "Close", onclick: () => this.#dialog.close() }, icon("cross"));
    this.#trouble.replaceChildren();
    this.#dialog = openDialog(el("div", { class: "panel" }, el("div", { class: "head" }, el("h2", {}, title), close), this.#form, this.#now, this.#trouble, this.#list), { label: title });
    this.#dialog.classList.add("wide");
    this.#dialog.addEventListener("close", () => (this.#dialog = null));
    this.#loaded = false;
    this.#draw();
    this.#drawWork();
    this.#load();
  }

  close() {
    this.#dialog?.close();
  }

  async #load(cursor = "") {
    try {
      const page = await this.#api.versions(this.#id, cursor);
      this.#versions = cursor ? [...this.#versions, ...page.versions] : page.versions;
      this.#unreadable = (cursor ? this.#unreadable : 0) + (page.unreadable ?? 0);
      this.#cursor = page.next_cursor ?? "";
      this.#loaded = true;
      this.#draw();
    } catch (err) {
      this.#fail("The versions cannot be listed", err, { label: "Try again", act: () => this.#load(cursor) });
      if (!this.#loaded) this.#list.replaceChildren();
    }
  }

  async #save(body) {
    const saved = await this.#run("saving", (key) => this.#api.sync(this.#id, body, key), "Not saved");
    if (!saved) return false;
    this.#note.value = "";
    toast(`Saved ${files(saved)}.`);
    return true;
  }

  async #restore(version) {
    const go = await ask({
      title: `Restore the version of ${when(version)}?`,
      text: "The sandbox then holds exactly its files. What was changed since the last save is gone, unless you save it first.",
      buttons: [{ label: "Cancel", value: null }, { label: "Save first, then restore", value: "save" }, { label: "Restore", value: "go", kind: "danger" }],
    });
    if (!go || (go === "save" && !(await this.#save({ note: "before a restore" })))) return;
    const restored = await this.#run("restoring", (key) => this.#api.restore(this.#id, { version: version.id }, key), "Not restored");
    if (restored) toast(`Restored ${files(restored)} of ${when(restored)}.`);
  }

  // Does one of both, and gives what came of it; null when it failed, which is shown.
  async #run(stage, post, failed) {
    if (this.#work) return null;
    this.#work = { stage, progress: null, lost: false };
    this.#trouble.replaceChildren();
    this.#draw();
    this.#drawWork();
    announce(labels[stage]);
    try {
      return await runTask(post, last, (p) => this.#tell({ progress: p }), (state) => this.#tell({ lost: state === "lost" }));
    } catch (err) {
      if (err.code === "version_conflict") this.#conflict(err);
      else this.#fail(failed, err);
      return null;
    } finally {
      this.#work = null;
      this.#drawWork();
      await this.#hooks.changed(); // it says which version is the current one
      if (this.#dialog) this.#load();
    }
  }

  #tell(news) {
    Object.assign(this.#work, news);
    this.#drawWork();
  }

  #drawWork() {
    const open = this.#hooks.sandbox().state === "running";
    this.#form.hidden = !open;
    this.#form.inert = this.#work !== null;
    if (!this.#work) return this.#now.replaceChildren();
    const { stage, progress, lost } = this.#work;
    const done = progress && share(progress);
    this.#now.replaceChildren(
      el("progress", { "aria-label": labels[stage], max: "1", value: done === null ? null : String(done) }),
      el("p", { class: lost ? "lost" : null }, lost ? "Connection lost. Reconnecting…" : [labels[stage], progress && howFar(progress)].filter(Boolean).join(": ") + "…"));
  }

  #fail(what, err, { label, act } = {}) {
    const { title, text, detail } = problem(err);
    const button = act && el("button", { type: "button", class: "button small", onclick: () => {
      this.#trouble.replaceChildren();
      act();
    } }, label);
    this.#say(notice("error", `${what}: ${title}`, text, detail, button));
  }

  #conflict(err) {
    const button = el("button", { type: "button", class: "button small", onclick: () => this.#save({ note: err.version?.note, parent: err.head }) }, "Make these files the newest");
    this.#say(notice("warn", "Another sandbox saved this volume first",
      "Your files are safe: they were kept as a version beside the newest one. Restore the newest one to go on from there, or make yours the newest.", "", button));
  }

  #say(note) {
    if (!this.#dialog) return toast(note.querySelector(".head").textContent);
    announce(note.querySelector(".head").textContent);
    this.#trouble.replaceChildren(note);
  }

  #draw() {
    if (!this.#loaded) return this.#list.replaceChildren(el("p", { class: "soft" }, "Loading the versions…"));
    if (this.#versions.length === 0 && !this.#unreadable) {
      return this.#list.replaceChildren(el("p", { class: "soft" }, "Nothing was saved yet. The files are saved when the sandbox is deleted, or now, if you like."));
    }
    const focused = this.#list.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.id : null;
    const nodes = [el("ol", {}, this.#versions.map((v) => this.#row(v)))];
    if (this.#unreadable) nodes.push(el("p", { class: "soft" }, `${number(this.#unreadable)} more cannot be read; the server's log says why.`));
    if (this.#cursor) nodes.push(el("button", { type: "button", class: "link", onclick: () => this.#load(this.#cursor) }, "Show older ones"));
    this.#list.replaceChildren(...nodes);
    if (focused) this.#list.querySelector(`[data-id="${CSS.escape(focused)}"] button`)?.focus();
  }

  #row(v) {
    const { version, state } = this.#hooks.sandbox();
    const about = [files(v), bytes(v.size), v.author && `by ${oneLine(v.author, 60)}`].filter(Boolean).join(" · ");
    const restore = state === "running" && el("button", { type: "button", class: "button small", disabled: this.#work !== null, "aria-label": `Restore the version of ${when(v)}`, onclick: () => this.#restore(v) }, "Restore");
    return el("li", { "data-id": v.id },
      el("div", {},
        el("p", { class: "when" }, el("time", { datetime: v.created_at, title: ago(v.created_at) }, when(v)),
          v.id === version?.id && el("span", { class: "tag", title: "The sandbox's files came from it, or were saved as it" }, "Current"),
          v.conflict && el("span", { class: "tag warn", title: "Another version became the newest first; this one was kept beside it" }, "Kept beside")),
        v.note && el("p", { class: "note", dir: "auto" }, oneLine(v.note, 300)),
        el("p", { class: "soft" }, about),
        v.changed?.length > 0 && el("p", { class: "soft" }, `Changed while it was saved: ${oneLine(v.changed.join(", "), 200)}`)),
      restore);
  }
}

const files = (v) => `${number(v.files)} ${v.files === 1 ? "file" : "files"}`;

const when = (v) => new Date(v.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
