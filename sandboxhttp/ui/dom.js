// Making elements. Everything on the page is made here or by markdown.js, from text: nothing is ever parsed as HTML.

import { isPlain, pieces } from "./text.js";

/** el makes an element: attributes by name, on… listeners, class, data; children are nodes, strings, or nothing. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

/** byID finds an element of the page that must be there. */
export function byID(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error("the page has no #" + id);
  return node;
}

/** visible gives nodes for text in which nothing is hidden: a control or bidi character shows as its name. */
export function visible(text) {
  if (isPlain(text)) return [document.createTextNode(text)];
  return pieces(text).map((p) =>
    p.mark ? el("span", { class: "ctl", title: "A character that cannot be seen" }, p.mark) : document.createTextNode(p.text));
}

const paths = {
  plus: "M8 3v10M3 8h10",
  send: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  down: "M8 3v10M3.5 8.5 8 13l4.5-4.5",
  chevron: "m6 4 4 4-4 4",
  check: "m3.5 8.5 3 3 6-7",
  cross: "m4.5 4.5 7 7m0-7-7 7",
  trash: "M2.5 4.5h11M6 4.5v-2h4v2m2 0-.6 9H4.6L4 4.5M6.7 7v4M9.3 7v4",
  info: "M8 7.2v4M8 4.8v.2M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0Z",
  clock: "M8 4.5V8l2.4 1.6M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0Z",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  copy: "M5.5 5.5v-3h8v8h-3m-8-5h8v8h-8z",
  pen: "M9 3H3v10h10V7M7 9l.4-2L12.5 2l1.6 1.6L9 8.6z",
  warn: "M8 6.2v3.2m0 2v.2M8 2 1.8 13.2h12.4z",
  box: "M8 1.8 13.5 5v6L8 14.2 2.5 11V5zM2.7 5.1 8 8.2l5.3-3.1M8 8.2v5.8",
  ask: "M5.6 6a2.4 2.4 0 1 1 3.6 2.1c-.8.5-1.2.9-1.2 1.8m0 2v.2M14.5 8a6.5 6.5 0 1 1-13 0 6.5 6.5 0 0 1 13 0Z",
  pause: "M5.5 4v8m5-8v8",
};

const SVG = "http://www.w3.org/2000/svg";

/** icon draws one of the page's line icons; it is hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [k, v] of Object.entries({ viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" })) svg.setAttribute(k, v);
  path.setAttribute("d", paths[name]);
  svg.append(path);
  return svg;
}

/** copyButton copies what text gives when it is pressed, and says so. */
export function copyButton(text, label = "Copy") {
  const say = el("span", {}, label);
  const button = el("button", { type: "button", class: "copy", "aria-label": label, onclick: async () => {
    const ok = await copy(text());
    say.textContent = ok ? "Copied" : "Select it by hand";
    setTimeout(() => (say.textContent = label), 1600);
  } }, icon("copy"), say);
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOld(text); // no clipboard on plain http, and none without permission
  }
}

function copyOld(text) {
  const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
  const { activeElement } = document;
  area.value = text;
  document.body.append(area);
  area.select();
  const ok = document.execCommand("copy");
  area.remove();
  activeElement?.focus();
  return ok;
}
