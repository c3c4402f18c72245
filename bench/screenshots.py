"""The pictures of README.md and docs/serve.md, of the demo's images alone: ``python -m bench.screenshots``.

Builds the demo, writes a report of one of its images, starts ``rd serve`` over its index, and takes the
pictures in Chromium. None of the images asked about is a reference.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from bench._machine import ROOT
from bench.serve import ADDRESS, server

PICTURES = ROOT / "docs" / "screenshots"
ONE = "ask/fakes/image_chroma_text_to_image-1.webp"
MANY = (
    ONE,
    "ask/fakes/image_anima_preview-1.webp",
    "ask/fakes/image_ernie_image_turbo-1.webp",
    "ask/fakes/image_qwen_image_2512_with_2steps_lora-1.webp",
    "ask/fakes/image_z_image_turbo-1.webp",
    "ask/photographs/pexels-2416933.webp",
    "ask/photographs/pexels-6707631.webp",
    "ask/photographs/pexels-maksgelatin-4352247.webp",
)
TAUGHT = tuple(f"painted/teach/pexels-{name}.webp" for name in ("2560067", "36030587", "36179987"))
TOKEN = "a token of the pictures"

Page = Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Take all pictures anew."""
    parser = argparse.ArgumentParser(prog="python -m bench.screenshots", description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rd-pictures-") as folder, sync_playwright() as driver:
        work = Path(folder)
        _rd(work, "demo", "--keep", "demo")
        _rd(work, "query", f"demo/images/{ONE}", "--index", "demo/toy", "--report", "page.html")
        (work / "token").write_text(TOKEN, encoding="utf-8")
        browser = driver.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])

        def opened(address: str, width: int, height: int) -> Page:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto(address)
            return page

        images = work / "demo" / "images"
        take("report", opened((work / "page.html").as_uri(), 1040, 1210))
        with server(work / "demo" / "toy", "--token-file", str(work / "token"), cwd=work):
            for name, (width, height), show in (
                ("evidence", (1120, 1180), evidence),
                ("many", (1120, 1000), many),
                ("compare", (820, 700), compare),
                ("phone", (390, 844), many),
                ("teach", (1120, 680), teach),
            ):
                page = opened(ADDRESS, width, height)
                show(page, lambda *chosen: [str(images / path) for path in chosen])
                take(f"serve-{name}", page)
        browser.close()


def _rd(work: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "retrieval_detect", *arguments], cwd=work, check=True)


# ---------------------------------------------------------------- what is on the page

Chosen = Callable[..., list[str]]


def evidence(page: Page, chosen: Chosen) -> None:
    """One image with its answer and its nearest references."""
    page.set_input_files("#files", chosen(ONE))
    page.wait_for_selector("#evidence article.evidence .reference")


def many(page: Page, chosen: Chosen) -> None:
    """Several at once."""
    page.set_input_files("#files", chosen(*MANY))
    page.wait_for_function(
        "n => [...document.querySelectorAll('#list .said')].filter("
        "said => !/waiting|working/.test(said.textContent)).length === n",
        arg=len(MANY),
    )
    page.locator(
        "#list button"
    ).first.click()  # the first to be answered opens by itself: not always the same
    page.wait_for_function(
        "() => document.querySelector('#list button').getAttribute('aria-current') === 'true'"
    )
    page.wait_for_selector("#evidence article.evidence .reference")


def compare(page: Page, chosen: Chosen) -> None:
    """The image and its nearest fake side by side."""
    evidence(page, chosen)
    page.locator("#evidence .bank.fake .compare").first.click()
    page.wait_for_selector("#compare[open]")
    page.wait_for_function("() => document.getElementById('compare-reference').src.startsWith('blob:')")


def teach(page: Page, chosen: Chosen) -> None:
    """What an addition would do."""
    page.click("#tab-banks")
    page.wait_for_selector("#counts-rows tr")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-result:not(.wrong)")
    page.set_input_files("#teach-files", chosen(*TAUGHT))
    page.fill("#teach-name", "painted")
    page.fill("#teach-by", "A. Examiner")
    page.click("#teach button.primary")
    page.wait_for_selector("#plan-rows tr")
    page.locator("#show-map").evaluate("button => button.scrollIntoView()")


def take(name: str, page: Page) -> None:
    """With 256 colours, so that a picture is some tens of kilobytes."""
    page.wait_for_function(
        "() => [...document.images].filter(image => image.checkVisibility() "
        "&& image.getBoundingClientRect().left < innerWidth)"
        ".every(image => image.complete && image.naturalWidth)"
    )
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    taken.quantize(256).save(PICTURES / f"{name}.png", optimize=True)
    page.close()


if __name__ == "__main__":
    main()
