// What every part of the page needs: elements, and words. Text of others reaches the document as text only
// (textContent); the one piece of markup is the evidence, made and escaped by the server.
import { Refused } from "./service.js";

export const $ = (id) => document.getElementById(id);

export function element(tag, text, classes) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

export function button(text, pressed) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", pressed);
  return made;
}

export const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

export function explain(error) {
  if (error instanceof Refused) return [error.message, error.hint].filter(Boolean).join(". ");
  return "The server cannot be reached.";
}

export function fragment(html) {
  // Escaped by the server; the policy of this page would run no script in it anyway.
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const made = document.createDocumentFragment();
  made.append(...parsed.body.childNodes);
  return made;
}

// Each path → the shortest end of it, by whole parts, that no other has.
export function shortened(paths) {
  const found = new Map();
  let left = [...new Set(paths)];
  for (let parts = 1; left.length; parts += 1) {
    const ends = left.map((path) => path.split("/").slice(-parts).join("/"));
    const count = new Map();
    for (const end of ends) count.set(end, (count.get(end) || 0) + 1);
    left.forEach((path, i) => { if (count.get(ends[i]) === 1 || ends[i] === path) found.set(path, ends[i]); });
    left = left.filter((path) => !found.has(path));
  }
  return found;
}

export function download(text, type, name) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
