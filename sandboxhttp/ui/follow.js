// Following streams to their real end, whatever is cut on the way.

import { read } from "./sse.js";

const firstWait = 500; // ms; doubled for each failure in a row, up to longestWait
const longestWait = 15_000;

/**
 * Patience waits between attempts: longer each time, with some chance in it so that many pages do not come back at once, and
 * no longer than until the browser is online again.
 */
export class Patience {
  #failures = 0;
  #wake = null;

  /** reset is called when something was heard. */
  reset() {
    this.#failures = 0;
  }

  /** now ends a wait. */
  now() {
    this.#wake?.();
  }

  async wait(signal, atLeast = 0) {
    const longest = Math.min(longestWait, firstWait * 2 ** this.#failures++);
    const ms = Math.max(atLeast, longest * (0.5 + Math.random() / 2));
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = resolve;
      const online = () => resolve();
      addEventListener("online", online, { once: true });
      signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        removeEventListener("online", online);
        reject(signal.reason);
      }, { once: true });
    });
  }
}

// Moved is why reading a stream stops when its server says that it ends.
class Moved extends Error {
  name = "Moved";
}

const quietly = 30_000; // ms that a server which said that it ends may be away before that counts as a lost connection
const sure = 1000; // ms for which a stream must last before its server counts as the next one: one that ends answers, too

// Link tells state "live", "moving" (the server ends, and the next one is not there yet) and "lost".
class Link {
  #state;
  #since = 0; // when the server said that it ends; 0: it did not, or the next one is there
  #timer = 0;

  constructor(state) {
    this.#state = state;
  }

  opened() {
    if (this.#since) this.#timer = setTimeout(() => this.heard(), sure);
    else this.#state("live");
  }

  heard() {
    if (!this.#since) return;
    this.#since = 0;
    clearTimeout(this.#timer);
    this.#state("live");
  }

  cut(moved) {
    clearTimeout(this.#timer);
    if (moved) this.#since ||= Date.now();
    this.#state(this.#since && Date.now() - this.#since < quietly ? "moving" : "lost");
  }
}

/**
 * followRun gives every event of a run to apply, from the first response (or null) to its `end`, and goes on after each cut, and after
 * each server that ends, with the events after the last one seen. state is told "live", "moving" and "lost" as the connection comes and
 * goes. It resolves when the run has ended, and rejects with the Problem that makes going on useless, or when signal aborts.
 */
export async function followRun({ open, first = null, run, apply, state = () => {}, patience = new Patience(), signal }) {
  const link = new Link(state);
  for (let response = first; ; response = null) {
    try {
      response ??= await open(run.lastID);
      if (response.status === 204) return;
      link.opened();
      await read(response, (e) => {
        if (e.event === "reconnect") throw new Moved();
        link.heard();
        patience.reset();
        apply(e);
      });
      if (run.ended) return;
      await pause(null);
    } catch (err) {
      if (run.ended) return; // the cut came after the end
      if (signal?.aborted) throw signal.reason;
      await pause(err);
    }
  }

  async function pause(err) {
    if (err?.name === "Problem" && !err.retryable) throw err;
    link.cut(err?.name === "Moved");
    await patience.wait(signal, (err?.retryAfter ?? 0) * 1000);
  }
}

/**
 * persist calls attempt until it succeeds or fails for good. It is for requests with an Idempotency-Key, which may be sent again
 * without being carried out twice.
 */
export async function persist(attempt, { signal, state = () => {}, patience = new Patience() } = {}) {
  for (;;) {
    try {
      const value = await attempt();
      state("live");
      return value;
    } catch (err) {
      if (signal?.aborted) throw signal.reason;
      const again = err?.status === 0 || err?.code === "idempotency_in_flight" || err?.code === "shutting_down";
      if (!again) throw err;
      state("lost");
      await patience.wait(signal, (err.retryAfter ?? 0) * 1000);
    }
  }
}
