// The page: images are given, listed with their answers, and shown with their evidence.
import { chosen, inWords, whenChosen } from "./asking.js";
import { needToken, overview, whenHeard } from "./banks.js";
import { comparable } from "./compare.js";
import { $, button, download, element, explain, fragment, plural, shortened } from "./dom.js";
import { layBeside } from "./lay.js";
import { ask, generation, Refused, report } from "./service.js";

const AT_ONCE = 4;
const LOOK_MS = 10000;
const WORDS = {
  "fake-like": "fake-like",
  "real-like": "no sign of the known generators",
  uncertain: "uncertain",
  unknown: "unknown",
};
const images = []; // {file, path, item, result, evidence, asked, words: how it was judged, laid: what beside it}
const queue = [];
let working = 0;
let stopped = false;
let shown = null;
let current = null; // the generation that answers, as far as this page knows

const say = (text) => { $("announce").textContent = text; };

// ---------------------------------------------------------------- images

function take(files, paths = new Map()) {
  const usable = [...files].filter((file) => file.size > 0);
  for (const file of usable) {
    const path = paths.get(file) || file.webkitRelativePath || file.name || "pasted image";
    const image = { file, path, result: null };
    image.item = listItem(image);
    images.push(image);
    queue.push(image);
  }
  const names = shortened(images.map(({ path }) => path));
  for (const { item, path } of images) item.querySelector(".name").textContent = names.get(path);
  reachable();
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
  const open = button(undefined, () => show(image));
  open.title = image.path;
  const words = element("span");
  words.append(element("span", image.path, "name"), element("span", "waiting", "said quiet"));
  open.append(element("span", undefined, "tile"), words);
  item.append(open);
  $("list").append(item);
  return item;
}

async function work() {
  working += 1;
  while (queue.length && !stopped) {
    const image = queue.shift();
    said(image, "working …", "quiet");
    const parameters = chosen();
    [image.asked, image.words] = [JSON.stringify(parameters), inWords()];
    try {
      [image.result, image.evidence] = await ask(image.file, parameters, { givenUp: () => stopped });
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

function finished(image) {
  const { result } = image;
  marked(image);
  if (result.verdict) {
    const verdict = verdictOf(result);
    said(image, `${WORDS[verdict] || verdict}${result.beside ? ", with photographs beside" : ""}`, verdict);
    preview(image);
  } else {
    said(image, `could not be used: ${result.message}`, "quiet");
  }
  if (shown === image || (!shown && result.verdict) || images.length === 1) show(image);
  filter();
  progress();
}

const verdictOf = (result) => (result.beside || result).verdict;

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
  for (const { item } of images) item.firstChild.removeAttribute("aria-current");
  image.item.firstChild.setAttribute("aria-current", "true");
  reachable();
  const place = $("evidence");
  if (place.contains(document.activeElement)) place.focus({ preventScroll: true }); // what was in focus goes
  place.replaceChildren();
  if (outdated(image)) place.append(warning(image));
  if (!image.result) place.append(element("p", "This image is waiting.", "quiet"));
  else if (image.evidence) {
    place.append(tools(image), fragment(image.evidence));
    comparable(place, image.file);
  } else {
    const box = element("div", undefined, "wrong");
    box.append(element("h2", image.path), element("p", `This image could not be used: ${image.result.message}.`));
    place.append(box);
  }
}

function tools(image) {
  const bar = element("p", undefined, "row tools");
  const told = element("span", undefined, "quiet");
  told.setAttribute("role", "status");
  if (image.result.calibration) { // without one, photographs beside could change no answer
    bar.append(button("Lay photographs beside", () => layBeside((files, facts) => askWith(image, files, facts, told))));
  }
  bar.append(button("Save report", () => saveReport([image], told)), button("Print", () => print()), told);
  return bar;
}

// Ask about one image with photographs beside; `told` : where it is said what became of it.
async function askWith(image, beside, facts, told) {
  told.textContent = "Asking with them …";
  const parameters = chosen();
  try {
    const [result, evidence] = await ask(image.file, { ...parameters, ...facts }, { beside });
    if (!result.verdict) throw new Refused(422, result);
    Object.assign(image, { result, evidence, asked: JSON.stringify(parameters), words: inWords(), laid: { beside, facts } });
    finished(image);
    if (shown === image) $("evidence").querySelector(".laid").scrollIntoView({ block: "nearest" });
    say(`with photographs beside: ${WORDS[verdictOf(result)]}`);
  } catch (error) {
    told.textContent = explain(error);
  }
}

const visible = () => images.filter(({ item }) => !item.hidden);

// One stop of Tab for the whole list: arrows move within it.
function reachable() {
  const listed = visible();
  const stop = listed.includes(shown) ? shown : listed[0];
  for (const image of images) image.item.firstChild.tabIndex = image === stop ? 0 : -1;
}

$("list").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const listed = visible();
  const to = listed[listed.findIndex(({ item }) => item.contains(event.target)) + step];
  if (!to) return;
  event.preventDefault();
  show(to);
  to.item.firstChild.focus();
});

// ---------------------------------------------------------------- answers given before a change

const isBefore = ({ result }) =>
  Boolean(result && result.index && current !== null && result.index.generation !== current);
const isOtherwise = ({ result, asked }) => Boolean(result && asked && asked !== JSON.stringify(chosen()));
const outdated = (image) => isBefore(image) || isOtherwise(image);

// A change is heard of from answers, from what this page itself does, and by looking now and then.
function changedTo(now) {
  if (now === current) return;
  current = now;
  changed();
}

function changed() {
  for (const image of images) marked(image);
  const before = images.filter(isBefore);
  const old = images.filter(outdated);
  const [n, were] = [plural((before.length ? before : old).length, "answer"), old.length === 1 ? "was" : "were"];
  $("changed").hidden = !old.length;
  $("changed").replaceChildren(
    before.length ? `The references have changed: generation ${current} answers now, and ${n} ${were} given before. `
      : `The way of judging has changed: ${n} ${were} given by another. `,
    button(old.length === 1 ? "Ask about it again" : "Ask about them again", () => askAgain(images.filter(outdated))));
  if (shown) show(shown);
}

function marked(image) {
  const old = image.item.querySelector(".before");
  if (old) old.remove();
  if (!outdated(image)) return;
  const text = isBefore(image) ? `before the change: generation ${image.result.index.generation}` : "judged otherwise";
  image.item.querySelector(".said").after(element("span", text, "before"));
}

function warning(image) {
  const box = element("p", undefined, "panel");
  box.append(
    isBefore(image)
      ? `Generation ${image.result.index.generation} gave this answer; the references have changed since, and ` +
        `generation ${current} answers now. `
      : `This answer was given ${image.words}. `,
    button("Ask again", () => askAgain([image])));
  return box;
}

function askAgain(some) {
  for (const image of some) {
    image.result = image.evidence = image.laid = null;
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
  const verdict = verdictOf(result);
  return ["uncertain", "unknown"].includes(verdict) ? "undecided" : verdict;
};

function progress() {
  const done = images.filter((image) => image.result).length;
  const busy = done < images.length && !stopped;
  $("progress-line").hidden = !busy;
  $("progress").max = Math.max(images.length, 1);
  $("progress").value = done;
  $("progress-text").textContent = `${done} of ${plural(images.length, "image")}`;
  $("save-report").hidden = images.length < 2; // of one there is a button beside its evidence
  const count = (kind) => images.filter((image) => kindOf(image) === kind).length;
  $("counts").textContent =
    `${plural(done, "image")}: ${count("fake-like")} fake-like, ${count("real-like")} without a sign of the known generators, ` +
    `${count("undecided")} undecided, ${count("failed")} not usable`;
  if (done && !busy) say($("counts").textContent);
}

function filter() {
  const wanted = $("filter").value;
  for (const image of images) image.item.hidden = Boolean(wanted && kindOf(image) !== wanted);
  reachable();
}

function stop() {
  stopped = true;
  for (const image of queue.splice(0)) {
    image.result = { error: "stopped", message: "it was not sent" };
    finished(image);
  }
}

function save() {
  // The server is told the last part of a path alone.
  const results = images.filter((image) => image.result).map(({ path, result }) => ({ ...result, input: path }));
  download(JSON.stringify(results, null, 1), "application/json", "verdicts.json");
}

// `told` : where it is said how it went.
async function saveReport(some, told) {
  told.textContent = "Making the report …";
  try {
    const { beside, facts } = (some.length === 1 && some[0].laid) || {};
    const page = await report(some.map(({ file }) => file), { ...chosen(), ...facts }, { beside });
    const name = some.length === 1 ? `evidence-${some[0].file.name}.html` : "evidence.html";
    download(page, "text/html", name);
    const without = some.length > 1 && some.some(({ laid }) => laid);
    told.textContent = `Saved as ${name}${without ? ", without the photographs that were laid beside single images" : ""}.`;
  } catch (error) {
    told.textContent = explain(error);
  }
}

// ---------------------------------------------------------------- dropping, pasting, choosing

// Files below an entry, with their paths.
async function inside(entry, paths) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    paths.set(file, entry.fullPath.slice(1));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const child of some) await inside(child, paths);
  }
}

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return take(transfer.files);
  const paths = new Map();
  for (const entry of entries) await inside(entry, paths);
  return take([...paths.keys()].filter((file) => file.type.startsWith("image/")), paths);
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
    const given = [...$(id).files];
    take(id === "folder" ? given.filter((file) => file.type.startsWith("image/")) : given);
    $(id).value = "";
  });
}
$("filter").addEventListener("change", filter);
$("stop").addEventListener("click", stop);
$("save").addEventListener("click", save);
$("save-report").addEventListener("click", () => saveReport(images.filter(({ result }) => result), $("saved")));

// ---------------------------------------------------------------- views

function view(name) {
  for (const other of ["ask", "banks"]) {
    $(`view-${other}`).hidden = other !== name;
    if (other === name) $(`tab-${other}`).setAttribute("aria-current", "page");
    else $(`tab-${other}`).removeAttribute("aria-current");
  }
  if (name === "banks") { $("token-panel").hidden = false; overview(); }
}

$("tab-ask").addEventListener("click", () => view("ask"));
$("tab-banks").addEventListener("click", () => view("banks"));
whenChosen(changed);
whenHeard(changedTo);
setInterval(look, LOOK_MS);
addEventListener("visibilitychange", look);
overview();
