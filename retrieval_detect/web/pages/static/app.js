// The page: shows what the service says. Text of others reaches the document as text only (textContent);
// the one piece of markup is the evidence, made and escaped by the server.
import {
  ask, plan, confirm, rollback, banks, bankMap, generation, setToken, tokenIsRight, Refused,
} from "./service.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 4;
const WORDS = {
  "fake-like": "fake-like",
  "real-like": "no sign of the known generators",
  uncertain: "uncertain",
  unknown: "unknown",
};
const images = []; // {file, name, item, result, evidence}
const queue = [];
let working = 0;
let stopped = false;
let shown = null;
let current = null; // the generation that answers, as far as this page knows
const LOOK_MS = 10000;

function element(tag, text, classes) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const say = (text) => { $("announce").textContent = text; };

// ---------------------------------------------------------------- images

function take(files) {
  const usable = [...files].filter((file) => file.size > 0);
  for (const file of usable) {
    const image = { file, name: file.name || "pasted image", result: null };
    image.item = listItem(image);
    images.push(image);
    queue.push(image);
  }
  if (usable.length) begin();
}

function begin() {
  stopped = false;
  $("list-side").hidden = false;
  document.body.classList.add("busy"); // the place to drop on makes room for the answers
  progress();
  while (working < AT_ONCE && queue.length) work();
}

function listItem(image) {
  const item = element("li");
  const button = element("button");
  button.type = "button";
  const picture = element("span", undefined, "tile");
  const words = element("span");
  words.append(element("span", image.name, "name"), element("span", "waiting", "said quiet"));
  button.append(picture, words);
  button.addEventListener("click", () => show(image));
  item.append(button);
  $("list").append(item);
  return item;
}

async function work() {
  working += 1;
  while (queue.length && !stopped) {
    const image = queue.shift();
    said(image, "working …", "quiet");
    try {
      [image.result, image.evidence] = await ask(image.file, image.name, () => stopped);
      if (image.result.index) changedTo(image.result.index.generation);
    } catch (error) {
      image.result = { error: "refused", message: explain(error) };
      if (error instanceof Refused && error.status === 401) needToken();
    }
    finished(image);
  }
  working -= 1;
  progress();
}

function explain(error) {
  if (error instanceof Refused) return [error.message, error.hint].filter(Boolean).join(". ");
  return "The server cannot be reached.";
}

function finished(image) {
  const { result } = image;
  marked(image);
  if (result.verdict) {
    said(image, WORDS[result.verdict] || result.verdict, result.verdict);
    preview(image);
  } else {
    said(image, `could not be used: ${result.message}`, "quiet");
  }
  if (shown === image || (!shown && result.verdict) || images.length === 1) show(image);
  filter();
  progress();
}

function said(image, text, classes) {
  const line = image.item.querySelector(".said");
  line.textContent = text;
  line.className = `said ${classes}`;
}

function preview(image) {
  const tile = image.item.querySelector(".tile");
  if (!tile) return; // asked again: its picture is there
  const picture = element("img");
  picture.alt = "";
  picture.loading = "lazy";
  picture.src = URL.createObjectURL(image.file);
  tile.replaceWith(picture);
}

function show(image) {
  shown = image;
  for (const other of images) other.item.firstChild.removeAttribute("aria-current");
  image.item.firstChild.setAttribute("aria-current", "true");
  const place = $("evidence");
  place.replaceChildren();
  if (isBefore(image)) place.append(warning(image));
  if (!image.result) place.append(element("p", "This image is waiting.", "quiet"));
  else if (image.evidence) place.append(fragment(image.evidence));
  else {
    const box = element("div", undefined, "wrong");
    box.append(element("h2", image.name), element("p", `This image could not be used: ${image.result.message}.`));
    place.append(box);
  }
}

function fragment(html) {
  // Escaped by the server; the policy of this page would run no script in it anyway.
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const made = document.createDocumentFragment();
  made.append(...parsed.body.childNodes);
  return made;
}

// ---------------------------------------------------------------- answers given before a change

const isBefore = ({ result }) =>
  Boolean(result && result.index && current !== null && result.index.generation !== current);

// A change is heard of from answers, from what this page itself does, and by looking now and then.
function changedTo(now) {
  if (now === current) return;
  current = now;
  for (const image of images) marked(image);
  const before = images.filter(isBefore);
  $("changed").hidden = !before.length;
  $("changed").replaceChildren(
    `The references have changed: generation ${current} answers now, and ${plural(before.length, "answer")} ` +
    `${before.length === 1 ? "was" : "were"} given before. `,
    againButton(before.length === 1 ? "Ask about it again" : "Ask about them again", () => images.filter(isBefore)));
  if (shown) show(shown);
}

function againButton(text, which) {
  const again = element("button", text);
  again.type = "button";
  again.addEventListener("click", () => askAgain(which()));
  return again;
}

function marked(image) {
  const old = image.item.querySelector(".before");
  if (old) old.remove();
  if (!isBefore(image)) return;
  const mark = element("span", `before the change: generation ${image.result.index.generation}`, "before");
  image.item.querySelector(".said").after(mark);
}

function warning(image) {
  const box = element("p", undefined, "panel");
  box.append(
    `Generation ${image.result.index.generation} gave this answer; the references have changed since, and ` +
    `generation ${current} answers now. `, againButton("Ask again", () => [image]));
  return box;
}

function askAgain(some) {
  for (const image of some) {
    image.result = null;
    image.evidence = null;
    marked(image);
    said(image, "waiting", "quiet");
    queue.push(image);
  }
  $("changed").hidden = true;
  if (shown && !shown.result) show(shown);
  begin();
}

async function look() {
  if (document.hidden || !images.length) return;
  try {
    if ((await generation()) !== current) overview();
  } catch { /* it cannot be reached: the next look tells */ }
}

// ---------------------------------------------------------------- progress, filter, save

const kindOf = ({ result }) => {
  if (!result) return "";
  if (!result.verdict) return "failed";
  return ["uncertain", "unknown"].includes(result.verdict) ? "undecided" : result.verdict;
};

function progress() {
  const done = images.filter((image) => image.result).length;
  const busy = done < images.length && !stopped;
  $("progress-line").hidden = !busy;
  $("progress").max = Math.max(images.length, 1);
  $("progress").value = done;
  $("progress-text").textContent = `${done} of ${plural(images.length, "image")}`;
  const count = (kind) => images.filter((image) => kindOf(image) === kind).length;
  $("counts").textContent =
    `${plural(done, "image")}: ${count("fake-like")} fake-like, ${count("real-like")} without a sign of the known generators, ` +
    `${count("undecided")} undecided, ${count("failed")} not usable`;
  if (done && !busy) say($("counts").textContent);
}

function filter() {
  const wanted = $("filter").value;
  for (const image of images) image.item.hidden = Boolean(wanted && kindOf(image) !== wanted);
}

function stop() {
  stopped = true;
  for (const image of queue.splice(0)) {
    image.result = { error: "stopped", message: "it was not sent" };
    finished(image);
  }
}

function save() {
  const results = images.map((image) => image.result).filter(Boolean);
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(results, null, 1)], { type: "application/json" }));
  link.download = "verdicts.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---------------------------------------------------------------- dropping, pasting, choosing

async function inside(entry) {
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    for (const child of some) found.push(...(await inside(child)));
  }
  return found;
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return take(transfer.files);
  const found = [];
  for (const entry of entries) found.push(...(await inside(entry)));
  return take(found.filter((file) => file.type.startsWith("image/")));
}

const place = $("drop");
addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
addEventListener("dragleave", () => place.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  place.classList.remove("over");
  dropped(event.dataTransfer);
});
addEventListener("paste", (event) => take(event.clipboardData.files));
$("pick-files").addEventListener("click", () => $("files").click());
$("pick-folder").addEventListener("click", () => $("folder").click());
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", () => {
    const chosen = [...$(id).files];
    take(id === "folder" ? chosen.filter((file) => file.type.startsWith("image/")) : chosen);
    $(id).value = "";
  });
}
$("filter").addEventListener("change", filter);
$("stop").addEventListener("click", stop);
$("save").addEventListener("click", save);

// ---------------------------------------------------------------- banks

let pending = null;

function view(name) {
  for (const other of ["ask", "banks"]) {
    $(`view-${other}`).hidden = other !== name;
    if (other === name) $(`tab-${other}`).setAttribute("aria-current", "page");
    else $(`tab-${other}`).removeAttribute("aria-current");
  }
  if (name === "banks") { $("token-panel").hidden = false; overview(); }
}

function rowOf(...cells) {
  const row = element("tr");
  for (const cell of cells) {
    const made = element("td", undefined, typeof cell === "number" ? "number" : "");
    made.append(typeof cell === "number" ? cell.toLocaleString("en") : cell);
    row.append(made);
  }
  return row;
}

async function overview() {
  try {
    const found = await banks();
    const { real, fake } = found.references;
    $("state").textContent = `${found.index.name}, generation ${found.index.generation} · ${found.encoder}`;
    $("banks-summary").textContent =
      `${plural(real, "photograph")} and ${plural(fake, "fake")} vote in index ${found.index.name}, ` +
      `generation ${found.index.generation}, seen by ${found.encoder}.`;
    $("counts-rows").replaceChildren(
      ...found.counts.map((c) => rowOf(c.label, c.name || "unnamed", c.bank, c.calib)));
    changedTo(found.index.generation);
    $("history-rows").replaceChildren(...found.history.reverse().map((h) => historyRow(h, found.index.generation)));
  } catch (error) {
    if (error instanceof Refused && error.status === 401) needToken();
    $("state").textContent = explain(error);
  }
}

function historyRow(h, current) {
  const now = h.generation === current;
  const back = element("button", now ? "Answers now" : `Back to ${h.generation}`);
  back.type = "button";
  back.disabled = now;
  back.addEventListener("click", () => askBack(h, current));
  const when = h.created_at.replace("T", " ").replace("Z", "");
  return rowOf(h.generation, when, h.operation, h.added, h.removed, back);
}

function askBack(h, now) {
  const dialog = $("back");
  $("back-title").textContent = `Go back to generation ${h.generation}?`;
  $("back-text").textContent =
    `The references will be those of generation ${h.generation} for everybody who asks this server: what was added ` +
    `since then does not count, what was removed counts again. Generation ${now} stays in the list.`;
  $("back-yes").textContent = `Go back to ${h.generation}`;
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    tried(async () => {
      const made = await rollback(h.generation);
      return `The references are those of generation ${h.generation} again; this is generation ${made.generation}.`;
    });
  };
  dialog.showModal();
}

async function tried(work) {
  const result = $("teach-result");
  result.className = "";
  result.textContent = "Working …";
  $("teach-report").hidden = true;
  try {
    result.textContent = await work();
  } catch (error) {
    result.className = "wrong";
    result.textContent = explain(error);
    if (error instanceof Refused && error.status === 401) needToken();
  }
  overview();
}

function needToken() {
  $("token-panel").hidden = false;
  $("token").focus();
}

async function useToken(given) {
  const result = $("token-result");
  setToken(given);
  $("token").value = "";
  try {
    await tokenIsRight();
    $("token").placeholder = "in use";
    result.className = "";
    result.textContent = "This is the token of the server; it is used from now on.";
    overview();
  } catch (error) {
    setToken("");
    $("token").placeholder = "";
    result.className = "wrong";
    result.textContent = explain(error);
    $("token").focus();
  }
}

function propose(event) {
  event.preventDefault();
  const label = $("teach-label").value;
  const name = label === "fake" ? { generator: $("teach-name").value } : { source: $("teach-name").value };
  tried(async () => {
    pending = await plan([...$("teach-files").files], { label, ...name });
    $("plan-summary").textContent = pending.summary;
    $("plan-rows").replaceChildren(...pending.images.map((i) => rowOf(i.name, i.state)));
    $("plan").hidden = false;
    $("confirm").disabled = !pending.images.some((i) => i.state === "new");
    $("confirm").focus();
    return "Nothing is written yet.";
  });
}

async function drawMap() {
  $("map").replaceChildren(element("p", "Drawing …", "quiet"));
  try {
    $("map").replaceChildren(fragment((await bankMap()).html));
  } catch (error) {
    $("map").replaceChildren(element("p", explain(error), "wrong"));
  }
}

$("show-map").addEventListener("click", drawMap);
$("tab-ask").addEventListener("click", () => view("ask"));
$("tab-banks").addEventListener("click", () => view("banks"));
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken($("token").value);
});
$("teach-label").addEventListener("change", () => {
  $("teach-name-label").textContent = $("teach-label").value === "fake" ? "Generator" : "Source";
});
$("teach").addEventListener("submit", propose);
$("discard").addEventListener("click", () => { $("plan").hidden = true; $("teach-result").textContent = ""; });
$("confirm").addEventListener("click", () => {
  tried(async () => {
    $("plan").hidden = true;
    const done = await confirm(pending.plan).catch((error) => {
      $("plan").hidden = error.code !== "IndexLocked"; // the server keeps the plan: it can be tried again
      throw error;
    });
    $("teach-report").textContent = done.report.join("\n");
    $("teach-report").hidden = !done.report.length;
    const refused = done.purged ? `, ${done.purged} refused as purged` : "";
    return `${plural(done.added, "reference")} added${refused}, generation ${done.generation} answers now.`;
  });
});
setInterval(look, LOOK_MS);
addEventListener("visibilitychange", look);
overview();
