// Questions that stop everything else, and short notes that do not.

import { byID, el, icon } from "./dom.js";

/** openDialog shows content over everything else; label names it for screen readers. It is removed when it is closed. */
export function openDialog(content, { label, closedby = "any" }) {
  const dialog = el("dialog", { "aria-label": label, closedby }, content);
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
  return dialog;
}

/**
 * ask shows a question with buttons {label, value, kind} and gives the value of the one pressed, or null. The first button is the safe
 * one, and has the focus.
 */
export function ask({ title, text, detail, buttons }) {
  return new Promise((resolve) => {
    let answer = null;
    const form = el("form", { method: "dialog" },
      el("h2", {}, title), el("p", {}, text), detail && el("p", { class: "detail" }, detail),
      el("div", { class: "buttons" }, buttons.map((b, i) =>
        el("button", { class: "button " + (b.kind ?? ""), autofocus: i === 0, onclick: () => (answer = b.value) }, b.label))));
    openDialog(form, { label: title }).addEventListener("close", () => resolve(answer));
  });
}

/** askToken asks for the bearer token; again says that the last one was refused. It rejects when the question is closed. */
export function askToken(again) {
  return new Promise((resolve, reject) => {
    const input = el("input", { type: "password", id: "token", autocomplete: "off", required: true, autofocus: true, spellcheck: "false", "aria-invalid": again || null, "aria-describedby": "token-about" });
    let token = "";
    const form = el("form", { method: "dialog", class: "token", onsubmit: () => (token = input.value.trim()) },
      el("h2", {}, "This server asks for a token"),
      el("p", { id: "token-about", class: again ? "wrong" : null }, again ? "The token was not accepted. Check it, and try again." : "It is the one the server was started with. It is kept until you close this tab."),
      el("label", { for: "token" }, "Token"), input,
      el("div", { class: "buttons" }, el("button", { class: "button primary" }, "Continue")));
    openDialog(form, { label: "Token", closedby: "closerequest" }).addEventListener("close", () => {
      if (token) resolve(token);
      else reject(new Error("no token was given"));
    });
  });
}

/** about shows a list of [term, nodes or text]. */
export function about(title, rows) {
  const close = el("button", { class: "ghost", "aria-label": "Close", autofocus: true }, icon("cross"));
  openDialog(el("form", { method: "dialog" },
    el("div", { class: "head" }, el("h2", {}, title), close),
    el("dl", {}, rows.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]))), { label: title });
}

/** announce tells screen readers something, once. */
export function announce(text) {
  byID("announce").textContent = text;
}

/** toast shows a note for a few seconds. */
export function toast(text) {
  announce(text);
  const note = el("p", { class: "toast" }, text);
  byID("toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}
