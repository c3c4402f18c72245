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

from retrieval_detect.evaluate import categories, incremental, judging, metrics, teaching
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, references, rounded, tabled
from retrieval_detect.evaluate.datasets import apart
from retrieval_detect.evaluate.intervals import Scored, difference, interval, intervals, ranges
from retrieval_detect.evaluate.states import (
    RIVALS,
    Scorer,
    calibrated_logistic,
    neutral,
    parse_method,
    rival_scores,
    unlearnt_scores,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.images.chains import Chain
    from retrieval_detect.verdicts import Question

    Float64: TypeAlias = NDArray[np.float64]

MEAN = "mean"
PEERS = {**RIVALS, "CalibratedClassifierCV": calibrated_logistic}
"""What else one would use, all of scikit-learn, learning from the very references that vote."""
TRIVIAL = "trivial pixel statistics"
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
_PAPERS: Mapping[str, frozenset[str]] = {
    "UniversalFakeDetect": frozenset(n for n in ROBUSTNESS if n.startswith(("JPEG", "blur"))) - {"JPEG 75"},
    "CLIPping the Deception": frozenset({"JPEG 75", "JPEG 50", "blur σ 1", "blur σ 2"}),
}
"""Whose settings these are; the others are of no paper."""


# ---------------------------------------------------------------- a table by generator


def generators(context: Context) -> Plan:
    """Every column of the set by the question's method, by other methods asked for, and by rivals."""
    own = [("rd", context.question), *((text, parse_method(text)) for text in context.options.methods)]
    steps: list[tuple[str, Callable[[], Json]]] = [
        (name, partial(_asked, context, question)) for name, question in own
    ]
    steps += [(name, partial(_rivalled, context, name)) for name in PEERS]
    steps.append((TRIVIAL, partial(_trivial, context)))
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
    scores = unlearnt_scores(context, bank, PEERS[name])
    if scores is None:
        return {"left out": "no references of a label are left that are not asked about"}
    calibrated = None
    if aside.fake.any() and (~aside.fake).any():
        calibrated = neutral(rival_scores(bank, aside, context.layer, PEERS[name]), aside.fake)
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
        for name, own in found.items():
            columns[name][f"{metric}_interval"] = own.ends()
    by_name = {name: ranges(metrics.auroc, column) for name, column in scored.items()}
    return {
        "columns": columns,
        "auroc_by_source": {name: found for name, found in by_name.items() if found},
        "curves": metrics.mean_curves([metrics.curves(own.scores, own.fake) for own in scored.values()]),
    }


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
    trivial = methods.get(TRIVIAL, {}).get("columns", {})
    rows = []
    for column in (*context.dataset.columns, MEAN):
        own = methods["rd"]["columns"].get(column, {})
        others = {name: methods[name]["columns"][column]["auroc"] for name in PEERS if name in methods}
        shown = {name: rounded(own[name]) for name in (*_SHOWN, "tpr_at_1_fpr") if name in own}
        ends = own.get("auroc_interval") or {}
        rows.append(
            {"column": column, "real": own.get("real"), "fake": own.get("fake")}
            | shown
            | {"auroc_low": ends.get("low"), "auroc_high": ends.get("high")}
            | {"trivial_auroc": rounded(trivial[column]["auroc"]) if column in trivial else None}
            | {f"{name}_auroc": rounded(value) for name, value in others.items()}
        )
    lines = [
        "acc_fixed: at score 0. acc_calibrated: threshold from the index's calibration rows. "
        "acc_oracle: the best threshold for these very images, which nobody can have.",
        *_better(methods),
        *_left_out(found),
        *context.overlap_lines(),
    ]
    drawn = {
        name: said["curves"] | {"auroc": said["columns"][MEAN]["auroc"], "ap": said["columns"][MEAN]["ap"]}
        for name, said in methods.items()
    }
    return tabled(context, "generators", "By generator", rows, lines, {"methods": found, "curves": drawn})


def _better(methods: Mapping[str, Json]) -> list[str]:
    """Which peers rank these images better than rd, and why they are not the default."""
    own = methods["rd"]["columns"][MEAN]["auroc"]
    ahead = {n: methods[n]["columns"][MEAN]["auroc"] - own for n in PEERS if n in methods}
    ahead = {name: gain for name, gain in ahead.items() if gain > 0}
    if not ahead:
        return ["No peer has a higher mean AUROC than rd here."]
    listed = ", ".join(f"{name} (+{gain:.3f})" for name, gain in sorted(ahead.items(), key=lambda x: -x[1]))
    return [
        f"Higher mean AUROC than rd: {listed}. A vote is the default all the same: a generator nobody has "
        "seen is learnt from a handful of references (protocol few-shot measures it beside a retrained "
        "regression), a wrong one is taken out exactly, and every score shows what it rests on."
    ]


def _left_out(found: Mapping[str, Json]) -> list[str]:
    return [f"{name}: {said['left out']}." for name, said in found.items() if "left out" in said]


# ---------------------------------------------------------------- robustness


def robustness(context: Context) -> Plan:
    """Every setting of ``ROBUSTNESS``: measures, and how many verdicts it turns round."""
    steps = [(name, partial(_setting, context, chain)) for name, chain in ROBUSTNESS.items()]

    def finish(found: dict[str, Json]) -> Result:
        rows = [{"setting": name, "settings_of": _papers(name)} | row for name, row in found.items()]
        lines = [
            f"Of each generator and source at most {context.options.at_most} images, drawn by content.",
            "flipped: share of images whose score changes its side of the threshold.",
            "auroc_change: to the same images as they are; both ends of its 95 % interval beside it.",
            *context.overlap_lines(),
        ]
        return tabled(context, "robustness", "Robustness", rows, lines)

    return Plan(steps, finish)


def _papers(setting: str) -> str | None:
    return ", ".join(paper for paper, settings in _PAPERS.items() if setting in settings) or None


def _setting(context: Context, chain: Chain) -> Json:
    """References stay as they are: it is queries that people pass on."""
    scorer = Scorer(context.snapshot, context.question, device=context.device)
    only = context.some(context.options.at_most)
    changed, samples = context.changed(chain, only=only)
    unchanged, before = context.changed((), only=only)
    common = np.intersect1d(samples, before)
    changed = changed.take(np.searchsorted(samples, common))
    unchanged = unchanged.take(np.searchsorted(before, common))
    aside = scorer.set_aside(context.layers)
    threshold = 0.0 if aside is None else neutral(aside[1].scores, aside[0].fake)
    # Copies of an image are known by its own hash and vectors, which the setting has not changed.
    scores = scorer.ask(replace(changed, phash=unchanged.phash)).scores
    as_is = scorer.ask(unchanged).scores
    flipped = (scores > threshold) != (as_is > threshold)
    row = metrics.measure(scores, changed.fake, calibrated=None if aside is None else threshold)
    shown = {name: rounded(row[name]) for name in (*_SHOWN, "tpr_at_1_fpr") if name in row}
    shown |= _stated(context, unchanged.scored(scores), unchanged.scored(as_is))
    of_real, of_fake = (float(flipped[changed.fake == label].mean()) for label in (False, True))
    return shown | {
        "flipped": rounded(float(flipped.mean())),
        "flipped_real": rounded(of_real),
        "flipped_fake": rounded(of_fake),
        "images": len(changed),
    }


def _stated(context: Context, changed: Scored, as_is: Scored) -> dict[str, Json]:
    """The interval of the AUROC, and of its change, in which every image is paired with itself."""
    drawn = {"resamples": context.options.resamples}
    own = interval(metrics.auroc, changed, **drawn)
    change = difference(metrics.auroc, changed, as_is, **drawn)
    return {
        "auroc_low": rounded(own.low),
        "auroc_high": rounded(own.high),
        "auroc_change": rounded(change.value),
        "change_low": rounded(change.low),
        "change_high": rounded(change.high),
        "redrawn_range": dict(own.by),
    }


def _few_shot(context: Context) -> Plan:
    """References of a new generator, or of every content category."""
    return (categories.few_shot if context.options.per_category else teaching.few_shot)(context)


PROTOCOLS: Mapping[str, Callable[[Context], Plan]] = {
    "generators": generators,
    "robustness": robustness,
    "holdout": teaching.holdout,
    "few-shot": _few_shot,
    "incremental": incremental.incremental,
    "bank-size": teaching.bank_size,
    "attribution": judging.attribution,
    "calibration": judging.calibration,
    "quality": judging.quality,
}
