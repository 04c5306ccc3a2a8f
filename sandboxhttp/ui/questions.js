// What Claude asks in a run, as data: whether it may use a tool. No DOM in here.

/**
 * Questions are those of one run. A question is an item of run.js:
 *   {kind: "question", id, request, at, tool, input, title, display, description, reason, rules, always, careful, state, given, trouble, tries}
 * id is the tool use's, request the control request's, at the event in which it was asked. rules are the CLI's suggestions, always says that they may
 * be offered, and careful that one key must not be enough to allow it. state is
 *   unsure      it was asked before the page was loaded, and what became of it is not known yet
 *   open        it waits for an answer
 *   sending     this page's answer is on its way, for the tries'th time
 *   answered    given is the answer where it was this page's, else null
 *   withdrawn   nobody waits for an answer any more
 * and trouble the Problem for which an answer was not taken.
 */
export class Questions {
  #all = new Map(); // by id
  #record;
  #hooks;

  /** record is the run as the API told it; added and changed are called with a question. */
  constructor(record, { added, changed }) {
    this.#record = record;
    this.#hooks = { added, changed };
  }

  /** waiting are those that want something of a person. */
  get waiting() {
    return [...this.#all.values()].filter((q) => q.state === "open" || q.state === "sending");
  }

  /** doubtful reports whether the API may know better what became of one. */
  get doubtful() {
    return [...this.#all.values()].some((q) => q.state === "open" || q.state === "unsure" || q.guessed);
  }

  waits(id) {
    const state = this.#all.get(id)?.state;
    return state === "open" || state === "sending";
  }

  /** control takes a line of the CLI's control protocol, which was event n. */
  control(line, n) {
    const { type, request_id: request, request: r } = line;
    if (type === "control_request" && r?.subtype === "can_use_tool" && str(r.tool_use_id)) this.#asked(fromEvent(r, request, n), n > this.#told || this.#listed(r.tool_use_id) ? "open" : "unsure");
    if (type === "control_cancel_request") this.#withdraw((q) => q.request === request);
  }

  /** used is told that the tool of a question was used, or refused. */
  used(id) {
    const q = this.#all.get(id);
    if (!q || (q.state === "withdrawn" && !q.guessed)) return;
    q.guessed = false;
    if (q.state !== "answered") this.#set(q, "answered");
  }

  /** end closes all: the run has ended. */
  end() {
    for (const q of this.#all.values()) q.guessed = false;
    this.#withdraw(() => true);
  }

  /**
   * told takes the API's word for what waits, from a record of the run; seen is the last event here. A server that has not come as far as
   * a question knows nothing of it, and one that has may be about to ask: what it lacks twice is answered, until it is asked again.
   */
  told(record, seen) {
    const listed = new Map((record.questions ?? []).map((q) => [q.id, q]));
    for (const [id, r] of listed) {
      const q = this.#all.get(id);
      if (!q && seen >= (record.events ?? 0)) this.#asked(fromRecord(r, seen), "open");
      else if (q && (q.state === "unsure" || q.guessed)) this.#set(q, "open");
    }
    for (const q of this.#all.values()) {
      const missed = (q.state === "open" || q.state === "unsure") && !listed.has(q.id) && (record.state === "ended" || record.events >= q.at);
      q.missed = missed ? q.missed + 1 : 0;
      if (q.missed < 2) continue;
      this.#set(q, "answered");
      q.guessed = true;
    }
  }

  /** missed reports whether one was lacking in the last record, and not in the one before. */
  get missed() {
    return [...this.#all.values()].some((q) => q.missed === 1);
  }

  sending(q, tries, trouble = null) {
    this.#set(q, "sending", { tries, trouble });
  }

  /** settle says what became of a question that was being answered; given is the answer where it was this page's, and guessed says that it may be wrong. */
  settle(q, state, { given = null, guessed = false } = {}) {
    this.#set(q, state, { given, guessed });
  }

  /** refused says that an answer was not taken, and why. */
  refused(q, trouble) {
    this.#set(q, "open", { trouble });
  }

  #asked(q, state) {
    const known = this.#all.get(q.id);
    if (known) return this.#set(Object.assign(known, q), state);
    q.state = state;
    this.#all.set(q.id, q);
    this.#hooks.added(q);
    this.#hooks.changed(q);
  }

  // The event up to which the record that the page was loaded with says what waits.
  get #told() {
    return this.#record.state === "ended" ? Infinity : (this.#record.events ?? 0);
  }

  #listed(id) {
    return this.#record.questions?.some((r) => r.id === id);
  }

  #withdraw(which) {
    for (const q of this.#all.values()) {
      if (["unsure", "open", "sending"].includes(q.state) && which(q)) this.#set(q, "withdrawn");
    }
  }

  #set(q, state, more = {}) {
    Object.assign(q, { state, guessed: false, missed: 0, trouble: null }, more);
    this.#hooks.changed(q);
  }
}

const str = (v) => (typeof v === "string" ? v : "");
const obj = (v) => (v !== null && typeof v === "object" && !Array.isArray(v) ? v : {});

function question(id, tool, input, r) {
  return {
    kind: "question", id, tool: str(tool) || "tool", input: obj(input), title: str(r.title), description: str(r.description),
    given: null, trouble: null, tries: 0, missed: 0, guessed: false,
  };
}

function fromEvent(r, request, at) {
  const rules = Array.isArray(r.permission_suggestions) ? r.permission_suggestions.filter((s) => s && typeof s === "object") : [];
  return {
    ...question(r.tool_use_id, r.tool_name, r.input, r), request, at, reason: str(r.decision_reason), display: str(r.display_name),
    rules, always: rules.length > 0 && !r.suppress_always_allow_rule, careful: Boolean(r.default_to_no),
  };
}

// Whose event is gone was asked with more than is known here: what that may have been is not offered, and taken for the worse.
function fromRecord(r, at) {
  return { ...question(r.id, r.tool, r.input, r), request: null, at, reason: str(r.reason), display: "", rules: [], always: false, careful: true };
}
