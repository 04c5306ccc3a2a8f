// What to tell people when something ends or goes wrong: what happened, and what they can do.

import { duration, oneLine } from "./text.js";

const runEnds = {
  cancelled: ["Stopped. What Claude did so far is kept; send a message to go on.", ""],
  run_timeout: ["The run took longer than one run may, and was stopped.", "Send a message to go on from here."],
  idle: ["The sandbox ended because nothing happened in it for a while.", "Start a new one to go on."],
  lifetime: ["The sandbox reached the end of its lifetime.", "Start a new one to go on."],
  oom: ["The sandbox ran out of memory.", "Start a new one with more memory, or ask for smaller steps."],
  provider_lost: ["The sandbox was lost: the machine it ran on no longer answers.", "Start a new one to go on."],
  budget: ["The budget for this run is used up.", "Send a message to go on, or raise the limit on the server."],
  agent_error: ["Claude ended with an error.", "Send the message again; if it happens again, the server's log says more."],
  unknown: ["The run ended, and the server could not find out how.", "Send a message to go on."],
};

const sandboxEnds = {
  cancelled: "It was deleted",
  idle: "Nothing happened in it for a while",
  lifetime: "It reached the end of its lifetime",
  oom: "It ran out of memory",
  provider_lost: "The machine it ran on no longer answers",
  unknown: "Nobody knows why",
};

/** runEnd says how a run ended: {level, head, text, detail}, or null when there is nothing to add. */
export function runEnd({ end, error }) {
  if (end === "completed" && !error) return null;
  const known = end === "completed" ? "agent_error" : end;
  const [head, text] = Object.hasOwn(runEnds, known) ? runEnds[known] : [`The run ended: ${oneLine(String(known), 60)}.`, ""];
  const stopped = known === "cancelled";
  return { level: stopped ? "quiet" : "error", head, text, detail: stopped ? "" : error || "" };
}

/** sandboxEnd says how a sandbox ended, as a sentence without its full stop. */
export function sandboxEnd(end) {
  if (!end) return "It has ended";
  return Object.hasOwn(sandboxEnds, end) ? sandboxEnds[end] : `It ended: ${oneLine(end, 60)}`;
}

const advice = {
  unauthenticated: "Enter a valid token to go on.",
  forbidden: "Your role does not allow this. Ask an admin of this server.",
  cross_origin: "Open this page at the server's own address, not through another site.",
  not_found: "It may have been deleted, or belongs to another account.",
  name_in_use: "Choose another name.",
  run_in_progress: "Wait until Claude has finished, or stop it.",
  sandbox_ended: "Start a new sandbox to go on.",
  volume_busy: "Wait for its end, then try again.",
  volume_failed: "Try again; if it happens again, the server's log says more.",
  body_too_large: "Make the message shorter; put large text into a file in the sandbox.",
  exhausted: "Delete a sandbox that you no longer need, or try again later.",
  sync_failed: "The sandbox and its files are still there.",
  restore_failed: "Try again, or take another version or volume; the server's log says more.",
  provider_failed: "Try again; if it happens again, the server's log says more.",
  internal: "Try again; if it happens again, give the request id to whoever runs this server.",
  shutting_down: "The server is restarting. Try again in a moment.",
};

/** problem says an error as {title, text, detail}: what happened, and what to do about it. */
export function problem(err) {
  if (err?.name !== "Problem") return { title: "This did not work", text: err?.message || "Reload the page and try again.", detail: "" };
  if (err.status === 0) return { title: "The server does not answer", text: "Check that it runs and that you are connected, then try again.", detail: "" };
  const fields = err.errors.map((e) => `${e.field}: ${e.detail}`).join("\n");
  const wait = err.retryAfter ? ` Try again in ${duration(err.retryAfter * 1000)}.` : "";
  const text = [sentence(err.detail), Object.hasOwn(advice, err.code) ? advice[err.code] : ""].filter(Boolean).join(" ") + wait;
  return { title: err.title || `The server answered ${err.status}`, text, detail: [fields, err.requestID && `Request ${err.requestID}`].filter(Boolean).join("\n") };
}

const sentence = (text) => (text && !/[.!?]$/.test(text.trim()) ? text.trim() + "." : text?.trim());

/** doing says what a run does now, from Run.doing(). */
export function doing(state, toolTitle) {
  switch (state?.what) {
    case undefined: return "";
    case "starting": return "Starting Claude";
    case "question": return "Waiting for your answer";
    case "thinking": return "Thinking";
    case "text": return "Writing";
    case "writing tool":
    case "tool": return toolTitle ?? "Using a tool";
    case "retry": return retry(state);
    default: return "Working";
  }
}

function retry({ attempt, max, seconds, status }) {
  const why = status ? ` (${status})` : "";
  const count = attempt && max ? `, attempt ${attempt} of ${max}` : "";
  return `The model did not answer${why}; trying again${seconds ? ` in ${duration(seconds * 1000)}` : ""}${count}`;
}
