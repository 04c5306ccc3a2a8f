// The form for the questions that Claude asks with its tool AskUserQuestion.

import { el, visible } from "./dom.js";

const text = (v) => typeof v === "string" && v !== "";

/** canAsk reports whether a tool use is one that the form can show: each question with a text of its own, and options with labels. */
export function canAsk({ questions }, tool) {
  if (tool !== "AskUserQuestion" || !Array.isArray(questions) || questions.length === 0) return false;
  const fit = (q) => text(q?.question) && Array.isArray(q.options) && q.options.every((o) => text(o?.label));
  return questions.every(fit) && new Set(questions.map((q) => q.question)).size === questions.length;
}

/** AskForm holds the fields; input gives the tool's input with the answers: the question's text to the labels, or what was written instead. */
export class AskForm {
  #input;
  #fields;

  constructor(input, id) {
    this.#input = input;
    this.#fields = input.questions.map((q, i) => new Field(q, `${id}-${i}`));
    this.element = el("div", { class: "fields" }, this.#fields.map((f) => f.element));
  }

  input() {
    return { ...this.#input, answers: Object.fromEntries(this.#fields.map((f) => [f.question, f.answer()])) };
  }
}

class Field {
  #boxes = [];
  #other;
  #many;

  constructor(q, name) {
    this.question = q.question;
    this.#many = q.multiSelect === true;
    const options = q.options.map((o, i) => this.#option(o.label, name, `${name}-${i}`, [text(o.description) && el("small", { dir: "auto" }, visible(o.description)), text(o.preview) && el("pre", {}, visible(o.preview.slice(0, 10_000)))]));
    this.#other = el("input", { type: "text", class: "other", "aria-label": "Another answer", placeholder: "Another answer", autocomplete: "off", dir: "auto", oninput: () => this.#wrote() });
    const own = this.#option("Other", name, `${name}-other`, []);
    this.element = el("fieldset", { onchange: () => this.#check() },
      el("legend", { dir: "auto" }, text(q.header) && el("span", { class: "tag" }, visible(q.header.slice(0, 60))), visible(q.question)),
      this.#many && el("p", { class: "note" }, "More than one may be chosen."), options, el("div", { class: "own" }, own, this.#other));
    this.#check();
  }

  /** answer is what was chosen, several joined as the CLI does. */
  answer() {
    return this.#boxes.filter((b) => b.checked).map((b) => (b === this.#own ? this.#other.value.trim() : b.value)).join(", ");
  }

  get #own() {
    return this.#boxes.at(-1);
  }

  #option(label, name, id, more) {
    const box = el("input", { type: this.#many ? "checkbox" : "radio", name, id, value: label });
    this.#boxes.push(box);
    return el("label", { class: "option", for: id }, box, el("span", {}, el("span", { dir: "auto" }, visible(label)), more));
  }

  // Writing an answer chooses it.
  #wrote() {
    this.#own.checked = this.#other.value.trim() !== "";
    this.#check();
  }

  #check() {
    const chosen = this.#boxes.some((b) => b.checked);
    this.#boxes[0].setCustomValidity(chosen ? "" : "Choose an answer.");
    this.#other.setCustomValidity(this.#own.checked && this.#other.value.trim() === "" ? "Write the answer." : "");
  }
}
