"use strict";
const form = document.getElementById("filter");
const rows = [...document.querySelectorAll("tr[data-for]")];
const shown = form.querySelector("output");

function matches(row) {
  const { text, verdict, generator } = form.elements;
  return row.dataset.name.includes(text.value.toLowerCase())
    && (!verdict || !verdict.value || row.dataset.verdict === verdict.value)
    && (!generator.value || row.dataset.generator === generator.value);
}

function filter() {
  let n = 0;
  for (const row of rows) {
    row.hidden = !matches(row);
    document.getElementById(row.dataset.for).hidden = row.hidden;
    n += row.hidden ? 0 : 1;
  }
  shown.textContent = shown.dataset.text.replace("{n}", n).replace("{of}", rows.length);
}

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();
