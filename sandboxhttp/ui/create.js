// Making a sandbox: the settings of the start page, and the creation as it goes on.

import { newKey, Problem } from "./api.js";
import { persist } from "./follow.js";
import { read } from "./sse.js";
import { el } from "./dom.js";

/**
 * createSandbox makes a sandbox and tells stage about "creating", "restoring" as they begin. A cut connection is taken up
 * again with the same key, so there is never a second sandbox.
 */
export async function createSandbox(api, config, stage, connection = () => {}) {
  const key = newKey();
  return persist(async () => {
    const response = await api.create(config, key);
    if (!/event-stream/.test(response.headers.get("Content-Type") ?? "")) return response.json();
    return readCreation(response, stage);
  }, { state: connection });
}

async function readCreation(response, stage) {
  let sandbox = null;
  let problem = null;
  try {
    await read(response, ({ event, data }) => {
      if (event === "progress") stage(JSON.parse(data).stage);
      else if (event === "sandbox") sandbox = JSON.parse(data);
      else if (event === "error") problem = JSON.parse(data);
    }, { quietMS: 120_000 });
  } catch {
    if (!sandbox && !problem) throw new Problem(0); // cut: the same request again asks how it went on
  }
  if (problem) throw new Problem(problem.status ?? 500, problem);
  if (!sandbox) throw new Problem(0);
  return sandbox;
}

const networks = [["", "As the server sets it"], ["none", "None"], ["allowlist", "Only these domains"], ["full", "All public addresses"]];

/** Settings is the folded form under the message box of the start page. */
export class Settings {
  #fields = {};

  constructor() {
    const domains = this.#text("domains", "Domains", { placeholder: "example.com, *.example.org" });
    domains.hidden = true;
    const network = el("select", { id: "set-network", onchange: () => (domains.hidden = network.value !== "allowlist") },
      networks.map(([value, label]) => el("option", { value }, label)));
    this.#fields.network = network;
    this.element = el("details", { class: "settings" }, el("summary", {}, "Sandbox settings"),
      el("div", { class: "grid" },
        this.#text("name", "Name", { placeholder: "chosen for you" }),
        this.#text("volume", "Volume that keeps the files", { placeholder: "none" }),
        this.#row("Network", network), domains,
        this.#text("image", "Base image", { placeholder: "as the server sets it" }),
        this.#text("minutes", "Lifetime in minutes", { type: "number", min: "1", placeholder: "as the server sets it" }),
        this.#text("memory", "Memory in MB", { type: "number", min: "1", placeholder: "as the server sets it" })));
  }

  #row(label, control) {
    return el("label", {}, el("span", {}, label), control);
  }

  #text(key, label, props) {
    this.#fields[key] = el("input", { id: "set-" + key, type: "text", autocomplete: "off", spellcheck: "false", ...props });
    return this.#row(label, this.#fields[key]);
  }

  /** config gives the body of POST /sandbox: what is left empty is left out. */
  config() {
    const v = (key) => this.#fields[key].value.trim();
    const number = (key, times) => (Number(v(key)) > 0 ? Math.round(Number(v(key)) * times) : undefined);
    const config = {
      name: v("name") || undefined,
      volume_name: v("volume") || undefined,
      image_base: v("image") || undefined,
      timeout_seconds: number("minutes", 60),
      memory_mb: number("memory", 1),
    };
    const mode = v("network");
    if (mode) config.network = mode === "allowlist" ? { mode, domains: v("domains").split(/[\s,]+/).filter(Boolean) } : { mode };
    return config;
  }

  /** open unfolds the form, when something in it was refused. */
  open() {
    this.element.open = true;
  }
}
