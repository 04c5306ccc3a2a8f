// Text that came from a model, a tool or a file, made fit to be looked at.

// Characters that take no room, turn text around, or pass for a space: with them a command can read otherwise
// than it runs ("Trojan Source", CVE-2021-42574).
const HIDDEN = "\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}";
const CONTROL = "\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f";
const deceptive = new RegExp(`[${CONTROL}${HIDDEN}]`, "u");
const deceptiveAll = new RegExp(`[${CONTROL}${HIDDEN}]`, "gu");

// ECMA-48: CSI sequences, OSC strings up to BEL or ST, and the two-byte escapes.
const ansi = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;

/** isPlain reports whether text can be shown as it stands. */
export const isPlain = (text) => !deceptive.test(text);

/** stripAnsi takes the terminal's colours and cursor moves out of a tool's output. */
export const stripAnsi = (text) => text.replace(ansi, "").replace(/\r\n/g, "\n");

/** nameOf gives the visible stand-in for one deceptive character. */
export function nameOf(char) {
  const code = char.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return "U+" + code.toString(16).toUpperCase().padStart(4, "0");
}

/** pieces cuts text into {text} and {mark}, one mark for each deceptive character. */
export function pieces(text) {
  const out = [];
  let from = 0;
  for (const m of text.matchAll(deceptiveAll)) {
    if (m.index > from) out.push({ text: text.slice(from, m.index) });
    out.push({ mark: nameOf(m[0]) });
    from = m.index + m[0].length;
  }
  if (from < text.length) out.push({ text: text.slice(from) });
  return out;
}

/** oneLine makes text fit for a label: one line, nothing hidden, at most max UTF-16 units. */
export function oneLine(text, max = 200) {
  const head = String(text).slice(0, max * 2).replace(/\s+/g, " ").trim();
  const safe = head.replace(deceptiveAll, nameOf);
  return safe.length > max ? safe.slice(0, max - 1).trimEnd() + "…" : safe;
}

/** duration says milliseconds as people do: "0.4 s", "12 s", "3 min 5 s". */
export function duration(ms) {
  if (!(ms >= 0)) return "";
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return s % 60 ? `${min} min ${s % 60} s` : `${min} min`;
  return `${Math.floor(min / 60)} h ${min % 60} min`;
}

/** money says US dollars, with more places for small sums. */
export function money(usd) {
  if (!(usd >= 0.00005)) return "";
  return "$" + (usd < 0.01 ? usd.toFixed(4) : usd.toFixed(2));
}

/** bytes says a size. */
export function bytes(n) {
  if (n < 1000) return `${n} B`;
  if (n < 1_000_000) return `${(n / 1000).toFixed(n < 10_000 ? 1 : 0)} kB`;
  if (n < 1_000_000_000) return `${(n / 1_000_000).toFixed(1)} MB`;
  return `${(n / 1_000_000_000).toFixed(2)} GB`;
}

/** number says a count: "3,120". */
export const number = (n) => Number(n).toLocaleString("en-US");

/** ago says how long before now a time was; "in …" for one to come. */
export function ago(iso, now = Date.now()) {
  const t = Date.parse(iso ?? "");
  if (Number.isNaN(t)) return "";
  const s = Math.round(Math.abs(now - t) / 1000);
  const say = (n, unit) => (t > now ? `in ${n} ${unit}` : `${n} ${unit} ago`);
  if (s < 45) return t > now ? "in a moment" : "just now";
  if (s < 3600) return say(Math.max(1, Math.round(s / 60)), "min");
  if (s < 86_400) return say(Math.round(s / 3600), "h");
  return say(Math.round(s / 86_400), s < 129_600 ? "day" : "days");
}
