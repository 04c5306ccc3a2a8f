// Inline Markdown: CommonMark's emphasis rules, code spans, links, autolinks, strikethrough, hard breaks. HTML stays text.
// Reference links are not read: their definitions may come long after their use, while the answer is still being written.

const special = /[\\`*_~[\]!<&\n]|https?:\/\//g;
const punctuation = /[\p{P}\p{S}]/u;
const entities = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", copy: "©", mdash: "—", ndash: "–", hellip: "…", rarr: "→", larr: "←", times: "×" };

/**
 * parseInline gives a tree of {type, text, href, first, next}: types text, code, em, strong, del, link, image, br, group. With open, the text
 * is still being written: bold and code that have begun and not ended are shown as what they will be.
 */
export function parseInline(text, open = false) {
  return new Inline(text, open).parse();
}

class Inline {
  constructor(text, open) {
    this.text = text;
    this.open = open;
    this.pos = 0;
    this.root = { type: "group", first: null, last: null };
    this.first = null; // the runs of *, _ and ~ that may begin or end emphasis, linked by before and after
    this.last = null;
    this.runs = 0;
    this.brackets = [];
    this.deadBelow = 0; // brackets under this place stand around a link, and links hold no links
    this.noTicks = new Set(); // lengths of backtick runs that have no partner further on
  }

  parse() {
    const { text } = this;
    while (this.pos < text.length) {
      special.lastIndex = this.pos;
      const m = special.exec(text);
      if (!m) {
        this.add(text.slice(this.pos));
        break;
      }
      if (m.index > this.pos) this.add(text.slice(this.pos, m.index));
      this.pos = m.index;
      this.one(m[0]);
    }
    this.emphasis(null, this.open);
    return this.root;
  }

  one(mark) {
    if (mark.length > 1) return this.bareURL();
    switch (mark) {
      case "\\": return this.escape();
      case "`": return this.code();
      case "[": return this.bracket(false);
      case "]": return this.close();
      case "!": return this.text[this.pos + 1] === "[" ? this.bracket(true) : this.literal(1);
      case "<": return this.angle();
      case "&": return this.entity();
      case "\n": return this.newline();
      default: return this.run(mark);
    }
  }

  add(text) {
    return this.append({ type: "text", text });
  }

  append(node, list = this.root) {
    node.prev = list.last;
    node.next = null;
    if (list.last) list.last.next = node;
    else list.first = node;
    list.last = node;
    return node;
  }

  literal(n) {
    this.add(this.text.slice(this.pos, this.pos + n));
    this.pos += n;
  }

  escape() {
    const next = this.text[this.pos + 1] ?? "";
    if (next === "\n") {
      this.append({ type: "br" });
    } else if (/[!-/:-@[-`{-~]/.test(next)) {
      this.add(next);
    } else {
      return this.literal(1);
    }
    this.pos += 2;
  }

  code() {
    const ticks = /`+/y;
    ticks.lastIndex = this.pos;
    const fence = ticks.exec(this.text)[0];
    const from = this.pos + fence.length;
    const to = this.noTicks.has(fence.length) ? -1 : findTicks(this.text, from, fence.length);
    if (to < 0) {
      this.noTicks.add(fence.length);
      if (!this.open || fence.length > 2) return this.literal(fence.length);
      const rest = this.text.slice(from).replace(/`+$/, "");
      if (rest) this.append({ type: "code", text: rest.replace(/\n/g, " ") });
      this.pos = this.text.length;
      return;
    }
    let body = this.text.slice(from, to).replace(/\n/g, " ");
    if (/^ .*[^ ].* $|^ [^ ] $/.test(body)) body = body.slice(1, -1);
    this.append({ type: "code", text: body });
    this.pos = to + fence.length;
  }

  bareURL() {
    const m = /https?:\/\/[^\s<>"`|]+/y;
    m.lastIndex = this.pos;
    const found = m.exec(this.text)?.[0];
    if (!found || /\w/.test(this.text[this.pos - 1] ?? "")) return this.literal(4);
    const url = trimURL(found);
    if (url.length <= 8) return this.literal(4);
    this.link(url, [url]);
    this.pos += url.length;
  }

  link(href, texts) {
    const node = { type: "link", href, auto: true, first: null, last: null };
    for (const text of texts) this.append({ type: "text", text }, node);
    this.append(node);
  }

  angle() {
    const rest = this.text.slice(this.pos, this.pos + 2000);
    const br = /^<br\s*\/?>/i.exec(rest);
    if (br) {
      this.append({ type: "br" });
      this.pos += br[0].length;
      return;
    }
    const m = /^<((?:https?:\/\/|mailto:)[^\s<>]*|[\w.+-]+@[\w-]+(?:\.[\w-]+)+)>/i.exec(rest);
    if (!m) return this.literal(1);
    this.link(/^\w+:/.test(m[1]) ? m[1] : "mailto:" + m[1], [m[1]]);
    this.pos += m[0].length;
  }

  entity() {
    const m = /^&(?:(\w{2,8})|#(\d{1,7})|#[xX]([\da-fA-F]{1,6}));/.exec(this.text.slice(this.pos, this.pos + 12));
    const named = m?.[1] && Object.hasOwn(entities, m[1]) ? entities[m[1]] : undefined;
    const code = m?.[2] ? Number(m[2]) : m?.[3] ? parseInt(m[3], 16) : 0;
    const char = named ?? (code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : undefined);
    if (char === undefined) return this.literal(1);
    this.add(char);
    this.pos += m[0].length;
  }

  newline() {
    const before = this.root.last;
    const hard = before?.type === "text" && / {2,}$/.test(before.text);
    if (before?.type === "text") before.text = before.text.replace(/ +$/, "");
    this.append(hard ? { type: "br" } : { type: "text", text: "\n" });
    this.pos++;
    while (this.text[this.pos] === " ") this.pos++;
  }

  // run adds a run of *, _ or ~ and works out whether it may begin or end emphasis (CommonMark 6.2).
  run(ch) {
    let n = 1;
    while (this.text[this.pos + n] === ch) n++;
    const before = this.text[this.pos - 1] ?? " ";
    const after = this.text[this.pos + n] ?? " ";
    const [spaceB, spaceA] = [/\s/.test(before), /\s/.test(after)];
    const [punctB, punctA] = [punctuation.test(before), punctuation.test(after)];
    const left = !spaceA && (!punctA || spaceB || punctB);
    const right = !spaceB && (!punctB || spaceA || punctA);
    const atEnd = this.pos + n === this.text.length;
    if (ch === "~" && n !== 2) return this.literal(n);
    if (this.open && atEnd && (!right || this.halfClosed(ch, n))) { // a mark of which more is to come
      this.pos += n;
      return;
    }
    const node = this.add(ch.repeat(n));
    this.pos += n;
    const word = ch === "_";
    const canOpen = left && (!word || !right || punctB);
    const canClose = right && (!word || !left || punctA);
    if (!canOpen && !canClose) return;
    const d = { node, ch, n, total: n, canOpen, canClose, atEnd, at: this.runs++, before: this.last, after: null };
    if (this.last) this.last.after = d;
    else this.first = d;
    this.last = d;
  }

  // halfClosed reports whether one star stands where two are needed to end what is bold.
  halfClosed(ch, n) {
    const opener = this.last;
    return n === 1 && ch === "*" && opener?.ch === ch && opener.canOpen && opener.n === 2;
  }

  bracket(image) {
    const node = this.add(image ? "![" : "[");
    this.deadBelow = Math.min(this.deadBelow, this.brackets.length);
    this.brackets.push({ node, image, from: this.last });
    this.pos += image ? 2 : 1;
  }

  close() {
    const opener = this.brackets.pop();
    if (!opener || (!opener.image && this.brackets.length < this.deadBelow)) return this.literal(1);
    const dest = this.destination(this.pos + 1);
    if (!dest) return this.literal(1);
    this.emphasis(opener.from);
    const node = { type: opener.image ? "image" : "link", href: dest.href, first: null, last: null };
    this.wrap(opener.node, null, node);
    this.unlink(opener.node);
    if (!opener.image) this.deadBelow = this.brackets.length;
    this.pos = dest.end;
  }

  destination(at) {
    if (this.text[at] !== "(") return null;
    const rest = this.text.slice(at, at + 4000);
    const m = /^\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))(?:\s+(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\((?:[^()\\]|\\.)*\)))?\s*\)/.exec(rest);
    if (m) return { href: (m[1] ?? m[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1"), end: at + m[0].length };
    if (this.open && !/[)\n]/.test(rest)) return { href: "", end: this.text.length }; // its address is still being written
    return null;
  }

  // emphasis pairs the runs after bottom (the algorithm in CommonMark's appendix).
  emphasis(bottom, open = false) {
    const floor = new Map(); // up to there no opener of that kind is left, so nobody looks there twice
    let closer = bottom ? bottom.after : this.first;
    while (closer) {
      const opener = closer.canClose ? findOpener(closer, bottom, floor) : null;
      if (opener) {
        this.pair(opener, closer);
        opener.after = closer; // what stood between them stays text
        closer.before = opener;
        if (opener.n === 0) this.drop(opener);
      }
      if (opener && closer.n > 0) continue;
      const next = closer.after;
      if (closer.n === 0 || !closer.canOpen) this.drop(closer);
      closer = next;
    }
    if (open) this.leaveOpen();
    this.last = bottom;
    if (bottom) bottom.after = null;
    else this.first = null;
  }

  drop(d) {
    if (d.before) d.before.after = d.after;
    else this.first = d.after;
    if (d.after) d.after.before = d.before;
    else this.last = d.before;
  }

  pair(opener, closer) {
    const n = opener.ch === "~" ? 2 : Math.min(opener.n, closer.n, 2);
    const type = opener.ch === "~" ? "del" : n === 2 ? "strong" : "em";
    this.wrap(opener.node, closer.node, { type, first: null, last: null });
    for (const d of [opener, closer]) {
      d.n -= n;
      d.node.text = d.node.text.slice(n);
    }
  }

  leaveOpen() {
    for (let d = this.last; d; d = d.before) {
      if (d.n < 2 || d.ch !== "*" || !d.canOpen || d.atEnd) continue;
      this.wrap(d.node, null, { type: "strong", first: null, last: null });
      if (d.n === 3) this.wrap(d.node, null, { type: "em", first: null, last: null });
      d.node.text = d.node.text.slice(d.n === 3 ? 3 : 2);
    }
  }

  // wrap moves what stands between from and to into node, and puts node in its place.
  wrap(from, to, node) {
    const last = to ? to.prev : this.root.last;
    if (from.next && from !== last) {
      node.first = from.next;
      node.last = last;
      node.first.prev = null;
      node.last.next = null;
    }
    from.next = node;
    node.prev = from;
    node.next = to;
    if (to) to.prev = node;
    else this.root.last = node;
  }

  unlink(node) {
    if (node.prev) node.prev.next = node.next;
    else this.root.first = node.next;
    if (node.next) node.next.prev = node.prev;
    else this.root.last = node.prev;
  }
}

function findOpener(closer, bottom, floor) {
  const kind = closer.ch + closer.canOpen + (closer.total % 3);
  const least = floor.get(kind) ?? -1;
  for (let o = closer.before; o && o !== bottom && o.at > least; o = o.before) {
    if (o.ch !== closer.ch || !o.canOpen) continue;
    const odd = (o.canClose || closer.canOpen) && (o.total + closer.total) % 3 === 0 && (o.total % 3 !== 0 || closer.total % 3 !== 0);
    if (!odd) return o;
  }
  floor.set(kind, closer.at - 1);
  return null;
}

function findTicks(text, from, n) {
  const ticks = /`+/g;
  ticks.lastIndex = from;
  for (let m; (m = ticks.exec(text)); ) if (m[0].length === n) return m.index;
  return -1;
}

// trimURL leaves the punctuation after an address, and a bracket that was not opened in it, to the sentence.
function trimURL(url) {
  for (;;) {
    const end = url.at(-1);
    if (/[?!.,:;*_~'"\]}]/.test(end)) url = url.slice(0, -1);
    else if (end === ")" && url.split(")").length > url.split("(").length) url = url.slice(0, -1);
    else return url;
  }
}

/** safeURL gives the address of a link that may be followed (http, https, mailto), or null. */
export function safeURL(href) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(href)) return null;
  try {
    return new URL(href).href;
  } catch {
    return null; // not an address
  }
}
