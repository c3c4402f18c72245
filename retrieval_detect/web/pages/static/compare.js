// An image and one of its references side by side, larger. A dialog of the browser's own: Escape closes it, and
// what was in focus before is again.
import { $, button } from "./dom.js";
import { thumbnail } from "./service.js";

const SIDE = 1024;
let references = []; // of the evidence on show: {row, picture, words}
let at = 0;
let url = "";

// Makes the pictures of references in `article` buttons. `image` : a file of the image that was asked about.
export function comparable(article, image) {
  const own = article.querySelector("img.query");
  references = [...article.querySelectorAll(".reference")].filter((one) => one.querySelector("img.thumb"))
    .map((one) => ({ row: one.dataset.row, picture: one.querySelector("img.thumb"), words: wordsOf(one) }));
  references.forEach((reference, i) => {
    const open = button(undefined, () => {
      $("compare-image").onerror = () => { $("compare-image").onerror = null; $("compare-image").src = own ? own.src : ""; };
      $("compare-image").src = URL.createObjectURL(image);
      $("compare-image").alt = own ? own.alt : "";
      show(i);
      $("compare").showModal();
    });
    open.className = "compare";
    open.title = "Side by side with the image";
    reference.picture.replaceWith(open);
    open.append(reference.picture);
  });
}

function wordsOf(reference) {
  const facts = [...reference.querySelectorAll("dl > div")].slice(0, 2);
  const bank = reference.closest(".bank").classList.contains("fake") ? "fake" : "real";
  return `${bank} bank, ${facts.map((fact) => [...fact.children].map((c) => c.textContent).join(" ")).join(", ")}`;
}

async function show(i) {
  at = (i + references.length) % references.length;
  const { row, picture, words } = references[at];
  $("compare-reference").src = picture.src;
  $("compare-reference").alt = picture.alt;
  $("compare-words").textContent = `Reference ${at + 1} of ${references.length}: ${words}`;
  const larger = await thumbnail(row, SIDE);
  if (larger && row === references[at].row && $("compare").open) {
    URL.revokeObjectURL(url);
    url = URL.createObjectURL(larger);
    $("compare-reference").src = url;
  }
}

$("compare-before").addEventListener("click", () => show(at - 1));
$("compare-next").addEventListener("click", () => show(at + 1));
$("compare").addEventListener("keydown", ({ key }) => {
  if (key === "ArrowLeft") show(at - 1);
  if (key === "ArrowRight") show(at + 1);
});
$("compare").addEventListener("close", () => URL.revokeObjectURL($("compare-image").src));
