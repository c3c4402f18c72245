"""Reports in a real browser: nothing is loaded or run that must not be, filters work, keys suffice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect.files import sha256_bytes
from retrieval_detect.report.html.map import map_view
from retrieval_detect.report.html.write import write_html
from retrieval_detect.report.notebook import in_frame
from tests.factories import png
from tests.html_views import FULL, HOSTILE, viewer
from tests.pixels import require_bars, require_dots, require_legend
from tests.verdicts import CALIBRATED

BROWSER = os.environ.get("RD_TEST_BROWSER") or shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium here"),
    # The browser's own sockets and event loop are closed by its process, not by Python.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

SETTINGS = ("color_scheme", "viewport", "device_scale_factor")


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """Writes views as a report and opens it; whatever the page complains of or asks for is a failure."""
    pages, trouble = [], []

    def open_(*views, html=None, **options):
        settings = {name: options.pop(name) for name in SETTINGS if name in options}
        if html is None:
            write_html(tmp_path / "report.html", views, **options)
        else:
            (tmp_path / "report.html").write_text(html, encoding="utf-8")
        page = chromium.new_page(**settings)
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith("http") and trouble.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    assert not trouble


def many(n=4):
    names = ["fake-like", "real-like", "uncertain", "unknown"]
    verdicts = [replace(CALIBRATED, input=f"{HOSTILE}{i}", verdict=names[i % 4]) for i in range(n)]
    return [viewer().view(verdict, png(i)) for i, verdict in enumerate(verdicts)]


def test_a_report_of_one_loads_nothing_and_runs_nothing(opened):
    page = opened(viewer().view(replace(FULL, input=HOSTILE), png(1)))
    assert page.locator("h1").inner_text() == f"Evidence about {HOSTILE.rpartition('/')[2]}"
    assert page.locator("article img.query").evaluate("image => image.naturalWidth") == 64
    assert page.evaluate("document.scripts.length") == 0


def test_a_notebook_shows_all_in_a_frame_in_which_nothing_runs(opened, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    asked = replace(FULL, input=str(tmp_path / "a.png"), sha256=sha256_bytes(png(1)))
    hostile = replace(FULL, input=HOSTILE)
    page = opened(html="<meta charset=utf-8>" + in_frame(asked) + in_frame(hostile))
    shown, other = (page.frame_locator(f"iframe >> nth={n}") for n in (0, 1))
    assert shown.locator("img.query").evaluate("image => image.naturalWidth") == 64
    assert "UNCERTAIN" in shown.locator(".headline").inner_text()
    assert HOSTILE in other.locator(".facts").first.inner_text()
    assert page.locator("body").evaluate("body => getComputedStyle(body).maxWidth") == "none"


def test_filters_leave_what_was_asked_for(opened):
    page = opened(*many(8))
    rows = page.locator("tbody tr[data-for]:visible")
    assert rows.count() == 8 and page.locator("output").inner_text() == "shown: 8 of 8"
    page.get_by_label("verdict").select_option("unknown")
    assert rows.count() == 2 and page.locator("article:visible").count() == 2
    page.get_by_label("file name contains").fill("JPG7")
    assert rows.count() == 1 and page.locator("output").inner_text() == "shown: 1 of 8"
    page.get_by_label("file name contains").fill("no such")
    assert rows.count() == 0


def test_keys_lead_to_each_image_and_back(opened):
    page = opened(*many(2))
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.hash") == "#image-2":
            break
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#image-2"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#overview"


def test_a_folded_hash_is_opened_by_key_and_is_on_paper(opened):
    page = opened(viewer().view(FULL, png(1)))
    whole = page.locator(".top details")
    folded = whole.bounding_box()["height"]
    assert FULL.sha256 in whole.text_content() and whole.locator("summary").inner_text() == "efefefefefef…"
    page.emulate_media(media="print")
    assert whole.bounding_box()["height"] > folded and not whole.locator("summary").is_visible()
    page.emulate_media(media="screen")
    whole.locator("summary").focus()
    page.keyboard.press("Enter")
    assert whole.bounding_box()["height"] > folded


def test_what_leads_to_images_is_no_image_itself(opened):
    views = [replace(view, place=(0.2 * i, 0.5)) for i, view in enumerate(many(2))]
    page = opened(*views, bank_map=map_view(atlas(3, 3), index="i"))
    assert page.locator(".map svg.chart").get_attribute("role") == "group"
    assert page.locator(".map svg.chart a").count() == 2
    alone = opened(replace(views[0], place=(0.5, 0.5)), bank_map=map_view(atlas(3, 3), index="i"))
    assert alone.locator(".map svg.chart").get_attribute("role") == "img"


def test_without_scripts_all_is_there(chromium, tmp_path):
    write_html(tmp_path / "report.html", many(3))
    page = chromium.new_page(java_script_enabled=False)
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("tbody tr[data-for]:visible").count() == 3
    assert page.locator("#filter:visible").count() == 0
    page.close()


def test_the_blind_verdict_is_opened_by_key(opened):
    page = opened(viewer().view(FULL, png(1)), blind=True)
    headline = page.locator(".headline")
    assert not headline.is_visible()
    page.locator(".hidden > summary").focus()
    page.keyboard.press("Enter")
    assert headline.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1100])
def test_contrast_and_width(opened, scheme, width):
    page = opened(viewer().view(FULL, png(1)), color_scheme=scheme, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(LEAST_CONTRAST) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_have_the_length_and_the_colour_they_say(opened, scheme):
    require_bars(opened(viewer().view(FULL, png(1)), color_scheme=scheme))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("n_real", "n_fake"), [(3, 9), (9, 3)])
@pytest.mark.parametrize("colour", ["label", "generator"])
def test_photographs_are_blue_squares_and_fakes_warm_circles(opened, scheme, n_real, n_fake, colour):
    shown = map_view(atlas(n_real, n_fake), index="i", colour=colour)
    size = {"viewport": {"width": 1100, "height": 900}, "device_scale_factor": 4}
    page = opened(*many(2), bank_map=shown, color_scheme=scheme, **size)
    assert require_dots(page) == {"real": n_real, "fake": n_fake}
    assert require_legend(page) == (2 if colour == "label" else 1 + min(n_fake, 7))


def atlas(n_real, n_fake):
    """Dots that lie apart; each fake is of a generator of its own."""
    n = n_real + n_fake
    fake = np.arange(n) >= n_real
    return SimpleNamespace(
        method="pca",
        row_ids=np.arange(n),
        places=np.stack([np.arange(n) % 4 / 4 + 0.1, np.arange(n) // 4 / 4 + 0.1], axis=1),
        fake=fake,
        generators=np.where(fake, np.char.add("g", np.arange(n).astype(str)), ""),
        sources=np.where(fake, "", "camera"),
        total=n,
        placer=None,
    )


LEAST_CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(colour).map(c => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (numbers(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = 21;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [element.closest("svg") ? style.fill : style.color, ground(element)].map(light);
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}"""
