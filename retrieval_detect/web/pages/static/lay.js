// Photographs known to be authentic, laid beside one image for one question: which, of whom, and when.
import { $ } from "./dom.js";

// `then` : told of the files, and what was said of them.
export function layBeside(then) {
  const dialog = $("lay");
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    const said = { supplier: $("lay-supplier").value.trim(), date: $("lay-date").value };
    then([...$("lay-files").files], Object.fromEntries(Object.entries(said).filter(([, value]) => value)));
  };
  dialog.showModal();
}
