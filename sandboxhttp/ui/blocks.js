// Block Markdown: a text becomes paragraphs, headings, lists, quotes, code and tables, by CommonMark's rules and
// GFM's tables and task items. HTML blocks are paragraphs: what looks like a tag is text.

const heading = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const rule = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const fence = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)$/;
const quote = /^ {0,3}> ?/;
const marker = /^( {0,3})([-+*]|\d{1,9}[.)])( +|$)/;
const divider = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const maxDepth = 12; // deeper quotes and lists are shown as text: no answer needs them, and each level costs a stack frame

/**
 * parseBlocks gives the blocks of text: {type, raw, from, …}; from is the line it begins on. Two blocks of the same type and raw text are the same.
 * Types: p, h1 to h6, hr, code {lang, text, closed}, quote {blocks}, ul and ol {start, tight, items}, table {align, head, rows}.
 */
export function parseBlocks(text) {
  return parseLines(text.split(/\r\n|\r|\n/), 0);
}

function parseLines(lines, depth) {
  const out = [];
  for (let i = 0; i < lines.length; ) {
    if (blank(lines[i])) {
      i++;
      continue;
    }
    const [block, next] = parseOne(lines, i, depth);
    block.from = i;
    block.raw = lines.slice(i, next).join("\n");
    out.push(block);
    i = next;
  }
  return out;
}

const blank = (line) => !/[^ \t]/.test(line);

function parseOne(lines, i, depth) {
  const line = untab(lines[i]);
  if (/^ {4}/.test(line)) return indented(lines, i);
  const f = fence.exec(line);
  if (f) return fenced(lines, i, f);
  const h = heading.exec(line);
  if (h) return [{ type: "h" + h[1].length, text: h[2] ?? "" }, i + 1];
  if (rule.test(line)) return [{ type: "hr" }, i + 1];
  if (depth < maxDepth && quote.test(line)) return quoted(lines, i, depth);
  if (depth < maxDepth && marker.test(line)) return list(lines, i, depth);
  if (isTable(lines, i)) return table(lines, i);
  return paragraph(lines, i, depth);
}

// untab makes the tabs that indent a line into spaces, to stops of four.
function untab(line) {
  if (!line.includes("\t")) return line;
  let col = 0;
  let k = 0;
  for (; k < line.length && (line[k] === " " || line[k] === "\t"); k++) col += line[k] === "\t" ? 4 - (col % 4) : 1;
  return " ".repeat(col) + line.slice(k);
}

function strip(line, n) {
  const flat = untab(line);
  let k = 0;
  while (k < n && flat[k] === " ") k++;
  return flat.slice(k);
}

function indented(lines, i) {
  let end = i;
  let next = i;
  while (next < lines.length && (blank(lines[next]) || /^ {4}/.test(untab(lines[next])))) {
    if (!blank(lines[next])) end = next;
    next++;
  }
  const text = lines.slice(i, end + 1).map((l) => strip(l, 4)).join("\n");
  return [{ type: "code", lang: "", text, closed: true }, end + 1];
}

function fenced(lines, i, [, indent, marks, info]) {
  const closing = new RegExp(`^ {0,3}\\${marks[0]}{${marks.length},}[ \\t]*$`);
  const body = [];
  let next = i + 1;
  for (; next < lines.length; next++) {
    if (closing.test(lines[next])) break;
    body.push(indent ? strip(lines[next], indent.length) : lines[next]);
  }
  const closed = next < lines.length;
  return [{ type: "code", lang: info.trim().split(/\s+/)[0], text: body.join("\n"), closed }, closed ? next + 1 : next];
}

function quoted(lines, i, depth) {
  const body = new Body();
  let next = i;
  for (; next < lines.length; next++) {
    const line = untab(lines[next]);
    if (quote.test(line)) body.push(line.replace(quote, ""));
    else if (body.takesLazily(line)) body.push(line);
    else break;
  }
  return [{ type: "quote", blocks: parseLines(body.lines, depth + 1) }, next];
}

// Body collects the lines inside a quote or an item.
class Body {
  lines = [];
  #fence = null;

  push(line) {
    this.lines.push(line);
    const m = fence.exec(line);
    if (!m) return;
    if (!this.#fence) this.#fence = m[2];
    else if (m[2][0] === this.#fence[0] && m[2].length >= this.#fence.length && m[3] === "") this.#fence = null;
  }

  // takesLazily reports whether a line without the container's mark goes on with a paragraph that is open in it.
  takesLazily(line) {
    const before = this.lines.at(-1) ?? "";
    if (this.#fence || blank(line) || blank(before) || interrupts(line) || marker.test(line)) return false;
    return !heading.test(before) && !rule.test(before) && !fence.test(before) && !/^ {4}/.test(before);
  }
}

function interrupts(line) {
  const m = marker.exec(line);
  if (m && line.length > m[0].length && (/[-+*]/.test(m[2]) || parseInt(m[2], 10) === 1)) return true;
  return heading.test(line) || rule.test(line) || fence.test(line) || quote.test(line);
}

function list(lines, i, depth) {
  const kind = (mark) => (/\d/.test(mark) ? mark.at(-1) : mark);
  const first = marker.exec(untab(lines[i]));
  const items = [];
  let next = i;
  let loose = false;
  while (next < lines.length) {
    const line = untab(lines[next]);
    const m = marker.exec(line);
    if (!m || kind(m[2]) !== kind(first[2]) || rule.test(line)) break;
    const [body, end, gap] = item(lines, next, m);
    items.push(makeItem(body, depth));
    loose ||= items.at(-1).loose || (gap && end < lines.length && sameList(lines[end], first[2], kind));
    next = end;
  }
  const ordered = /\d/.test(first[2]);
  return [{ type: ordered ? "ol" : "ul", start: ordered ? parseInt(first[2], 10) : 1, tight: !loose, items }, next];
}

function sameList(line, mark, kind) {
  const m = marker.exec(untab(line));
  return m !== null && kind(m[2]) === kind(mark);
}

// item gives the lines of one item without their indent, the line after it, and whether blank lines came before that.
function item(lines, i, [whole, indent, mark, space]) {
  const line = untab(lines[i]);
  const empty = blank(line.slice(whole.length));
  const width = indent.length + mark.length + (empty || space.length > 4 ? 1 : space.length);
  const body = new Body();
  body.push(line.slice(width));
  let next = i + 1;
  let gap = 0;
  for (; next < lines.length; next++) {
    const flat = untab(lines[next]);
    if (blank(flat)) {
      if (body.lines.length === 1 && empty) break; // an item may begin with one blank line, not two
      gap++;
      body.push("");
      continue;
    }
    const inside = flat.search(/[^ ]/) >= width;
    if (!inside && (gap > 0 || !body.takesLazily(flat))) break;
    body.push(inside ? flat.slice(width) : flat);
    gap = 0;
  }
  if (gap > 0) body.lines.length -= gap;
  return [body.lines, next, gap > 0];
}

function makeItem(body, depth) {
  const task = /^\[([ xX])\][ \t]+(?=\S)/.exec(body[0]);
  const lines = task ? [body[0].slice(task[0].length), ...body.slice(1)] : body;
  const blocks = parseLines(lines, depth + 1);
  const loose = blocks.some((b, k) => k > 0 && blank(lines[b.from - 1]));
  return { type: "li", task: task ? task[1] !== " " : null, blocks, loose, raw: body.join("\n") };
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, "|"));
}

function isTable(lines, i) {
  const next = lines[i + 1];
  if (next === undefined || !lines[i].includes("|") || !next.includes("-") || !divider.test(next)) return false;
  return cells(lines[i]).length === cells(next).length;
}

function table(lines, i) {
  const head = cells(lines[i]);
  const align = cells(lines[i + 1]).map((c) => (/^:-*:$/.test(c) ? "center" : c.endsWith(":") ? "right" : c.startsWith(":") ? "left" : ""));
  const rows = [];
  let next = i + 2;
  for (; next < lines.length && !blank(lines[next]) && !interrupts(lines[next]); next++) {
    const row = cells(lines[next]).slice(0, head.length);
    while (row.length < head.length) row.push("");
    rows.push(row);
  }
  return [{ type: "table", align, head, rows }, next];
}

function paragraph(lines, i, depth) {
  const body = [lines[i].replace(/^[ \t]+/, "")];
  let next = i + 1;
  for (; next < lines.length; next++) {
    const line = untab(lines[next]);
    if (blank(line)) break;
    const under = /^ {0,3}(=+|-+)[ \t]*$/.exec(line);
    if (under) return [{ type: under[1][0] === "=" ? "h1" : "h2", text: body.join("\n").trimEnd() }, next + 1];
    if ((depth < maxDepth && interrupts(line)) || isTable(lines, next)) break;
    body.push(line.replace(/^ +/, ""));
  }
  return [{ type: "p", text: body.join("\n").trimEnd() }, next];
}
