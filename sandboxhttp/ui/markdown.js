// Markdown as it is being written: DOM nodes from blocks.js and inline.js, changed in place where the text changed.

import { parseBlocks } from "./blocks.js";
import { parseInline, safeURL } from "./inline.js";
import { copyButton, el, visible } from "./dom.js";

const maxNesting = 40; // deeper emphasis adds nothing to see, and a tree of thousands of levels overflows the browser's layout

// A last line that could still become a list, a rule, a heading, a fence or the underline of one: it is left out until it is decided.
const undecided = /(?:^|\n)[ \t>]*(?:[-=+*_#>~`|]{1,2}|\d{1,3}[.)]?)[ \t]*$/;

// halfTable reports whether a block is the first row of a table whose second has not been written.
const halfTable = (b) => b?.type === "p" && /^\|[^\n]*(?:\n[ \t|:-]*)?$/.test(b.text);

/**
 * Markdown shows a growing text inside root. Every update keeps the nodes whose source is as it was, so a selection in them
 * stays and a long answer costs no more per word than a short one.
 */
export class Markdown {
  #root;
  #text = "";
  #settled = []; // blocks that no further text can change
  #from = 0; // where in the text the others begin
  #live = [];

  constructor(root) {
    this.#root = root;
  }

  /** update shows text; open says that it is still being written. */
  update(text, open = false) {
    if (!text.startsWith(this.#text)) this.#restart();
    this.#text = text;
    const rest = text.slice(this.#from);
    const blocks = parseBlocks(open ? rest.replace(undecided, "") : rest);
    if (open && halfTable(blocks.at(-1))) blocks.pop();
    markOpen(blocks, open);
    patch(this.#root, this.#live, blocks, this.#settled.length);
    this.#live = blocks;
    this.#settle(rest);
  }

  #restart() {
    this.#root.replaceChildren();
    this.#settled = [];
    this.#live = [];
    this.#from = 0;
  }

  // Only the last line can still turn into something else, and with it the block it may have ended: all before the last two
  // blocks is final.
  #settle(rest) {
    const done = this.#live.length - 2;
    if (done <= 0) return;
    let at = 0;
    for (let line = this.#live[done].from; line > 0; line--) at = lineEnd(rest, at);
    for (const b of this.#live.splice(0, done)) this.#settled.push(b.type);
    const first = this.#live[0].from;
    for (const b of this.#live) b.from -= first;
    this.#from += at;
  }
}

function lineEnd(text, at) {
  while (text[at] !== "\n" && text[at] !== "\r") at++;
  return text[at] === "\r" && text[at + 1] === "\n" ? at + 2 : at + 1;
}

// markOpen marks the last block, and the last one in it, as still being written.
function markOpen(blocks, open) {
  const last = blocks.at(-1);
  if (!last) return;
  last.open = open;
  if (last.blocks) markOpen(last.blocks, open);
  if (!last.items) return;
  last.items.at(-1).open = open;
  markOpen(last.items.at(-1).blocks, open);
}

const same = (a, b) => a.type === b.type && a.raw === b.raw && !a.open && !b.open;

function patch(parent, old, blocks, offset = 0) {
  blocks.forEach((b, i) => {
    const was = old[i];
    if (was && same(was, b)) {
      blocks[i] = Object.assign(was, { from: b.from });
    } else if (was && was.type === b.type) {
      b.node = was.node;
      change(b, was);
    } else {
      b.node = create(b);
      if (was) was.node.replaceWith(b.node);
      else parent.insertBefore(b.node, parent.children[offset + i] ?? null);
      change(b, null);
    }
  });
  for (const b of old.slice(blocks.length)) b.node.remove();
}

const tags = { quote: "blockquote", p: "p", hr: "hr", ul: "ul", ol: "ol", li: "li" };

function create(b) {
  if (b.type === "code") return codeBlock(b);
  if (b.type === "table") return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table"));
  if (b.type[0] === "h" && b.type !== "hr") return el("h" + Math.min(6, Number(b.type[1]) + 2), { class: b.type, dir: "auto" });
  return el(tags[b.type], b.type === "hr" ? {} : { dir: "auto" });
}

function change(b, was) {
  switch (b.type) {
    case "hr": return;
    case "code": return changeCode(b, was);
    case "quote": return patch(b.node, was?.blocks ?? [], b.blocks);
    case "table": return changeTable(b, was);
    case "ul":
    case "ol": return changeList(b, was);
    case "li": return changeItem(b, was);
    default: return b.node.replaceChildren(...inline(parseInline(b.text, b.open)));
  }
}

function changeList(b, was) {
  b.node.classList.toggle("tight", b.tight);
  if (b.type === "ol" && b.start !== 1) b.node.start = b.start;
  patch(b.node, was?.items ?? [], b.items);
}

function changeItem(b, was) {
  if (was && (was.task === null) !== (b.task === null)) {
    b.node.replaceChildren();
    was = null;
  }
  if (b.task !== null && !was) {
    b.node.className = "task";
    b.node.append(el("input", { type: "checkbox", disabled: true, "aria-label": "Task" }));
  }
  if (b.task !== null) b.node.firstChild.checked = b.task;
  patch(b.node, was?.blocks ?? [], b.blocks, b.task === null ? 0 : 1);
}

function changeTable(b, was) {
  const table = b.node.firstChild;
  const kept = was && was.head.join("\0") === b.head.join("\0") && was.align.join() === b.align.join() ? was.rows : null;
  if (!kept) table.replaceChildren(el("thead", {}, row(b, b.head, "th", false)), el("tbody"));
  const body = table.lastChild;
  let from = 0;
  while (kept && from < kept.length - 1 && from < b.rows.length && kept[from].join("\0") === b.rows[from].join("\0")) from++;
  while (body.children.length > from) body.lastChild.remove();
  b.rows.slice(from).forEach((r, i) => body.append(row(b, r, "td", b.open && from + i === b.rows.length - 1)));
}

function row(b, texts, tag, open) {
  return el("tr", {}, texts.map((text, i) => el(tag, { class: b.align[i] || null, dir: "auto" }, inline(parseInline(text, open)))));
}

function codeBlock(b) {
  const code = el("code");
  const lang = el("span", { class: "lang" });
  return el("figure", { class: "code" },
    el("figcaption", {}, lang, copyButton(() => b.node.source ?? "")),
    el("pre", { tabindex: "0", dir: "ltr", role: "region", "aria-label": "Code" }, code));
}

function changeCode(b, was) {
  b.node.querySelector(".lang").replaceChildren(...visible(b.lang || "text"));
  const code = b.node.lastChild.firstChild;
  growText(code, was ? was.text : null, b.text);
  b.node.source = b.text;
}

/** growText makes node show text in which nothing is hidden, and only adds to it when it has grown. */
export function growText(node, before, text) {
  if (before !== null && text.startsWith(before)) node.append(...visible(text.slice(before.length)));
  else node.replaceChildren(...visible(text));
}

// inline makes the nodes for a tree of inline.js.
function inline(tree, depth = 0, inLink = false) {
  const out = [];
  for (let n = tree.first; n; n = n.next) {
    if (n.type === "text") out.push(...visible(n.text));
    else if (depth > maxNesting && n.first) out.push(...inline(n, depth, inLink));
    else out.push(...inlineNode(n, depth, inLink));
  }
  return out;
}

function inlineNode(n, depth, inLink) {
  switch (n.type) {
    case "br": return [el("br")];
    case "code": return [el("code", { dir: "ltr" }, visible(n.text))];
    case "link": return link(n, inline(n, depth + 1, true), inLink);
    case "image": return image(n, depth, inLink);
    default: return [el(n.type, {}, inline(n, depth + 1, inLink))];
  }
}

function link(n, children, inLink) {
  const href = inLink ? null : safeURL(n.href);
  if (!href) return children;
  return [el("a", { href, target: "_blank", rel: "noopener noreferrer", title: n.auto ? null : href }, children)];
}

// A picture in an answer would tell another host that, and when, it was read; what it shows was chosen by the model. So: a link.
function image(n, depth, inLink) {
  const alt = inline(n, depth + 1, true);
  return link(n, [el("span", { class: "picture" }, "Image: "), ...(alt.length ? alt : [n.href ? "no description" : ""])], inLink);
}
