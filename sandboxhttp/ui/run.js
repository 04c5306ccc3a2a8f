// A run of Claude as data: the CLI's stream-json lines go in, and what is to be shown comes out. No DOM in here.

import { Questions } from "./questions.js";

/**
 * Run collects the events of one run. items is what to show, in order; an item is one of
 *   {kind: "text", text, open}
 *   {kind: "thinking", text, open, ms}
 *   {kind: "tool", id, name, input, partial, result, state, items, seconds}    state: writing, asked, running, done, failed, stopped
 *   {kind: "notice", level, text}
 *   {kind: "question", …} of questions.js; after is the item that it stands below, or null
 * and has a parent, the tool call it was made under, or null; one that is gone was taken back.
 * Whoever draws it takes the changed ones from touched, and empties that.
 */
export class Run {
  lastID = 0;
  items = [];
  touched = new Set();
  sessionID = "";
  model = "";
  end = null; // the data of the `end` event
  retry = null; // the CLI waits before it asks the model again: {attempt, max, seconds, status}
  result = null; // the CLI's last result message
  begun = false; // anything at all was heard from the CLI

  #tools = new Map();
  #streams = new Map(); // what is being written, by the tool call it is written under ("" for Claude itself)

  /** record is the run as the API tells it: {id, prompt, session_id, …}. */
  constructor(record = {}) {
    this.record = record;
    this.sessionID = record.session_id ?? "";
    this.questions = new Questions(record, { added: (q) => this.#asked(q), changed: (q) => this.#question(q) });
  }

  /** apply takes one event of the stream; one whose id was seen already changes nothing, so replays are harmless. */
  apply({ id, event, data }) {
    const n = id === null || id === undefined ? 0 : Number(id);
    if (n > 0) {
      if (n <= this.lastID) return;
      this.lastID = n;
    }
    const body = parse(data);
    if (event === "end") this.#finish(body ?? {});
    else if (event === "gap") this.#gap(body ?? {});
    else if (event === "control") this.questions.control(obj(body), n);
    else if (event === "message" && body !== null && typeof body === "object") this.#read(body);
  }

  // What runs in the sandbox can write lines of any shape: one that makes no sense is said to be so, and the next one counts.
  #read(body) {
    try {
      this.#line(body);
    } catch {
      this.#notice("warn", "A line of Claude's output could not be understood, and is not shown.");
    }
  }

  get ended() {
    return this.end !== null;
  }

  /** doing says what goes on now, as {what, name?}; null once the run has ended. */
  doing() {
    if (this.end) return null;
    if (this.questions.waiting.length > 0) return { what: "question" };
    if (this.retry) return { what: "retry", ...this.retry };
    const live = deepestLive(this.items);
    if (live) return { what: live.kind === "tool" ? (live.state === "writing" ? "writing tool" : "tool") : live.kind, name: live.name };
    return { what: this.begun ? "working" : "starting" };
  }

  /** answer is the last text that Claude itself wrote. */
  answer() {
    return this.items.findLast((i) => i.kind === "text")?.text ?? "";
  }

  #line(m) {
    this.begun = true;
    if (str(m.session_id) && !m.parent_tool_use_id) this.sessionID = m.session_id;
    switch (m.type) {
      case "stream_event": return this.#stream(m.parent_tool_use_id ?? "", m.event ?? {});
      case "assistant": return this.#assistant(m);
      case "user": return this.#user(m);
      case "system": return this.#system(m);
      case "tool_progress": return this.#progress(m);
      case "result":
        this.retry = null;
        this.result = m;
    }
  }

  // A question stands below the tool use it is about; a subagent's below the subagent, since that is folded.
  #asked(q) {
    let at = this.#tools.get(q.id) ?? null;
    while (at?.parent) at = at.parent;
    q.after = at;
    q.parent = null;
    this.items.splice(at ? this.items.indexOf(at) + 1 : this.items.length, 0, q);
  }

  #question(q) {
    const tool = this.#tools.get(q.id);
    if (tool) this.#wait(tool);
    this.#touch(q);
  }

  // A tool use that waits for an answer does not run.
  #wait(tool) {
    const waits = this.questions.waits(tool.id);
    if (waits && (tool.state === "running" || tool.state === "writing")) tool.state = "asked";
    else if (!waits && tool.state === "asked") tool.state = "running";
    this.#touch(tool);
  }

  #list(parent) {
    return this.#tools.get(parent)?.items ?? this.items;
  }

  #add(parent, item) {
    item.parent = this.#tools.get(parent) ?? null;
    this.#list(parent).push(item);
    if (item.kind === "tool") this.#tools.set(item.id, item);
    return this.#touch(item, parent);
  }

  #touch(item, parent = "") {
    this.touched.add(item);
    if (this.#tools.has(parent)) this.touched.add(this.#tools.get(parent));
    return item;
  }

  #stream(parent, e) {
    this.retry = null;
    if (e.type === "message_start") return this.#begin(parent, e.message?.id);
    const stream = this.#streams.get(parent);
    if (!stream) return;
    if (e.type === "content_block_start") return this.#open(parent, stream, e);
    const item = stream.blocks.get(e.index);
    if (!item || stream.whole.has(item)) return;
    if (e.type === "content_block_delta") this.#delta(parent, item, e.delta ?? {});
    if (e.type === "content_block_stop") this.#close(item, parent);
  }

  // A message that begins while the one before was cut short takes its place: the CLI asks again after a broken answer.
  #begin(parent, id) {
    const before = this.#streams.get(parent);
    const list = this.#list(parent);
    for (const item of before?.blocks.values() ?? []) {
      if (before.whole.has(item)) continue;
      list.splice(list.indexOf(item), 1);
      item.gone = true;
      this.#touch(item, parent);
    }
    this.#streams.set(parent, { id, blocks: new Map(), whole: new Set() });
  }

  #open(parent, stream, e) {
    const b = e.content_block ?? {};
    let item = null;
    if (b.type === "text") item = { kind: "text", text: str(b.text), open: true };
    if (b.type === "thinking" || b.type === "redacted_thinking") item = { kind: "thinking", text: str(b.thinking), open: true, ms: null };
    if (isTool(b.type)) item = newTool(b, "writing");
    if (item) stream.blocks.set(e.index, this.#add(parent, item));
  }

  #delta(parent, item, d) {
    if (d.type === "text_delta") item.text += str(d.text);
    else if (d.type === "thinking_delta") item.text += str(d.thinking);
    else if (d.type === "input_json_delta") item.partial += str(d.partial_json);
    else return;
    this.#touch(item, parent);
  }

  #close(item, parent) {
    item.open = false;
    this.#touch(item, parent);
  }

  // The CLI writes one assistant line for each block, with the id of the message that was streamed: the line is what counts, and
  // takes the place of the pieces.
  #assistant(m) {
    this.retry = null;
    const parent = m.parent_tool_use_id ?? "";
    const message = m.message ?? {};
    if (message.model && message.model !== "<synthetic>") this.model = message.model;
    const content = typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
    for (const b of Array.isArray(content) ? content : []) this.#whole(parent, message.id, b, m);
  }

  #whole(parent, id, b, m) {
    const stream = this.#streams.get(parent);
    const kind = isTool(b.type) ? "tool" : b.type === "redacted_thinking" ? "thinking" : b.type;
    const fits = (i) => i.kind === kind && !stream.whole.has(i) && (kind !== "tool" || i.id === b.id);
    let item = stream && stream.id === id ? [...stream.blocks.values()].find(fits) : null;
    if (kind === "tool" && !item) item = this.#tools.get(b.id);
    if (kind === "text") item = this.#text(parent, item, str(b.text), m.error);
    else if (kind === "thinking") item = this.#thought(parent, item, b, m);
    else if (kind === "tool") item = this.#tool(parent, item, b);
    else if (b.type?.endsWith("tool_result")) this.#toolResult(b);
    if (item) stream?.whole.add(item);
  }

  #text(parent, item, text, error) {
    if (!item && text === "") return null;
    item ??= this.#add(parent, { kind: "text" });
    Object.assign(item, { text, open: false, error: Boolean(error) });
    return this.#touch(item, parent);
  }

  #thought(parent, item, b, m) {
    item ??= this.#add(parent, { kind: "thinking" });
    Object.assign(item, { text: str(b.thinking) || item.text || "", open: false, ms: m.thinking_duration_ms ?? null });
    return this.#touch(item, parent);
  }

  #tool(parent, item, b) {
    item ??= this.#add(parent, newTool(b, "running"));
    item.input = obj(b.input);
    item.open = false;
    if (item.state === "writing") item.state = "running";
    this.#wait(item);
    return this.#touch(item, parent);
  }

  #user(m) {
    const content = m.message?.content;
    for (const b of Array.isArray(content) ? content : []) if (b?.type === "tool_result") this.#toolResult(b);
  }

  #toolResult(b) {
    this.questions.used(b.tool_use_id);
    const item = this.#tools.get(b.tool_use_id);
    if (!item) return;
    item.result = b.content ?? "";
    item.state = b.is_error ? "failed" : "done";
    this.#touch(item);
  }

  #progress(m) {
    const item = this.#tools.get(m.tool_use_id);
    if (!item) return;
    item.seconds = m.elapsed_time_seconds ?? item.seconds;
    this.#touch(item);
  }

  #system(m) {
    switch (m.subtype) {
      case "init":
        this.model = str(m.model) || this.model;
        return;
      case "api_retry":
        this.retry = { attempt: m.attempt, max: m.max_retries, seconds: (m.retry_delay_ms ?? 0) / 1000, status: m.error_status ?? null };
        return;
      case "compact_boundary":
        return void this.#notice("quiet", "The conversation grew long: Claude goes on from a summary of what came before.");
      case "permission_denied":
        return void this.#notice("warn", str(m.message) || `Claude was not allowed to use ${m.tool_name ?? "a tool"}.`);
      case "informational":
      case "local_command_output":
        if (typeof m.content === "string") this.#notice("quiet", m.content);
    }
  }

  #notice(level, text) {
    return this.#add("", { kind: "notice", level, text });
  }

  #gap({ from, to }) {
    if (Number(to) > this.lastID) this.lastID = Number(to);
    this.#notice("warn", `The server no longer holds ${to - from + 1} events of this run; what they showed is missing here.`);
  }

  #finish(end) {
    this.end = end;
    this.retry = null;
    if (end.session_id) this.sessionID = end.session_id;
    this.questions.end();
    closeAll(this.items, this.touched);
  }
}

const isTool = (type) => type === "tool_use" || type === "server_tool_use" || type === "mcp_tool_use";

function newTool(b, state) {
  return { kind: "tool", id: b.id, name: str(b.name) || "tool", input: obj(b.input), partial: "", result: null, state, items: [], seconds: null, open: true };
}

const str = (v) => (typeof v === "string" ? v : "");
const obj = (v) => (v !== null && typeof v === "object" && !Array.isArray(v) ? v : {});

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null; // a line of the CLI that is not JSON has nothing to show
  }
}

function deepestLive(items) {
  for (const i of items.toReversed()) {
    if (i.kind === "tool" && (i.state === "running" || i.state === "writing")) return deepestLive(i.items) ?? i;
    if (i.open) return i;
  }
  return null;
}

function closeAll(items, touched) {
  for (const i of items) {
    const live = i.state === "running" || i.state === "writing" || i.state === "asked";
    if (live) i.state = "stopped";
    if (live || i.open) touched.add(i);
    i.open = false;
    if (i.items) closeAll(i.items, touched);
  }
}
