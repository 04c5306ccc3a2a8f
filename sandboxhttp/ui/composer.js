// The message box: Enter sends, Shift+Enter makes a new line, drafts stay, and Stop stands where Send was while Claude works.

import { byID, icon } from "./dom.js";

const working = "Claude is working; you can write ahead.";
const waiting = "Claude waits for your answer above.";

/** Composer owns the form at the bottom of the page. */
export class Composer {
  #form = byID("composer");
  #box = byID("prompt");
  #send = byID("send");
  #stop = byID("stop");
  #hint = byID("hint");
  #draft = "";
  #busy = false;

  /** submit is called with the text; the box is emptied when it returns true. stop is called by the Stop button. */
  constructor({ submit, stop }) {
    this.#send.append(icon("send"));
    this.#form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.#submit(submit);
    });
    this.#stop.addEventListener("click", () => {
      this.stopping();
      stop();
    });
    this.#box.addEventListener("keydown", (e) => {
      // While an input method composes, Enter picks a candidate; Safari reports that with keyCode 229 only.
      if (e.key !== "Enter" || e.shiftKey || e.isComposing || e.keyCode === 229) return;
      e.preventDefault();
      this.#submit(submit);
    });
    this.#box.addEventListener("input", () => this.#changed());
  }

  /** use shows the draft kept under key, with what the box is for. */
  use(key, { placeholder, hidden = false }) {
    this.#draft = "vivarium.draft." + key;
    this.#form.hidden = hidden;
    this.#box.placeholder = placeholder;
    this.#box.value = sessionStorage.getItem(this.#draft) ?? "";
    this.busy(false);
    this.#changed();
  }

  /** busy says whether Claude works now: Stop or Send. */
  busy(on) {
    const hadFocus = document.activeElement === this.#stop;
    this.#busy = on;
    this.#stop.hidden = !on;
    this.#stop.disabled = false;
    this.#stop.classList.remove("waiting");
    this.#send.hidden = on;
    this.#tell(on ? working : "");
    if (hadFocus && !on) this.focus();
  }

  /** asks says whether Claude waits for an answer. */
  asks(on) {
    if (this.#busy && !this.#stop.disabled) this.#tell(on ? waiting : working);
  }

  /** idle reports whether nobody is about to write: the box is empty, and nothing else has the focus. */
  get idle() {
    const { activeElement: at } = document;
    return at === null || at === document.body || (this.#form.contains(at) && this.#box.value === "");
  }

  stopping() {
    this.#stop.disabled = true;
    this.#stop.classList.add("waiting");
    this.#tell("Stopping…");
  }

  put(text) {
    this.#box.value = text;
    this.#changed();
    this.focus();
  }

  focus() {
    this.#box.focus({ preventScroll: true });
  }

  #submit(submit) {
    const text = this.#box.value.trim();
    if (this.#busy) return this.#tell("Wait for Claude to finish, or stop it. Your message stays here.");
    if (text === "" || !submit(text)) return;
    this.#box.value = "";
    this.#changed();
  }

  #changed() {
    const { value } = this.#box;
    this.#send.classList.toggle("idle", value.trim() === "");
    if (value === "") sessionStorage.removeItem(this.#draft);
    else sessionStorage.setItem(this.#draft, value);
    if (CSS.supports("field-sizing", "content")) return;
    this.#box.style.height = "auto";
    this.#box.style.height = this.#box.scrollHeight + "px";
  }

  #tell(text) {
    this.#hint.textContent = text || "Enter to send, Shift+Enter for a new line";
    this.#hint.classList.toggle("keys", text === "");
  }
}
