"""The protocols by name, and the table by generator.

Each is a function that gives a ``Plan``. What else is asked of an index as it is stands in ``judging`` and
``robustness``; what teaches or leaves out references in ``newcomers`` and ``incremental``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.evaluate import categories, incremental, judging, metrics, newcomers, robustness
from retrieval_detect.evaluate.context import Context, Json, Plan, Result, references, rounded, tabled
from retrieval_detect.evaluate.datasets import apart
from retrieval_detect.evaluate.intervals import intervals, ranges
from retrieval_detect.evaluate.states import (
    FEWEST,
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

    from retrieval_detect.types import Split
    from retrieval_detect.verdicts import Question

    Float64: TypeAlias = NDArray[np.float64]

MEAN = "mean"
PEERS = {**RIVALS, "CalibratedClassifierCV": calibrated_logistic}
"""What else one would use, all of scikit-learn, learning from the very references that vote."""
TRIVIAL = "trivial pixel statistics"
_SEEN = 5e-4
"""The least gain that three digits show."""
INTERVALS: Mapping[str, metrics.Metric] = {"ap": metrics.average_precision, "auroc": metrics.auroc}


# ---------------------------------------------------------------- a table by generator


def generators(context: Context) -> Plan:
    """Every column of the set by the question's method, by other methods asked for, and by rivals."""
    own = [("rd", context.question), *((text, parse_method(text)) for text in context.options.methods)]
    steps: list[tuple[str, Callable[[], Json]]] = [
        (name, partial(_asked, context, question)) for name, question in own
    ]
    steps += [(name, partial(_rivalled, context, name)) for name in PEERS]

    def trivial() -> Json:
        scores, how = context.baseline
        return _by_column(context, scores) | {"how": how} if scores.any() else {"left out": how}

    steps.append((TRIVIAL, trivial))
    return Plan(steps, partial(_generators_table, context))


def _asked(context: Context, question: Question) -> Json:
    scorer = Scorer(context.snapshot, question, device=context.device)
    scores = scorer.ask(context.images).scores
    return _by_column(context, scores, calibrated=scorer.threshold(context.layers))


def _rivalled(context: Context, name: str) -> Json:
    """A rival learns from bank rows; its threshold comes from calibration rows, as rd's does."""
    splits: tuple[Split, Split] = ("bank", "calib")
    bank, aside = (references(context.snapshot, context.layers, split=split) for split in splits)
    scores = unlearnt_scores(context, bank, PEERS[name])
    if scores is None:
        return {"left out": f"fewer than {FEWEST} references of a label are left that are not asked about"}
    calibrated = None
    if aside.fake.any() and (~aside.fake).any():
        calibrated = neutral(rival_scores(bank, aside, context.layer, PEERS[name]), aside.fake)
    return _by_column(context, scores, calibrated=calibrated)


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
        shown = {name: rounded(own[name]) for name in metrics.SHOWN if name in own}
        ends = own.get("auroc_interval") or {}
        rows.append(
            {"column": column, "real": own.get("real"), "fake": own.get("fake"), "auroc": shown["auroc"]}
            | {"auroc_low": ends.get("low"), "auroc_high": ends.get("high")}
            | shown
            | {"trivial_auroc": rounded(trivial[column]["auroc"]) if column in trivial else None}
            | {f"{name}_auroc": rounded(value) for name, value in others.items()}
        )
    lines = [
        "acc fixed: at score 0. acc calibrated: threshold from the index's calibration rows. "
        "acc oracle: the best threshold for these very images, which nobody can have.",
        *_better(methods),
        *(f"{name}: {said['left out']}." for name, said in found.items() if "left out" in said),
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
    ahead = {name: gain for name, gain in ahead.items() if gain >= _SEEN}
    if not ahead:
        return ["No peer has a higher mean AUROC than rd here."]
    listed = ", ".join(f"{name} (+{gain:.3f})" for name, gain in sorted(ahead.items(), key=lambda x: -x[1]))
    return [
        f"Higher mean AUROC than rd: {listed}. A vote is the default all the same: a generator nobody has "
        "seen is learnt from a handful of references (protocol few-shot measures it beside a retrained "
        "regression), a wrong one is taken out exactly, and every score shows what it rests on."
    ]


# ---------------------------------------------------------------- by name


def _few_shot(context: Context) -> Plan:
    """References of a new generator, or of every content category."""
    return (categories.few_shot if context.options.per_category else newcomers.few_shot)(context)


PROTOCOLS: Mapping[str, Callable[[Context], Plan]] = {
    "generators": generators,
    "robustness": robustness.robustness,
    "holdout": newcomers.holdout,
    "few-shot": _few_shot,
    "incremental": incremental.incremental,
    "bank-size": newcomers.bank_size,
    "attribution": judging.attribution,
    "calibration": judging.calibration,
    "quality": judging.quality,
}

WEIGHTS: dict[str, int] = {
    "generators": 85,
    "robustness": 150,
    "holdout": 22,
    "few-shot": 310,
    "incremental": 360,
    "bank-size": 18,
    "attribution": 12,
    "calibration": 35,
    "quality": 1,
}
"""Tenths of a second of a core that a step took on 2,935 images: for an estimate of the time that is left.

Of robustness, which embeds images anew, they are of a thousand images.
"""
