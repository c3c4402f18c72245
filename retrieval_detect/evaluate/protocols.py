"""The protocols by name, and two that ask an index as it is: a table by generator, and robustness.

Each is a function that gives a ``Plan``. What else is asked of an index as it is stands in ``judging``; what
teaches or leaves out references in ``teaching`` and ``incremental``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.evaluate import incremental, judging, metrics, teaching
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, references, rounded, tabled
from retrieval_detect.evaluate.datasets import apart
from retrieval_detect.evaluate.intervals import Interval, intervals, ranges
from retrieval_detect.evaluate.states import (
    RIVALS,
    Scorer,
    neutral,
    parse_method,
    rival_scores,
    unlearnt_scores,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.cache import Chain
    from retrieval_detect.verdicts import Question

    Float64: TypeAlias = NDArray[np.float64]

MEAN = "mean"
INTERVALS: Mapping[str, metrics.Metric] = {"ap": metrics.average_precision, "auroc": metrics.auroc}
_SHOWN = ("auroc", "ap", "acc_fixed", "acc_calibrated", "acc_oracle", "real_acc_fixed", "fake_acc_fixed")

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
}
"""Setting → what is done to every image; blur is Pillow's, JPEG libjpeg-turbo's at 4:2:0."""


# ---------------------------------------------------------------- a table by generator


def generators(context: Context) -> Plan:
    """Every column of the set by the question's method, by other methods asked for, and by rivals."""
    own = [("rd", context.question), *((text, parse_method(text)) for text in context.options.methods)]
    steps: list[tuple[str, Callable[[], Json]]] = [
        (name, partial(_asked, context, question)) for name, question in own
    ]
    steps += [(name, partial(_rivalled, context, name)) for name in RIVALS]
    steps.append(("trivial pixel statistics", partial(_trivial, context)))
    return Plan(steps, partial(_generators_table, context))


def _asked(context: Context, question: Question) -> Json:
    scorer = Scorer(context.snapshot, question, device=context.device)
    scores = scorer.ask(context.images).scores
    aside = scorer.set_aside(context.layers)
    calibrated = None if aside is None else neutral(aside[1].scores, aside[0].fake)
    return _by_column(context, scores, calibrated=calibrated)


def _rivalled(context: Context, name: str) -> Json:
    """A rival learns from bank rows; its threshold comes from calibration rows, as rd's does."""
    bank, aside = _banks(context)
    scores = unlearnt_scores(context, bank, RIVALS[name])
    if scores is None:
        return {"left out": "no references of a label are left that are not asked about"}
    calibrated = None
    if aside.fake.any() and (~aside.fake).any():
        calibrated = neutral(rival_scores(bank, aside, context.layer, RIVALS[name]), aside.fake)
    return _by_column(context, scores, calibrated=calibrated)


def _banks(context: Context) -> tuple[Images, Images]:
    bank = references(context.snapshot, context.layers, split="bank")
    return bank, references(context.snapshot, context.layers, split="calib")


def _trivial(context: Context) -> Json:
    scores, how = context.baseline
    if not scores.any():
        return {"left out": how}
    return _by_column(context, scores) | {"how": how}


def _by_column(context: Context, scores: Float64, *, calibrated: float | None = None) -> dict[str, Json]:
    """Measures of every column with intervals, and their mean over the columns of the paper's mean."""
    images, dataset = context.images, context.dataset
    masks = {name: images.column(name) for name in dataset.columns}
    columns: dict[str, dict[str, Json]] = {
        name: metrics.measure(scores[own], images.fake[own], calibrated=calibrated)
        | {"real": int((~images.fake[own]).sum()), "fake": int(images.fake[own].sum())}
        for name, own in masks.items()
    }
    counted = [name for name in dataset.columns if name not in apart(dataset.name)]
    scored = {name: images.take(own).scored(scores[own]) for name, own in masks.items() if name in counted}
    columns[MEAN] = _mean(columns, counted, dataset.joint or {})
    for metric, function in INTERVALS.items():
        found = intervals(function, scored, resamples=context.options.resamples, mean=MEAN)
        for name, interval in found.items():
            columns[name][f"{metric}_interval"] = _plain(interval)
    by_name = {name: ranges(metrics.auroc, column) for name, column in scored.items()}
    return {"columns": columns, "auroc_by_source": {name: found for name, found in by_name.items() if found}}


def _plain(interval: Interval) -> dict[str, Json]:
    low, high = (None if np.isnan(x) else round(x, 6) for x in (interval.low, interval.high))
    return {"low": low, "high": high, "by": dict(interval.by)}


def _mean(
    columns: Mapping[str, Mapping[str, float]], counted: Sequence[str], joint: Mapping[str, Sequence[str]]
) -> dict[str, Json]:
    """Mean over columns; columns that a paper takes for one count as one in ``grouped``."""
    names = [n for n in columns[counted[0]] if not n.startswith("threshold") and n not in ("real", "fake")]
    mean: dict[str, Json] = {n: float(np.mean([columns[c][n] for c in counted])) for n in names}
    if joint:
        home = {member: group for group, members in joint.items() for member in members}
        groups: dict[str, list[str]] = {}
        for column in counted:
            groups.setdefault(home.get(column, column), []).append(column)
        mean["grouped"] = {
            n: float(np.mean([np.mean([columns[c][n] for c in members]) for members in groups.values()]))
            for n in names
        } | {"groups": len(groups)}
    return mean


def _generators_table(context: Context, found: dict[str, Json]) -> Result:
    methods = {name: said for name, said in found.items() if "columns" in said}
    trivial = methods.get("trivial pixel statistics", {}).get("columns", {})
    rows = []
    for column in (*context.dataset.columns, MEAN):
        own = methods["rd"]["columns"].get(column, {})
        others = {name: methods[name]["columns"][column]["auroc"] for name in RIVALS if name in methods}
        shown = {name: rounded(own[name]) for name in (*_SHOWN, "tpr_at_1_fpr") if name in own}
        interval = own.get("auroc_interval") or {}
        rows.append(
            {"column": column, "real": own.get("real"), "fake": own.get("fake")}
            | shown
            | {"auroc_low": interval.get("low"), "auroc_high": interval.get("high")}
            | {"trivial_auroc": rounded(trivial[column]["auroc"]) if column in trivial else None}
            | {f"{name}_auroc": rounded(value) for name, value in others.items()}
        )
    lines = [
        "acc_fixed: at score 0. acc_calibrated: threshold from the index's calibration rows. "
        "acc_oracle: the best threshold for these very images, which nobody can have.",
        *_left_out(found),
        *context.overlap_lines(),
    ]
    return tabled(context, "generators", "By generator", rows, lines, {"methods": found})


def _left_out(found: Mapping[str, Json]) -> list[str]:
    return [f"{name}: {said['left out']}." for name, said in found.items() if "left out" in said]


# ---------------------------------------------------------------- robustness


def robustness(context: Context) -> Plan:
    """Every setting of ``ROBUSTNESS``: measures, and how many verdicts it turns round."""
    steps = [(name, partial(_setting, context, chain)) for name, chain in ROBUSTNESS.items()]

    def finish(found: dict[str, Json]) -> Result:
        rows = [{"setting": name} | row for name, row in found.items()]
        lines = [
            f"Of each generator and source at most {context.options.at_most} images, drawn by content.",
            "flipped: share of images whose score changes its side of the threshold.",
        ]
        return tabled(context, "robustness", "Robustness", rows, lines)

    return Plan(steps, finish)


def _setting(context: Context, chain: Chain) -> Json:
    """References stay as they are: it is queries that people pass on."""
    scorer = Scorer(context.snapshot, context.question, device=context.device)
    only = context.some(context.options.at_most)
    changed, samples = context.changed(chain, only=only)
    plain, before = context.changed((), only=only)
    common = np.intersect1d(samples, before)
    changed = changed.take(np.searchsorted(samples, common))
    plain = plain.take(np.searchsorted(before, common))
    aside = scorer.set_aside(context.layers)
    threshold = 0.0 if aside is None else neutral(aside[1].scores, aside[0].fake)
    # Copies of an image are known by its own hash and vectors, which the setting has not changed.
    scores = scorer.ask(replace(changed, phash=plain.phash)).scores
    flipped = (scores > threshold) != (scorer.ask(plain).scores > threshold)
    row = metrics.measure(scores, changed.fake, calibrated=None if aside is None else threshold)
    shown = {name: rounded(row[name]) for name in (*_SHOWN, "tpr_at_1_fpr") if name in row}
    of_real, of_fake = (float(flipped[changed.fake == label].mean()) for label in (False, True))
    return shown | {
        "flipped": rounded(float(flipped.mean())),
        "flipped_real": rounded(of_real),
        "flipped_fake": rounded(of_fake),
        "images": len(changed),
    }


PROTOCOLS: Mapping[str, Callable[[Context], Plan]] = {
    "generators": generators,
    "robustness": robustness,
    "holdout": teaching.holdout,
    "few-shot": teaching.few_shot,
    "incremental": incremental.incremental,
    "bank-size": teaching.bank_size,
    "attribution": judging.attribution,
    "calibration": judging.calibration,
    "quality": judging.quality,
}
