// The banks: what they hold, what they are taught and by whom, and the way back.
import { offer } from "./asking.js";
import { $, button, element, explain, fragment, plural } from "./dom.js";
import { bankMap, banks, confirm, plan, Refused, rollback, setToken, tokenIsRight } from "./service.js";

const MOST_NAMES = 8;
let pending = null;
let heard = () => {}; // told of the generation that answers

export function whenHeard(then) { heard = then; }

// ---------------------------------------------------------------- what they hold

export async function overview() {
  try {
    const found = await banks();
    const { name, generation } = found.index;
    const encoder = found.encoder_note ? `${found.encoder} (${found.encoder_note})` : found.encoder;
    $("state").textContent = `${name}, generation ${generation} · ${found.encoder}`;
    $("state").title = encoder;
    for (const label of ["real", "fake"]) $(`bank-${label}`).textContent = bankInWords(found, label);
    $("banks-summary").textContent = `Of index ${name}, generation ${generation}, seen by ${encoder}.`;
    const counted = found.counts.map((c) => rowOf(c.label, c.name || "unnamed", c.bank, c.calib));
    $("counts-rows").replaceChildren(...counted);
    offer(found);
    heard(generation);
    $("history-rows").replaceChildren(...found.history.reverse().map((h) => historyRow(h, generation)));
  } catch (error) {
    if (error instanceof Refused && error.status === 401) needToken();
    $("state").textContent = explain(error);
  }
}

function bankInWords({ counts, references }, label) {
  const [what, whose] = label === "real" ? ["photograph", "source"] : ["generated image", "generator"];
  const mine = counts.filter((c) => c.label === label && c.bank).sort((a, b) => b.bank - a.bank);
  const named = mine.slice(0, MOST_NAMES).map((c) => c.name || "unnamed");
  if (mine.length > named.length) named.push(`and ${plural(mine.length - named.length, "other")}`);
  return `${plural(references[label], what)} of ${plural(mine.length, whose)}: ${named.join(", ")}`;
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

async function drawMap() {
  $("map").replaceChildren(element("p", "Drawing …", "quiet"));
  try {
    $("map").replaceChildren(fragment((await bankMap()).html));
  } catch (error) {
    $("map").replaceChildren(element("p", explain(error), "wrong"));
  }
}

// ---------------------------------------------------------------- generations

function historyRow(h, now) {
  const back = h.generation === now ? `${h.generation} answers now` : button(`Back to ${h.generation}`, () => askBack(h, now));
  const when = element("span", h.created_at.slice(0, 10));
  when.title = h.created_at.replace("T", " ").replace("Z", " UTC");
  return rowOf(back, when, [h.operation, h.what].filter(Boolean).join("; "), h.contributors.join(", "));
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

// ---------------------------------------------------------------- adding

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

function propose(event) {
  event.preventDefault();
  const label = $("teach-label").value;
  const name = label === "fake" ? { generator: $("teach-name").value } : { source: $("teach-name").value };
  const facts = { label, ...name, contributor: $("teach-by").value };
  tried(async () => {
    pending = await plan([...$("teach-files").files], facts);
    $("plan-summary").textContent = pending.summary;
    $("plan-rows").replaceChildren(...pending.images.map((i) => rowOf(i.name, i.state)));
    $("plan").hidden = false;
    $("confirm").disabled = !pending.images.some((i) => i.state === "new");
    $("confirm").focus();
    return "Nothing is written yet.";
  });
}

function carryOut() {
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
}

// ---------------------------------------------------------------- the token

export function needToken() {
  $("token-panel").hidden = false;
  $("token").focus();
}

async function useToken(event) {
  event.preventDefault();
  const result = $("token-result");
  setToken($("token").value);
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

$("show-map").addEventListener("click", drawMap);
$("token-form").addEventListener("submit", useToken);
$("teach-label").addEventListener("change", () => {
  $("teach-name-label").textContent = $("teach-label").value === "fake" ? "Generator" : "Source";
});
$("teach").addEventListener("submit", propose);
$("discard").addEventListener("click", () => { $("plan").hidden = true; $("teach-result").textContent = ""; });
$("confirm").addEventListener("click", carryOut);
