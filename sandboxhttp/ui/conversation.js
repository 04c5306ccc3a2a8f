// The conversation in one sandbox: its runs, loaded, followed and added to. No DOM in here.

import { Answers } from "./answer.js";
import { newKey } from "./api.js";
import { followRun, Patience, persist } from "./follow.js";
import { Run } from "./run.js";

const atOnce = 10; // runs loaded with the page; older ones when asked for
const abreast = 3; // streams read together: a browser opens six connections to one HTTP/1.1 server

/**
 * Conversation tells hooks what happens: added(run, before), removed(run), changed(run), connection(run, state), busy(bool),
 * asks(bool) when Claude waits for an answer, older(count) and settled(run), when a run has ended that was followed live.
 */
export class Conversation {
  runs = [];
  #older = [];
  #fresh = false; // the next message begins a new conversation
  #gone = new AbortController();
  #answers;

  constructor(api, id, hooks) {
    this.api = api;
    this.id = id;
    this.hooks = hooks;
    this.#answers = new Answers(api, id, { signal: this.#gone.signal, changed: (run) => this.#changed(run) });
  }

  /** load brings the newest runs; what was said in them comes while it is read. */
  async load() {
    const records = await this.api.runs(this.id, this.#gone.signal);
    this.#older = records.slice(0, -atOnce);
    const recent = records.slice(-atOnce).map((r) => this.#add(r));
    this.hooks.older(this.#older.length);
    this.#read(recent);
  }

  /** loadOlder brings the runs before those that are shown. */
  loadOlder() {
    const records = this.#older.splice(-atOnce);
    const before = this.runs[0];
    const runs = records.map((r) => new Run(r));
    this.runs.unshift(...runs);
    for (const run of runs) this.hooks.added(run, before);
    this.hooks.older(this.#older.length);
    this.#read(runs);
  }

  /** refresh picks up runs that were started elsewhere. */
  async refresh() {
    const records = await this.api.runs(this.id, this.#gone.signal);
    const known = new Set(this.runs.map((r) => r.record.id));
    for (const r of this.#older) known.add(r.id);
    if (this.runs.some((r) => !r.record.id && !r.failed)) return; // one is being sent: it may be among the unknown
    for (const run of this.runs) {
      const record = records.find((r) => r.id === run.record.id);
      if (record && !run.ended) this.#answers.told(run, record);
    }
    this.#read(records.filter((r) => !known.has(r.id)).map((r) => this.#add(r)));
  }

  /** answer answers a question of a run. What goes wrong is put into the question. */
  answer(run, question, decision) {
    return this.#answers.send(run, question, decision);
  }

  /** tick looks after questions that may have been answered elsewhere; it is called about once a second. */
  tick() {
    this.#answers.look(this.runs);
  }

  /** close lets go of every stream; the runs go on without us. */
  close() {
    this.#gone.abort();
  }

  get running() {
    return this.runs.findLast((r) => !r.ended && !r.failed) ?? null;
  }

  /** startAfresh makes the next message begin a new conversation in the same files. */
  startAfresh() {
    this.#fresh = true;
  }

  /** send runs a prompt. What goes wrong is put into run.failed. */
  async send(prompt) {
    const session = this.#fresh ? "" : this.runs.findLast((r) => r.sessionID)?.sessionID;
    this.#fresh = false;
    const run = this.#add({ prompt, session_id: session ?? "" });
    await this.#start(run, session ? { prompt, session_id: session } : { prompt });
  }

  /** again sends a prompt once more that could not be sent, or goes on reading an answer that could not be read. */
  async again(run) {
    run.failed = null;
    this.hooks.changed(run);
    if (run.record.id) return this.#follow(run, null);
    const { prompt, session_id: session } = run.record;
    await this.#start(run, session ? { prompt, session_id: session } : { prompt });
  }

  /** stop interrupts the run that goes on. */
  async stop() {
    const run = this.running;
    if (run?.record.id) await this.api.interrupt(this.id, run.record.id);
    else if (run) run.stopWhenKnown = true;
  }

  #add(record) {
    const run = new Run(record);
    run.patience = new Patience();
    this.runs.push(run);
    this.hooks.added(run);
    return run;
  }

  async #start(run, body) {
    const key = newKey();
    const { signal } = this.#gone;
    this.#busy();
    try {
      const response = await persist(() => this.api.start(this.id, body, key, signal), {
        signal, patience: run.patience, state: (s) => this.hooks.connection(run, s),
      });
      run.record.id = response.headers.get("Vivarium-Run");
      run.record.started_at ??= new Date().toISOString();
      if (run.stopWhenKnown) this.stop().catch((err) => this.hooks.stopFailed(err));
      await this.#follow(run, response);
    } catch (err) {
      this.#fail(run, err);
    }
  }

  // What goes wrong with one of them is shown there.
  #read(runs) {
    const ended = runs.filter((r) => r.record.state === "ended").reverse(); // the newest is what one looks at first
    for (const run of runs) if (run.record.state !== "ended") this.#follow(run, null);
    const worker = async () => {
      for (let run; (run = ended.shift()); ) await this.#follow(run, null);
    };
    for (let i = 0; i < abreast; i++) worker();
  }

  async #follow(run, first) {
    const { signal } = this.#gone;
    run.patience ??= new Patience();
    this.#busy();
    try {
      await followRun({
        run, first, signal, patience: run.patience,
        open: (after) => this.api.events(this.id, run.record.id, after, signal),
        apply: (e) => {
          run.apply(e);
          this.#changed(run);
        },
        state: (s) => {
          this.#answers.soon(run); // what was asked may have been answered meanwhile
          this.hooks.connection(run, s);
        },
      });
      if (!run.ended) await this.#close(run);
      this.#changed(run);
      this.#busy();
      if (run.record.state !== "ended") this.hooks.settled(run);
    } catch (err) {
      this.#fail(run, err);
    }
  }

  // The server has nothing more and the end was not among it: its own record of the run has to do.
  async #close(run) {
    const record = run.record.state === "ended" ? run.record : await this.api.run(this.id, run.record.id, this.#gone.signal);
    const { end = "unknown", error = "", cost_usd, session_id } = record;
    run.apply({ id: null, event: "end", data: JSON.stringify({ end, error, cost_usd, session_id }) });
  }

  #fail(run, err) {
    if (this.#gone.signal.aborted) return;
    run.failed = err;
    this.#changed(run);
    this.#busy();
    if (err.code === "run_in_progress") this.refresh().catch(() => {}); // shows the run that is in the way; the refusal itself is shown already
    this.hooks.settled(run);
  }

  #changed(run) {
    this.hooks.changed(run);
    this.hooks.asks(this.runs.some((r) => !r.ended && !r.failed && r.questions.waiting.length > 0));
  }

  #busy() {
    this.hooks.busy(this.running !== null);
  }
}
