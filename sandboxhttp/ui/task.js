// Work of the server that tells how it goes on: making a sandbox, saving it, restoring it.

import { newKey, Problem } from "./api.js";
import { persist } from "./follow.js";
import { read } from "./sse.js";
import { bytes, number } from "./text.js";

/**
 * runTask sends a request with a key of its own, and gives the result. post is called with the key; last has the names of the last
 * event, {result, problem}; progress is told each event of that name. A cut connection is taken up again with the same key, so nothing is ever
 * done twice.
 */
export async function runTask(post, last, progress, connection = () => {}) {
  const key = newKey();
  return persist(async () => {
    const response = await post(key);
    if (!/event-stream/.test(response.headers.get("Content-Type") ?? "")) return response.json();
    return readTask(response, last, progress);
  }, { state: connection });
}

async function readTask(response, last, progress) {
  let result = null;
  let problem = null;
  try {
    await read(response, ({ event, data }) => {
      if (event === "progress") progress(JSON.parse(data));
      else if (event === last.result) result = JSON.parse(data);
      else if (event === last.problem) problem = JSON.parse(data);
    }, { quietMS: 120_000 });
  } catch {
    if (!result && !problem) throw new Problem(0); // cut: the same request again asks how it went on
  }
  if (problem) throw new Problem(problem.status ?? 500, problem);
  if (!result) throw new Problem(0);
  return result;
}

/** howFar says an event of progress: "3,120 of 10,000 files, 24 MB of 81 MB". */
export function howFar({ phase, files, total_files: total, bytes: done, total_bytes: size }) {
  if (phase === "list") return "looking at the files";
  if (phase === "commit") return "writing the version";
  if (phase === "apply") return "putting the files in place";
  if (!(total > 0)) return "";
  return `${number(files)} of ${number(total)} ${total === 1 ? "file" : "files"}` + (size > 0 ? `, ${bytes(done)} of ${bytes(size)}` : "");
}

/** share is how much of a phase is done, 0 to 1; null where nobody knows. */
export function share({ files, total_files: total, bytes: done, total_bytes: size }) {
  if (size > 0) return Math.min(1, done / size);
  return total > 0 ? Math.min(1, files / total) : null;
}
