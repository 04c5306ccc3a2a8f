// Answering a question of Claude's, and asking the API what became of one. No DOM in here.

import { newKey } from "./api.js";
import { Patience } from "./follow.js";

const tries = 5;
const longest = 2000; // ms that a server can make an answer wait: somebody looks on
const soon = 1500; // ms to the next look, where the last one left a doubt
const every = 5000;
const later = 15_000;

/** Answers sends the answers of one conversation, and looks after its questions. changed is called with a run. */
export class Answers {
  #api;
  #id;
  #signal;
  #changed;
  #next = new WeakMap(); // when to look after a run's questions

  constructor(api, id, { signal, changed }) {
    this.#api = api;
    this.#id = id;
    this.#signal = signal;
    this.#changed = changed;
  }

  /**
   * send answers a question: decision is the body of the answer without its id. What does not reach the one server that can take it is
   * sent again a few times, with one key, so that it is given once.
   */
  async send(run, q, decision) {
    if (q.state !== "open") return;
    const body = { question: q.id, ...decision };
    const key = newKey();
    const patience = new Patience();
    const { questions } = run;
    let trouble = null;
    for (let n = 1; ; n++) {
      questions.sending(q, n, trouble);
      this.#changed(run);
      try {
        await this.#api.answer(this.#id, run.record.id, body, key, this.#signal);
        if (q.state === "sending") questions.settle(q, "answered", { given: decision });
        break;
      } catch (err) {
        if (this.#signal.aborted || q.state !== "sending") return; // the stream has told already what became of it
        trouble = err;
      }
      if (this.#refused(questions, q, trouble, n)) break;
      await patience.wait(this.#signal, Math.min(longest, trouble.retryAfter * 1000)).catch(() => {}); // closed: the next try says so
    }
    this.#changed(run);
  }

  // refused reports whether an error is the last word.
  #refused(questions, q, err, n) {
    const unknown = err.code === "not_found"; // also of a server that has just taken over, and asks in a moment
    if (err.code === "answered") questions.settle(q, "answered");
    else if (err.code === "run_ended" || (unknown && n >= 3)) questions.settle(q, "withdrawn", { guessed: unknown });
    else if (!(unknown || err.retryable || err.code === "idempotency_in_flight") || n >= tries) questions.refused(q, err);
    else return false;
    return true;
  }

  /** soon makes the next look come at once. */
  soon(run) {
    this.#next.delete(run);
  }

  /** look asks the API, where it is time to, what became of questions; it is called about once a second. */
  look(runs, now = Date.now()) {
    for (const run of runs) {
      if (!run.record.id || run.ended || now < (this.#next.get(run) ?? 0)) continue;
      if (run.questions.doubtful || (run.record.questions?.length && !run.questions.waiting.length)) this.#ask(run);
    }
  }

  async #ask(run) {
    this.#next.set(run, Infinity);
    try {
      this.told(run, await this.#api.run(this.#id, run.record.id, this.#signal));
    } catch {
      this.#next.set(run, Date.now() + every); // what is shown stays until somebody knows better
    }
  }

  /** told takes a record of a run for what it says of questions. */
  told(run, record) {
    run.questions.told(record, run.lastID);
    run.record.questions = record.questions;
    const { missed, waiting } = run.questions;
    this.#next.set(run, Date.now() + (missed ? soon : waiting.length ? every : later));
    this.#changed(run);
  }
}
