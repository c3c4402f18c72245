"""Protocols that ask an index as it is: attribution, calibration, quality."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.ask.methods import QUALITY
from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate import metrics
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, references, rounded, tabled
from retrieval_detect.evaluate.intervals import interval
from retrieval_detect.evaluate.states import Said, Scorer, calibrated_logistic, unlearnt_scores
from retrieval_detect.scoring.conformal import traits_of
from retrieval_detect.scoring.likelihood import LIKELIHOOD_METHODS, fit_likelihood_ratio, probability
from retrieval_detect.vectors import as_stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64: TypeAlias = NDArray[np.float64]

# ---------------------------------------------------------------- attribution


def attribution(context: Context) -> Plan:
    """Which generator the nearest fakes come from: closed set, and with what the banks do not know."""
    return Plan([("attribution", partial(_attributed, context))], partial(_attribution_table, context))


def _attributed(context: Context) -> Json:
    scorer = Scorer(context.snapshot, context.question, device=context.device)
    fakes = context.images.take(context.images.fake).once()
    said = scorer.ask(fakes)
    known = np.isin(fakes.names, context.snapshot.manifest.names("fake"))
    right = said.generators == fakes.names
    names = sorted(set(fakes.names.tolist()))
    named = {name: Counter(said.generators[fakes.names == name].tolist()) for name in names}
    confusion = {name: dict(sorted(counts.items())) for name, counts in named.items()}
    open_set = bool(known.any() and (~known).any())
    closed = _right(context, fakes, right, known)
    return {
        "by_generator": {
            name: {
                "images": int((fakes.names == name).sum()),
                "known": name in context.snapshot.manifest.names("fake"),
            }
            | _right(context, fakes, right, fakes.names == name)
            for name in names
        },
        "closed_accuracy": closed["right"],
        "closed_interval": [closed["right_low"], closed["right_high"]],
        "open_auroc": rounded(metrics.auroc(said.typical, known)) if open_set else None,
        "oscr": rounded(metrics.oscr(right[known], said.typical[known], said.typical[~known]))
        if open_set
        else None,
        "confusion": confusion,
    }


def _right(context: Context, fakes: Images, right: NDArray[np.bool_], own: NDArray[np.bool_]) -> Json:
    """The share of some of the fakes that is named rightly, with its interval."""
    if not own.any():
        return dict.fromkeys(("right", "right_low", "right_high"))
    scored = fakes.take(own).scored(right[own].astype(np.float64))
    found = interval(_share, scored, resamples=context.options.resamples)
    ends = (found.value, found.low, found.high)
    return dict(zip(("right", "right_low", "right_high"), map(rounded, ends), strict=True))


def _share(flags: Float64, _fake: NDArray[np.bool_]) -> float:
    return float(flags.mean())


def _attribution_table(context: Context, found: dict[str, Json]) -> Result:
    said = found["attribution"]
    rows = [
        {"generator": name} | row | {"nearest": max(said["confusion"][name], key=said["confusion"][name].get)}
        for name, row in said["by_generator"].items()
    ]
    open_set = said["open_auroc"]
    lines = [
        f"Closed set, generators that the fake bank knows: {_percent(said['closed_accuracy'])} right "
        f"({' to '.join(map(_percent, said['closed_interval']))}).",
        "Open set: not measured, the set has none that the bank knows beside some that it does not."
        if open_set is None
        else f"Open set, known from unknown by nearness: AUROC {open_set}, OSCR {said['oscr']}.",
        *context.overlap_lines(),
    ]
    return tabled(context, "attribution", "Attribution", rows, lines, said)


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f} %"


# ---------------------------------------------------------------- calibration


def calibration(context: Context) -> Plan:
    """Likelihood ratios and verdicts from the index's calibration rows, held against these images."""
    return Plan([("calibration", partial(_calibrated, context))], partial(_calibration_table, context))


def _calibrated(context: Context) -> Json:
    scorer = Scorer(context.snapshot, context.question, device=context.device)
    aside = scorer.set_aside(context.layers)
    if aside is None:
        raise UsageError(
            "no references of both labels are set aside for calibration",
            hint="A fifth of each source and generator with 25 images or more is: add references.",
        )
    images = context.images.once()
    said, fake = scorer.ask(images), images.fake
    fits = {
        kind: fit_likelihood_ratio(
            aside[1].scores[aside[0].fake], aside[1].scores[~aside[0].fake], method=kind
        )
        for kind in LIKELIHOOD_METHODS
    }
    ratios = {kind: fit(said.scores) for kind, fit in fits.items()}
    prior = float(fake.mean())
    stated = probability(ratios["logistic"], prior)
    measured: dict[str, dict[str, float]] = {}
    for kind, values in ratios.items():
        measured[kind] = metrics.calibration_metrics(values, fake)
    bank = references(context.snapshot, context.layers, split="bank")
    if bank.fake.any() and (rival := unlearnt_scores(context, bank, calibrated_logistic)) is not None:
        measured["CalibratedClassifierCV"] = metrics.calibration_metrics(rival, context.images.fake)
    return {
        "maps": measured,
        "reliability": metrics.reliability(stated, fake),
        "coverage": _coverage(
            context, aside[1].scores[~aside[0].fake], images.take(~fake), said.scores[~fake]
        ),
        "risk": _risk(np.abs(ratios["logistic"]), (ratios["logistic"] > 0) == fake),
        "verdicts": _verdicts(scorer, images, said),
    }


def _coverage(
    context: Context, calibration_scores: Float64, photographs: Images, scores: Float64
) -> list[dict[str, Json]]:
    """Photographs flagged at each promised rate, and the worst source's share: where a promise breaks."""
    ordered, rows = np.sort(calibration_scores), []
    sources = photographs.names
    for alpha in (0.001, 0.01, 0.05, 0.1):
        n = len(ordered)
        p = (1 + n - np.searchsorted(ordered, scores, side="left")) / (n + 1)
        flagged = p <= alpha
        scored = photographs.scored(flagged.astype(np.float64))
        stated = interval(_share, scored, resamples=context.options.resamples)
        shares = {str(name): float(flagged[sources == name].mean()) for name in np.unique(sources)}
        worst = max(shares, key=lambda name: shares[name])
        rows.append(
            {
                "promised": alpha,
                "flagged": rounded(stated.value),
                "interval": stated.ends(),
                "possible": 1 / (n + 1) <= alpha,
                "worst_source": worst,
                "worst": rounded(shares[worst]),
            }
        )
    return rows


def _risk(confidence: Float64, right: NDArray[np.bool_]) -> list[dict[str, Json]]:
    """Errors among the images answered, if the least certain are not: the risk–abstention curve."""
    order = np.argsort(-confidence, kind="stable")
    errors = np.cumsum(~right[order])
    answered = [max(1, round(share * len(order))) for share in np.linspace(0.1, 1.0, 10)]
    return [{"answered": round(n / len(order), 4), "risk": rounded(errors[n - 1] / n)} for n in answered]


def _verdicts(scorer: Scorer, images: Images, said: Said) -> Json:
    """How often each verdict is given to either label, were all of known sources; by its calibration."""
    own = scorer.methods.calibration(scorer.question)
    if own is None:
        return None
    traits = traits_of(images.formats.tolist(), images.sizes)
    known = replace(scorer.question, photographs="known")
    nobody = np.ones(len(said.scores), bool)  # what is of a known source is of a kind that is there
    judged = own.judge(said.scores, said.typical, known, traits=traits, covered=nobody)
    names = np.array([said_of_it.verdict for said_of_it in judged.answers])
    return {
        label: {
            str(name): rounded(float((names[images.fake == fake] == name).mean()))
            for name in np.unique(names)
        }
        for label, fake in (("real", False), ("fake", True))
    }


def _calibration_table(context: Context, found: dict[str, Json]) -> Result:
    said = found["calibration"]
    rows = [
        {"map": kind} | {name: rounded(value) for name, value in values.items()}
        for kind, values in said["maps"].items()
    ]
    lines = [
        f"Promised to flag {100 * row['promised']:g} % of photographs: flagged {_percent(row['flagged'])} "
        f"({_percent(row['interval']['low'])} to {_percent(row['interval']['high'])}), "
        f"worst source {row['worst_source'] or 'unnamed'} {_percent(row['worst'])}"
        + ("." if row["possible"] else " (too few calibration photographs for so small a rate).")
        for row in said["coverage"]
    ] + context.overlap_lines()
    return tabled(context, "calibration", "Calibration", rows, lines, said)


# ---------------------------------------------------------------- quality


def quality(context: Context) -> Plan:
    """Correlations of a quality head's scores with people's opinions."""
    return Plan([("quality", partial(_quality, context))], _quality_table)


def _quality(context: Context) -> Json:
    heads = [f.name for f in context.snapshot.manifest.fitted if (f.kind, f.method) == ("head", QUALITY)]
    if not heads:
        raise UsageError("the index has no quality head", hint="Train one: rd train quality --scores FILE")
    rows, kept = context.changed(())
    opinions = [context.dataset.samples[n].quality for n in kept.tolist()]
    if None in opinions:
        raise UsageError("the set gives no opinions", hint="Use a set with scores: --layout agiqa")
    scorer = Scorer(
        context.snapshot, replace(context.question, method="density", k=None), device=context.device
    )
    head = scorer.methods.head(heads[0])
    predicted = head.decision_function({layer: as_stored(rows.vectors[layer]) for layer in head.layers})
    return {"head": heads[0], "images": len(rows), **asdict(metrics.correlations(predicted, opinions))}


def _quality_table(found: dict[str, Json]) -> Result:
    row = found["quality"]
    return Result("quality", "Quality", tuple(row), (row,))
