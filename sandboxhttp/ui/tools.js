// What to say of a tool call: its title, one line that sums it up, and the parts to show when it is unfolded.

import { oneLine, stripAnsi } from "./text.js";

const titles = {
  Bash: ["Run", "Running"], BashOutput: ["Read output", "Reading output"], KillShell: ["Stop command", "Stopping command"],
  Read: ["Read", "Reading"], Write: ["Write", "Writing"], Edit: ["Edit", "Editing"], MultiEdit: ["Edit", "Editing"],
  NotebookEdit: ["Edit", "Editing"], Glob: ["Find files", "Finding files"], Grep: ["Search", "Searching"], LS: ["List", "Listing"],
  WebFetch: ["Fetch", "Fetching"], WebSearch: ["Search the web", "Searching the web"], Task: ["Subagent", "Subagent at work"],
  Agent: ["Subagent", "Subagent at work"], AskUserQuestion: ["Ask you", "Asking you"], ExitPlanMode: ["Carry out the plan", "Carrying out the plan"], TodoWrite: ["Plan", "Planning"], ToolSearch: ["Look for tools", "Looking for tools"],
};

/** title names a tool call; live ones in the progressive form. A tool of an MCP server reads "server · tool". */
export function title(tool) {
  const known = Object.hasOwn(titles, tool.name) ? titles[tool.name] : null;
  if (known) return known[tool.state === "running" || tool.state === "writing" ? 1 : 0];
  return oneLine(tool.name.replace(/^mcp__(.+?)__/, "$1 · "), 60);
}

// The first of these that a call's input holds is what it is about.
const telling = ["command", "file_path", "notebook_path", "pattern", "query", "url", "path", "description", "prompt", "subject", "skill", "name"];

/** summary sums a call up in one line; while its input is still being written, from the part that is there. */
export function summary(tool) {
  const input = tool.open && tool.partial ? readPartial(tool.partial) : tool.input;
  if (Array.isArray(input.todos)) {
    const done = input.todos.filter((t) => t?.status === "completed").length;
    return `${done} of ${input.todos.length} done`;
  }
  if ((tool.name === "Task" || tool.name === "Agent") && input.description) return oneLine(input.description);
  const key = telling.find((k) => typeof input[k] === "string" && input[k] !== "");
  return key ? oneLine(input[key]) : "";
}

/** readPartial takes the strings out of an object whose JSON is not all there. */
export function readPartial(json) {
  const out = {};
  const pair = /"(\w+)"\s*:\s*"((?:[^"\\]|\\.)*)/g;
  const head = json.slice(0, 4000); // a summary needs no more, and it is made anew for every piece
  for (let m; (m = pair.exec(head)); ) if (!Object.hasOwn(out, m[1])) out[m[1]] = unescapeJSON(m[2]);
  return out;
}

function unescapeJSON(text) {
  try {
    return JSON.parse(`"${text.replace(/\\(?:u[\da-fA-F]{0,3})?$/, "")}"`);
  } catch {
    return text; // cut in the middle of an escape
  }
}

/**
 * parts gives what a call was asked to do: a list of {type, …}:
 * command {text}, note {text}, file {path, text}, diff {path, lines: [{sign, text}]}, todos {todos}, field {name, text}.
 */
export function parts({ name, input }) {
  const s = (k) => (typeof input[k] === "string" ? input[k] : "");
  if (name === "Bash" && s("command")) return [...note(s("description")), { type: "command", text: s("command") }, ...fields(input, ["command", "description"])];
  if (name === "Write" && s("file_path")) return [{ type: "file", path: s("file_path"), text: s("content") }, ...fields(input, ["file_path", "content"])];
  if (name === "Edit" && s("file_path")) {
    const lines = diff(s("old_string"), s("new_string"));
    return [{ type: "diff", path: s("file_path"), lines }, ...fields(input, ["file_path", "old_string", "new_string"])];
  }
  if (Array.isArray(input.todos)) return [{ type: "todos", todos: input.todos.filter((t) => t && typeof t === "object") }];
  return fields(input, []);
}

const note = (text) => (text ? [{ type: "note", text }] : []);

function fields(input, without) {
  return Object.entries(input)
    .filter(([k, v]) => !without.includes(k) && v !== null && v !== undefined && v !== false)
    .map(([k, v]) => ({ type: "field", name: oneLine(k, 60), text: typeof v === "string" ? v : JSON.stringify(v, null, 2) }));
}

/** diff says which lines go and which come: the common head and tail stay, the middle is replaced. */
export function diff(before, after) {
  const a = before === "" ? [] : before.replace(/\n$/, "").split("\n");
  const b = after === "" ? [] : after.replace(/\n$/, "").split("\n");
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const mark = (lines, sign) => lines.map((text) => ({ sign, text }));
  return [
    ...mark(a.slice(0, head), " "),
    ...mark(a.slice(head, a.length - tail), "-"),
    ...mark(b.slice(head, b.length - tail), "+"),
    ...mark(a.slice(a.length - tail), " "),
  ];
}

const pictures = /^image\/(?:png|jpeg|gif|webp)$/;

/** results gives what a call answered: a list of {type: "text", text} and {type: "image", src}. */
export function results(content) {
  if (typeof content === "string") return text(content);
  if (!Array.isArray(content)) return text(JSON.stringify(content, null, 2) ?? "");
  return content.flatMap((b) => {
    if (b?.type === "text") return text(b.text ?? "");
    const { type, media_type: media, data } = b?.source ?? {};
    if (b?.type === "image" && type === "base64" && pictures.test(media) && /^[\w+/=]+$/.test(data)) {
      return [{ type: "image", src: `data:${media};base64,${data}` }];
    }
    return text(JSON.stringify(b, null, 2) ?? "");
  });
}

function text(raw) {
  const clean = stripAnsi(raw).replace(/^<tool_use_error>(?:Error: )?([\s\S]*)<\/tool_use_error>$/, "$1");
  return clean.trim() === "" ? [] : [{ type: "text", text: clean.replace(/\n+$/, "") }];
}

/** failure is the first telling line of a failed call's answer. */
export function failure(tool) {
  const all = results(tool.result ?? "").filter((r) => r.type === "text").map((r) => r.text).join("\n");
  const [first = "It failed without saying why", second] = all.split("\n").filter((l) => l.trim() !== "");
  return oneLine(second && /^Exit code \d+$/.test(first) ? `${first}: ${second}` : first, 140);
}
