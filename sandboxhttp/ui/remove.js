// Deleting a sandbox: asked first, then saved and ended, and never given up silently when saving fails.

import { ask, toast } from "./dialogs.js";
import { problem } from "./explain.js";
import { nameOf } from "./sidebar.js";
import { oneLine } from "./text.js";

/** removeSandbox asks, saves and deletes. It reports whether the sandbox is gone; saving is told true and false around the work. */
export async function removeSandbox(api, sandbox, saving) {
  let sync = Boolean(sandbox.volume_name);
  const text = sync
    ? `Its files are saved first, as a new version of the volume “${oneLine(sandbox.volume_name, 60)}”. Then everything in it is stopped.`
    : "It has no volume: everything in it is stopped, and its files are gone for good.";
  let go = await ask({ title: `Delete “${nameOf(sandbox)}”?`, text, buttons: [{ label: "Keep it", value: null }, { label: sync ? "Save and delete" : "Delete", value: "go", kind: "danger" }] });
  while (go) {
    saving(true);
    try {
      const answer = await api.remove(sandbox.id, sync);
      if (answer.version?.conflict) toast(`Deleted “${nameOf(sandbox)}”. Another sandbox had saved the volume: these files are kept beside it, as a version of their own.`);
      else toast(answer.version?.id ? `Saved, and deleted “${nameOf(sandbox)}”.` : `Deleted “${nameOf(sandbox)}”.`);
      return true;
    } catch (err) {
      if (err.status === 404) return true; // somebody else was faster
      go = await askAgain(err, sandbox);
      if (go === "drop") sync = false;
    } finally {
      saving(false);
    }
  }
  return false;
}

function askAgain(err, sandbox) {
  const { title, text, detail } = problem(err);
  const buttons = [{ label: "Keep it", value: null }, { label: "Try again", value: "go", kind: "primary" }];
  if (err.code === "sync_failed") buttons.push({ label: "Delete without saving", value: "drop", kind: "danger" });
  return ask({ title: `“${nameOf(sandbox)}” was not deleted`, text: `${title}. ${text}`, detail, buttons });
}
