// How images are judged: what the service offers, and what of it was chosen.
import { $, element } from "./dom.js";

let usual = null; // what the service asks where a question says nothing
let methods = [];

const percent = (rate) => `${Number((100 * rate).toPrecision(3))} %`;
const ratesOf = (method) => (methods.find(({ name }) => name === method) || { rates: [] }).rates;

function fill(select, options, value) {
  const kept = options.some(([name]) => String(name) === select.value) ? select.value : String(value);
  select.replaceChildren(...options.map(([name, text]) => {
    const option = element("option", text);
    option.value = name;
    return option;
  }));
  select.value = kept;
}

export function offer(found) {
  if (!usual) $("photographs").value = found.asked.photographs;
  usual = found.asked;
  methods = found.methods;
  fill($("method"), methods.map(({ name, rates }) =>
    [name, rates.length ? name : `${name} (not calibrated: no verdict)`]), usual.method);
  offerRates();
}

function offerRates() {
  const rates = ratesOf($("method").value);
  if (rates.length || !$("fpr").length) { // a choice is kept while a method is looked at that has no rates
    const shown = [...new Set([...rates, usual.fpr])].sort((a, b) => a - b);
    fill($("fpr"), shown.map((rate) =>
      [rate, rates.includes(rate) ? percent(rate) : `${percent(rate)} (too few photographs are set aside)`]), usual.fpr);
  }
  $("fpr").disabled = $("photographs").disabled = !rates.length;
  $("asked").textContent = inWords();
}

// What differs from what the service asks anyway, as parameters of a question.
export function chosen() {
  if (!usual) return {};
  const now = { method: $("method").value };
  if (!$("fpr").disabled) Object.assign(now, { photographs: $("photographs").value, fpr: $("fpr").value });
  return Object.fromEntries(Object.entries(now).filter(([name, value]) => value !== String(usual[name])));
}

export function inWords() {
  if (!usual) return "as the server judges by itself";
  const by = `by ${$("method").value}`;
  if ($("fpr").disabled) return `${by}, uncalibrated`;
  const whose = $("photographs").value === "known" ? "of the known sources" : "of any source";
  return `at ${percent(Number($("fpr").value))} false alarms, photographs ${whose}, ${by}`;
}

export function whenChosen(then) {
  $("asking").addEventListener("change", () => { offerRates(); then(); });
}
