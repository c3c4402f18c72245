"""Robustness: the same images after what happens to pictures, by settings of the papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.evaluate import metrics
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, rounded, tabled
from retrieval_detect.evaluate.intervals import difference, interval
from retrieval_detect.evaluate.states import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.images.chains import Chain
    from retrieval_detect.types import Int64

    Float64: TypeAlias = NDArray[np.float64]

ROBUSTNESS: Mapping[str, Chain] = {
    "as is": (),
    # UniversalFakeDetect's and CLIPping the Deception's own: JPEG by quality, blur by sigma.
    **{f"JPEG {q}": (f"jpeg-{q}",) for q in (100, 95, 90, 80, 75, 70, 60, 50, 40, 30)},
    **{f"blur σ {s}": (f"blur-{10 * s}",) for s in (1, 2, 3, 4)},
    **{f"resize × {p / 100:g}": (f"resize-{p}",) for p in (25, 50, 75, 150, 200)},
    "WebP 80": ("webp-80",),
    "screenshot: 768 pixels, JPEG 60": ("longest-768", "jpeg-60"),
    "screenshot: 512 pixels, JPEG 40": ("longest-512", "jpeg-40"),
    "social: 1080 pixels, JPEG 85, then 70": ("longest-1080", "jpeg-85", "jpeg-70"),
    # RINE's, each for one image in two: see images.perturbations.
    "RINE, blur: σ 4 over 3 to 9 pixels": ("rine-blur",),
    "RINE, crop: 5 to 20 % of each side": ("rine-crop",),
    "RINE, compress: JPEG 10 to 74": ("rine-compress",),
    "RINE, noise: σ 5 to 20": ("rine-noise",),
    "RINE, combined": ("rine-combined",),
}
"""Setting → what is done to every image; blur is Pillow's, JPEG libjpeg-turbo's at 4:2:0."""
_PAPERS: Mapping[str, frozenset[str]] = {
    "UniversalFakeDetect": frozenset(n for n in ROBUSTNESS if n.startswith(("JPEG", "blur"))) - {"JPEG 75"},
    "CLIPping the Deception": frozenset({"JPEG 75", "JPEG 50", "blur σ 1", "blur σ 2"}),
    "RINE": frozenset(n for n in ROBUSTNESS if n.startswith("RINE")),
}
"""Whose settings these are; the others are of no paper."""


def robustness(context: Context) -> Plan:
    """Every setting of ``ROBUSTNESS``: measures, and how many verdicts it turns round."""
    before = _Before(context)
    steps = [(name, partial(_setting, before, chain)) for name, chain in ROBUSTNESS.items()]

    def finish(found: dict[str, Json]) -> Result:
        papers = {n: ", ".join(p for p, own in _PAPERS.items() if n in own) or None for n in found}
        rows = [{"setting": name, "settings_of": papers[name]} | row for name, row in found.items()]
        lines = [
            f"Of each generator and source at most {context.options.at_most} images, drawn by content.",
            "flipped: share of images whose score changes its side of the threshold.",
            "auroc_change: to the same images as they are; both ends of its 95 % interval beside it.",
            "RINE's settings leave every second image as it is, as the paper does; which, and the numbers of "
            "the others, follow from the image itself.",
            *context.overlap_lines(),
        ]
        return tabled(context, "robustness", "Robustness", rows, lines)

    return Plan(steps, finish)


@dataclass(eq=False)
class _Before:
    """What all settings are held against, made by the first that is measured."""

    context: Context

    @cached_property
    def only(self) -> frozenset[bytes]:
        return self.context.some(self.context.options.at_most)

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(self.context.snapshot, self.context.question, device=self.context.device)

    @cached_property
    def threshold(self) -> float | None:
        return self.scorer.threshold(self.context.layers)

    @cached_property
    def images(self) -> tuple[Images, Int64]:
        images, samples = self.context.changed((), only=self.only)
        return self.context.grouped(images), samples

    @cached_property
    def scores(self) -> Float64:
        return self.scorer.ask(self.images[0]).scores


def _setting(before: _Before, chain: Chain) -> Json:
    """References stay as they are: it is queries that people pass on."""
    context = before.context
    changed, samples = context.changed(chain, only=before.only)
    unchanged, all_samples = before.images
    known = np.isin(all_samples, samples)
    unchanged, as_is = unchanged.take(known), before.scores[known]
    threshold = before.threshold or 0.0
    # Copies of an image are known by its own hash and vectors, which the setting has not changed.
    scores = before.scorer.ask(replace(changed, phash=unchanged.phash)).scores
    flipped = (scores > threshold) != (as_is > threshold)
    row = metrics.measure(scores, changed.fake, calibrated=before.threshold)
    shown = {name: rounded(row[name]) for name in metrics.SHOWN if name in row}
    drawn = {"resamples": context.options.resamples}
    own = interval(metrics.auroc, unchanged.scored(scores), **drawn)
    # Every image is paired with itself.
    change = difference(metrics.auroc, unchanged.scored(scores), unchanged.scored(as_is), **drawn)
    of_real, of_fake = (float(flipped[changed.fake == label].mean()) for label in (False, True))
    return shown | {
        "auroc_low": rounded(own.low),
        "auroc_high": rounded(own.high),
        "auroc_change": rounded(change.value),
        "change_low": rounded(change.low),
        "change_high": rounded(change.high),
        "redrawn_range": dict(own.by),
        "flipped": rounded(float(flipped.mean())),
        "flipped_real": rounded(of_real),
        "flipped_fake": rounded(of_fake),
        "images": len(changed),
    }
