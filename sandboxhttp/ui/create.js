// Making a sandbox: the settings of the start page, and the creation as it goes on.

import { el } from "./dom.js";
import { runTask } from "./task.js";

/** createSandbox makes a sandbox and tells progress about its stages, "creating" and "restoring", and how far they are. */
export function createSandbox(api, config, progress, connection) {
  return runTask((key) => api.create(config, key), { result: "sandbox", problem: "error" }, progress, connection);
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
