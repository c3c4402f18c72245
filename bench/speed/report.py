"""The report of a batch: how large its file is, how long it takes to write, and to open in a browser.

    python -m bench.speed.report [--images N] [--browser PATH] [--out FILE.html]

Verdicts are made up; each shows its own picture and ten of 3,000 references, so that few are shared. Opening
is timed in headless Chromium: from the start of the navigation to the load event, and to the first frame.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench._frame import say
from retrieval_detect.report.html.pictures import QUERY_SIDE, REFERENCE_SIDE, encoded
from retrieval_detect.report.html.records import Picture
from retrieval_detect.report.html.write import write_html
from tests.html_views import FULL, reference, viewer

REFERENCES, SHOWN = 3000, 5


def scene(rng, side):
    """A picture with about the detail of a photograph."""
    coarse = (Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)) for n in (4, 16, 48))
    layers = [np.asarray(c.resize((side, side), Image.Resampling.BICUBIC), np.float32) for c in coarse]
    mixed = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


def views(n):
    """n views, each with a picture and ten references drawn from the same 3,000."""
    rng = np.random.default_rng(0)
    pictures = [
        encoded(scene(rng, REFERENCE_SIDE), REFERENCE_SIDE, Picture("", f"reference {i}", key=f"r{i}"))
        for i in range(REFERENCES)
    ]
    make = viewer()
    for i in range(n):
        chosen = rng.choice(REFERENCES, 2 * SHOWN, replace=False).tolist()
        banks = {"real": chosen[:SHOWN], "fake": chosen[SHOWN:]}
        by_bank = {label: tuple(reference(j, label=label) for j in ids) for label, ids in banks.items()}
        view = make.view(replace(FULL, input=f"image-{i:04d}.jpg", by_bank=by_bank, regions=None))
        yield replace(
            view,
            picture=encoded(scene(rng, QUERY_SIDE), QUERY_SIDE, Picture("", view.name, key=f"q{i}")),
            **{
                label: tuple(replace(r, picture=pictures[r.evidence.row_id]) for r in getattr(view, label))
                for label in banks
            },
        )


def opened(path, browser):
    """Seconds to the load event, and to the first frame with the overview."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        page.goto(path.as_uri(), wait_until="load")
        loaded = time.perf_counter() - started
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return loaded, time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = list(views(given.images))
    with tempfile.TemporaryDirectory() as folder:
        path = given.out or Path(folder) / "report.html"
        started = time.perf_counter()
        write_html(path, made)
        written = time.perf_counter() - started
        loaded, shown = zip(*(opened(path.resolve(), given.browser) for _ in range(3)), strict=True)
        size = path.stat().st_size / 1e6
    say(f"{given.images} images: {size:.1f} MB, written in {written:.1f} s")
    say(f"opened in {min(loaded):.2f} to {max(loaded):.2f} s, on screen within {max(shown):.2f} s")


if __name__ == "__main__":
    main()
