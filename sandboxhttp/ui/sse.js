// A parser for text/event-stream (WHATWG HTML, 9.2.6). EventSource cannot send an Authorization header, so the
// page reads the stream with fetch and takes it apart here.

/**
 * Parser turns chunks of text into events. feed may be given the stream cut anywhere, also inside "\r\n".
 * An event is {id, event, data}; id is null when the event had none of its own.
 */
export class Parser {
  #emit;
  #pending = []; // pieces of the line not yet ended: joined once, so that a line of megabytes costs no more than its length
  #afterCR = false;
  #started = false;
  #data = [];
  #event = "";
  #id = null;

  constructor(emit) {
    this.#emit = emit;
  }

  feed(chunk) {
    if (chunk === "") return;
    if (!this.#started) {
      this.#started = true;
      if (chunk.charCodeAt(0) === 0xfeff) chunk = chunk.slice(1);
    }
    let from = 0;
    if (this.#afterCR && chunk[0] === "\n") from = 1;
    if (chunk !== "") this.#afterCR = false;
    for (;;) {
      const end = nextBreak(chunk, from);
      if (end < 0) break;
      this.#line(this.#take(chunk.slice(from, end)));
      from = end + 1;
      if (chunk[end] === "\r") {
        if (from === chunk.length) this.#afterCR = true;
        else if (chunk[from] === "\n") from++;
      }
    }
    if (from < chunk.length) this.#pending.push(chunk.slice(from));
  }

  #take(rest) {
    if (this.#pending.length === 0) return rest;
    this.#pending.push(rest);
    const line = this.#pending.join("");
    this.#pending = [];
    return line;
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }

  // The standard drops an event without data, and keeps the last id for the next one. Here an id belongs to its own event
  // only: a heartbeat must not look as if it repeated the event before it.
  #dispatch() {
    const { length } = this.#data;
    if (length > 0) this.#emit({ id: this.#id, event: this.#event || "message", data: this.#data.join("\n") });
    if (length > 0) this.#data = [];
    this.#event = "";
    this.#id = null;
  }
}

const breaks = /[\r\n]/g;

function nextBreak(text, from) {
  breaks.lastIndex = from;
  return breaks.test(text) ? breaks.lastIndex - 1 : -1;
}

/**
 * read parses a response's body until it ends, and calls emit for each event. It rejects when the connection breaks, and with
 * a Silence after quietMS without a byte: a heartbeat comes at most 15 s apart, so a longer silence is a dead connection that
 * nobody has noticed.
 */
export async function read(response, emit, { quietMS = 45_000 } = {}) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parser = new Parser(emit);
  let timer;
  const quiet = () => new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Silence()), quietMS);
  });
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), quiet()]).finally(() => clearTimeout(timer));
      if (done) return;
      parser.feed(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // the connection may be gone already; what counts has been reported
  }
}

/** Silence is the error for a stream on which nothing came, not even a heartbeat. */
export class Silence extends Error {
  name = "Silence";
}
