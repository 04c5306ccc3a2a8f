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
  #from = 0; // where in the text the blocks begin that further text can still change
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
    patch(this.#root, this.#live, blocks);
    this.#live = blocks;
    this.#settle(rest);
  }

  #restart() {
    this.#root.replaceChildren();
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
    this.#live.splice(0, done);
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

function patch(parent, old, blocks) {
  blocks.forEach((b, i) => {
    const was = old[i];
    if (was && same(was, b)) {
      blocks[i] = Object.assign(was, { from: b.from });
    } else if (was && was.type === b.type) {
      b.node = was.node;
      change(b, was);
    } else {
      b.node = create(b);
      change(b, null); // before it is put into the page, which then has to look at it once only
      if (was) was.node.replaceWith(b.node);
      else parent.append(b.node);
    }
  });
  for (const b of old.slice(blocks.length)) b.node.remove();
}

// No dir="auto" anywhere in it: the browser would look through a whole list again for each item. The style sheet does the same with
// unicode-bidi: plaintext.
const tags = { quote: "blockquote", p: "p", hr: "hr", ul: "ul", ol: "ol", li: "li" };

function create(b) {
  if (b.type === "code") return codeBlock(b);
  if (b.type === "table") return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table"));
  if (b.type[0] === "h" && b.type !== "hr") return el("h" + Math.min(6, Number(b.type[1]) + 2), { class: b.type });
  return el(tags[b.type]);
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
  if (b.tight) b.node.className = "tight";
  else b.node.removeAttribute("class");
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
  patch(b.node, was?.blocks ?? [], b.blocks);
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
  return el("tr", {}, texts.map((text, i) => el(tag, { class: b.align[i] || null }, inline(parseInline(text, open)))));
}

function codeBlock(b) {
  const code = el("code");
  const lang = el("span", { class: "lang" });
  return el("figure", { class: "code" },
    el("figcaption", {}, lang, copyButton(() => b.node.source ?? "")),
    el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, code));
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

// inline makes the nodes for a tree of inline.js. It keeps its own stack: a text can nest deeper than calls may.
function inline(tree) {
  const out = document.createDocumentFragment();
  const todo = [{ node: tree.first, parent: out, depth: 0, inLink: false }];
  while (todo.length > 0) {
    const { node, parent, depth, inLink } = todo.pop();
    if (!node) continue;
    if (node.next) todo.push({ node: node.next, parent, depth, inLink });
    const made = depth < maxNesting || !node.first ? inlineNode(node, parent, inLink) : parent;
    todo.push({ node: node.first, parent: made, depth: depth + 1, inLink: inLink || node.type === "link" || node.type === "image" });
  }
  return [out];
}

// inlineNode adds what one node of the tree is to parent, and gives the place for what is in it.
function inlineNode(n, parent, inLink) {
  const add = (node) => (parent.append(node), node);
  switch (n.type) {
    case "text": return void parent.append(...visible(n.text));
    case "br": return void add(el("br"));
    case "code": return void add(el("code", {}, visible(n.text)));
    case "link": return link(n, add, inLink) ?? parent;
    case "image": return picture(n, link(n, add, inLink) ?? parent);
    default: return add(el(n.type));
  }
}

function link(n, add, inLink) {
  const href = inLink ? null : safeURL(n.href);
  return href && add(el("a", { href, target: "_blank", rel: "noopener noreferrer", title: n.auto ? null : href }));
}

// A picture in an answer would tell another host that, and when, it was read; what it shows was chosen by the model. So: a link.
function picture(n, parent) {
  parent.append(el("span", { class: "picture" }, "Image: "), n.first ? "" : "no description");
  return parent;
}
