// The HTTP API (docs/http.md), as calls.

/** Problem is an error answer of the API (RFC 9457), or with status 0 an API that could not be reached. */
export class Problem extends Error {
  name = "Problem";

  constructor(status, body = {}, response = null) {
    super(body.detail || body.title || (status ? `The server answered ${status}` : "The server does not answer"));
    this.status = status;
    this.title = body.title ?? "";
    this.detail = body.detail ?? "";
    this.code = body.code ?? "";
    this.errors = Array.isArray(body.errors) ? body.errors : [];
    this.head = body.head ?? ""; // of a version_conflict: the newest version's id, and the one that was kept
    this.version = body.version ?? null;
    this.requestID = body.request_id ?? "";
    this.retryAfter = Number(response?.headers.get("Retry-After")) || 0;
    this.retryable = status === 0 || (body.retryable ?? (status === 429 || status >= 500));
  }
}

/** Token holds the bearer token for as long as the tab lives. ask is called when the API wants one, and rejects when nobody gives one. */
export class Token {
  #asking = null;
  #declined = false;

  constructor(ask, store = sessionStorage) {
    this.ask = ask;
    this.store = store;
  }

  get value() {
    return this.store.getItem("vivarium.token") ?? "";
  }

  /**
   * renew asks for another token than the refused one; requests that are refused together ask once. Who closed the question is asked
   * again only on doing something (wanted), not by what the page does on its own.
   */
  async renew(refused, wanted) {
    if (this.value !== refused) return;
    if (this.#declined && !wanted) throw new Problem(401, noToken);
    this.#asking ??= this.ask(refused !== "").finally(() => (this.#asking = null));
    try {
      this.store.setItem("vivarium.token", await this.#asking);
      this.#declined = false;
    } catch {
      this.#declined = true;
      throw new Problem(401, noToken);
    }
  }
}

const noToken = { title: "This server asks for a token", code: "unauthenticated" };

/** newKey makes an Idempotency-Key. (crypto.randomUUID exists on https and localhost only.) */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** API calls the server. Every method throws Problem, or AbortError when its signal says so. */
export class API {
  constructor(base, token) {
    this.base = base;
    this.token = token;
  }

  /** list gives a page of the sandboxes; wanted says that somebody waits for it. */
  async list(cursor = "", wanted = false) {
    return json(await this.#send("GET", cursor ? `?cursor=${enc(cursor)}` : "", { wanted }));
  }

  async sandbox(id, signal) {
    return json(await this.#send("GET", `/${enc(id)}`, { signal }));
  }

  /** create answers with the event stream of the creation. */
  create(config, key, signal) {
    return this.#send("POST", "", { body: config, key, stream: true, signal });
  }

  async remove(id, sync) {
    return json(await this.#send("DELETE", `/${enc(id)}${sync ? "" : "?sync=false"}`));
  }

  /** versions gives a page of the volume's versions, newest first. */
  async versions(id, cursor = "") {
    return json(await this.#send("GET", `/${enc(id)}/versions${cursor ? `?cursor=${enc(cursor)}` : ""}`, { wanted: true }));
  }

  /** sync and restore answer with the event stream of the work. */
  sync(id, body, key) {
    return this.#send("POST", `/${enc(id)}/sync`, { body, key, stream: true });
  }

  restore(id, body, key) {
    return this.#send("POST", `/${enc(id)}/restore`, { body, key, stream: true });
  }

  async runs(id, signal) {
    return (await json(await this.#send("GET", `/${enc(id)}/runs`, { signal }))).runs ?? [];
  }

  async run(id, run, signal) {
    return json(await this.#send("GET", `/${enc(id)}/runs/${enc(run)}`, { signal }));
  }

  /** start sends a prompt, and answers with the run's event stream. */
  start(id, body, key, signal) {
    return this.#send("POST", `/${enc(id)}/claude`, { body, key, stream: true, signal });
  }

  /** events answers with the events of a run after the one given; 204 when there are none left. */
  events(id, run, after, signal) {
    return this.#send("GET", `/${enc(id)}/runs/${enc(run)}/events?after=${after}`, { stream: true, signal, after });
  }

  /** answer answers a question of a run: body is {question, allow, …}. */
  async answer(id, run, body, key, signal) {
    await this.#send("POST", `/${enc(id)}/runs/${enc(run)}/answer`, { body, key, signal });
  }

  async interrupt(id, run) {
    await this.#send("POST", `/${enc(id)}/runs/${enc(run)}/interrupt`, { body: {}, key: newKey() });
  }

  async #send(method, path, { body, key, stream, signal, after, wanted = method !== "GET" } = {}) {
    for (;;) {
      const token = this.token.value;
      const headers = { Accept: stream ? "text/event-stream" : "application/json" };
      if (body) headers["Content-Type"] = "application/json";
      if (key) headers["Idempotency-Key"] = key;
      if (after) headers["Last-Event-ID"] = String(after);
      if (token) headers.Authorization = "Bearer " + token;
      const response = await reach(this.base + path, { method, headers, signal, cache: "no-store", body: body && JSON.stringify(body) });
      if (response.ok) return response;
      if (response.status !== 401) throw await toProblem(response);
      await this.token.renew(token, wanted);
    }
  }
}

const enc = encodeURIComponent;

async function reach(url, init) {
  try {
    return await fetch(url, init);
  } catch (err) {
    throw err.name === "AbortError" ? err : new Problem(0);
  }
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw new Problem(0); // cut off in the middle of the answer
  }
}

async function toProblem(response) {
  const type = response.headers.get("Content-Type") ?? "";
  const body = /json/.test(type) ? await response.json().catch(() => ({})) : {};
  return new Problem(response.status, body, response);
}
