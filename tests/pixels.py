"""What a browser has really painted: colours of charts by their pixels, not by their markup."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def painted(locator):
    """The pixels of an element, uint8 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))


def colour_of(page, name):
    """A colour of the style sheet by its name, uint8 (3,)."""
    said = page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", name)
    return np.frombuffer(bytes.fromhex(said.strip().lstrip("#")), np.uint8)


def share(pixels, colour):
    """How much of a picture is of one colour, 0…1."""
    return float((np.abs(pixels.astype(int) - colour) <= 2).all(axis=-1).mean())


def require_bars(page):
    """Each bar of the evidence is there to be seen, as long as it says, in the colour of its label."""
    bars = page.locator(".evidence svg.bar:visible")
    assert bars.count() >= 2
    for i in range(bars.count()):
        bar = bars.nth(i)
        fill = bar.locator("rect.fill")
        label = "real" if "real" in fill.get_attribute("class") else "fake"
        other = "fake" if label == "real" else "real"
        pixels = painted(bar)
        assert pixels.shape[0] >= 10 and pixels.shape[1] >= 100
        said = float(fill.get_attribute("width")) / 100
        assert abs(share(pixels, colour_of(page, f"--{label}")) - said) < 0.12
        assert share(pixels, colour_of(page, f"--{other}")) == 0


def require_dots(page):
    """Dots of a map that do not overlap: photographs blue squares, fakes warm circles; gives how many."""
    dots = page.locator(".map svg.chart :is(rect, circle):has(title)")
    labels = [title.partition(",")[0] for title in dots.locator("title").all_text_contents()]
    for i, label in enumerate(labels):
        _require_mark(painted(dots.nth(i)), label)
    return {label: labels.count(label) for label in set(labels)}


def require_legend(page):
    """What stands beside a map has the colours and shapes of what stands on it."""
    entries = page.locator(".map .legend li:has-text(',')")
    for i in range(entries.count()):
        label = "real" if "photographs" in entries.nth(i).inner_text() else "fake"
        _require_mark(painted(entries.nth(i).locator("svg")), label)
    return entries.count()


def _require_mark(pixels, label):
    height, width = pixels.shape[:2]
    middle = pixels[height // 2, width // 2].astype(int)
    assert (middle[2] - middle[0] > 10) if label == "real" else (middle[0] - middle[2] > 10), (label, middle)
    inked = (np.abs(pixels.astype(int) - middle) <= 24).all(axis=-1)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    if len(rows) < 20:
        return  # the edges of so few pixels blend with the ground
    filled = inked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean()
    assert filled > 0.95 if label == "real" else 0.7 < filled < 0.85, (label, filled)
