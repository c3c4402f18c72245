"""Protocols that leave references out or teach new ones: hold-out, few-shot, bank size.

Nobody who learns ever has an image that is asked about: half of a set's images teach, by a hash of their
group, the other half is asked about, and references among the latter are left out of every index made here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, references, rounded, tabled
from retrieval_detect.evaluate.intervals import Scored, interval, ranges, ranked, thresholded
from retrieval_detect.evaluate.metrics import auroc, curves, mean_curves
from retrieval_detect.evaluate.rows import BOTH_CHANCES, averaged_over, bounded, by_source, mean_of, stated
from retrieval_detect.evaluate.shortcuts import logistic
from retrieval_detect.evaluate.states import State, neutral, rival_scores, state_of, threshold_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Bool

    Float64: TypeAlias = NDArray[np.float64]

NUMBERS = (0, 1, 5, 10, 20, 50, 100)
BANK_SIZES = (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000)
RD, RETRAINED = "rd", "LogisticRegression, retrained"


# ---------------------------------------------------------------- who teaches, who is asked


def asked_about(context: Context) -> Bool:
    """Which images are asked about: photographs that are no references, and half of all others."""
    images = context.images
    first = images.content_ids[images.groups]
    half = np.array([identity[0] % 2 == 0 for identity in first], bool)
    stored = np.isin(images.content_ids, context.known.content_ids)
    asked: Bool = half | (~images.fake & ~stored)
    return asked


def drawn(pool: Images, n: int, seed: int) -> Images:
    """``n`` images drawn by chance."""
    return pool.take(np.random.default_rng(seed).permutation(len(pool))[:n])


def without(images: Images, others: Images) -> Images:
    """Images that are none of the others."""
    return images.take(~np.isin(images.content_ids, others.content_ids))


def seeds_of(context: Context, n: int) -> range:
    """Seeds of the draws of n images: nothing can be drawn in one way only."""
    return range(context.options.seeds if n else 1)


def percent(context: Context) -> str:
    """The rate at which recall is stated, for people."""
    return f"{100 * context.options.fpr:g} %"


def threshold_of(context: Context, scores: Float64, fake: Bool) -> float | None:
    """From the photographs that a state has set aside; ``None`` if they are too few for the rate."""
    photographs = scores[~fake]
    return (
        threshold_at(photographs, context.options.fpr)
        if len(photographs) * context.options.fpr >= 1
        else None
    )


# ---------------------------------------------------------------- hold-out


def holdout(context: Context) -> Plan:
    """Each generator's family and, in turn, each source left out of the index's own references."""
    known = context.known
    families = _families(known)
    sources = sorted(set(known.names[~known.fake].tolist()))
    if len(set(families[known.fake].tolist())) < 2 or len(sources) < 2:
        raise UsageError(
            "leaving one out takes two generators and two sources of photographs",
            hint="Name them by sub-folders when you build: --real photos/ --fake generated/",
        )
    folds = [
        (family, sources[(number + seed) % len(sources)])
        for seed in range(min(context.options.seeds, len(sources)))
        for number, family in enumerate(sorted(set(families[known.fake].tolist())))
    ]
    steps = [
        (f"{family} with {source}", partial(_held_out, context, family, source)) for family, source in folds
    ]
    return Plan(steps, partial(_holdout_table, context))


def _families(images: Images) -> NDArray[np.str_]:
    """A generator without a family is one by itself."""
    return np.where(images.families == "", images.names, images.families)


def _held_out(context: Context, family: str, source: str) -> Json:
    known = context.known
    out = np.where(known.fake, _families(known) == family, known.names == source)
    asked = known.take(out)
    with state_of(context, known.take(~out)) as state:
        scorer = state.scorer
        scores, aside = scorer.ask(asked).scores, scorer.set_aside(context.layers)
        bank = references(scorer.snapshot, context.layers, split="bank")
    row: dict[str, Json] = {"left out": family, "with source": source, "fakes": int(asked.fake.sum())}
    row["photographs"] = int((~asked.fake).sum())
    ends = interval(auroc, asked.scored(scores), resamples=context.options.resamples)
    row |= {"auroc": round(ends.value, 4), "auroc_low": rounded(ends.low), "auroc_high": rounded(ends.high)}
    if aside is not None:
        threshold = neutral(aside[1].scores, aside[0].fake)
        flagged = scores > threshold
        row |= {
            "recall_calibrated": round(float(flagged[asked.fake].mean()), 4),
            "fpr_calibrated": round(float(flagged[~asked.fake].mean()), 4),
        }
    rival = rival_scores(bank, asked, context.layer, logistic)
    if aside is not None:  # photographs of sources that are known, which nobody has learnt from
        known_photographs = aside[0].take(~aside[0].fake)
        calm = rival_scores(bank, known_photographs, context.layer, logistic)
        row |= {
            "auroc_known_sources": _against(scores[asked.fake], aside[1].scores[~aside[0].fake]),
            "LogisticRegression_auroc_known_sources": _against(rival[asked.fake], calm),
        }
    row["LogisticRegression_auroc"] = _against(rival[asked.fake], rival[~asked.fake])
    ranked_by = {"rd": scores, "LogisticRegression": rival}
    return row | {"curves": {name: mean_curves([curves(x, asked.fake)]) for name, x in ranked_by.items()}}


def _against(fakes: Float64, photographs: Float64) -> float:
    labels = np.arange(len(fakes) + len(photographs)) < len(fakes)
    return round(auroc(np.concatenate([fakes, photographs]), labels), 4)


def _holdout_table(context: Context, found: dict[str, Json]) -> Result:
    rows = [{key: value for key, value in row.items() if key != "curves"} for row in found.values()]
    mean = mean_of([{k: v for k, v in row.items() if isinstance(v, float)} for row in rows])
    for name in ("auroc_range", "auroc_low", "auroc_high"):
        mean.pop(name, None)
    line = (
        "auroc: fakes against photographs that were left out with them, so that content, too, tells them "
        "apart; auroc known sources: against the photographs set aside of all other sources."
    )
    rows.append({"left out": "mean", **mean})
    worth = {"rd": mean["auroc"], "LogisticRegression": mean["LogisticRegression_auroc"]}
    means = {
        name: mean_curves([row["curves"][name] for row in found.values()]) | {"auroc": value}
        for name, value in worth.items()
    }
    return tabled(context, "holdout", "Hold-out", rows, [line], {"curves": means})


# ---------------------------------------------------------------- few-shot


def few_shot(context: Context) -> Plan:
    """Each generator of the set unknown at first, then taught with a few of its images."""
    fakes = context.images.take(context.images.fake)
    names = sorted(set(fakes.names.tolist()))
    steps = [(name or "unnamed", partial(_few_shot_of, context, name)) for name in names]

    def finish(found: dict[str, Json]) -> Result:
        told = [one for own in found.values() for one in own]
        rows = [one["row"] for one in told]
        lines = [
            f"recall: at a threshold that flags {percent(context)} of the photographs set aside.",
            "n references are added; of 25 or more rd sets a fifth aside, as always.",
            f"{BOTH_CHANCES}; of recall, over the photographs set aside as well.",
            "mean: of these generators, and its interval of no others.",
            *unstated(rows),
        ]
        detail = by_source(told, "generator", "method", "n")
        rows += _over(told)
        return tabled(context, "few-shot", "Few references of a new generator", rows, lines, detail)

    return Plan(steps, finish)


def unstated(rows: Sequence[dict[str, Json]]) -> list[str]:
    """Why there is no recall, if there is none."""
    if any(row.get("recall") is not None for row in rows):
        return []
    return ["No recall is stated: too few photographs are set aside to know such a rate."]


def _over(told: Sequence[Mapping[str, Json]]) -> Iterator[dict[str, Json]]:
    """Means over generators, of those numbers that all of them have."""
    generators = {one["row"]["generator"] for one in told}
    for method, n in dict.fromkeys((one["row"]["method"], one["row"]["n"]) for one in told):
        own = [one for one in told if (one["row"]["method"], one["row"]["n"]) == (method, n)]
        if len(own) == len(generators) > 1:
            mean = mean_of([{k: one["row"][k] for k in ("auroc", "recall", "fpr")} for one in own])
            mean = {k: v for k, v in mean.items() if not k.endswith("_range")}
            redrawn = {
                key: averaged_over([one["redrawn"][key] for one in own]) for key in ("auroc", "recall")
            }
            yield {"generator": "mean", "method": method, "n": n} | bounded(mean, redrawn)


def _few_shot_of(context: Context, name: str) -> Json:
    images, asked = context.images, asked_about(context)
    own = images.fake & (images.names == name)
    queries = images.take(asked & (own | ~images.fake)).once()
    pool = images.take(own & ~asked).once()
    if not len(pool) or not (queries.fake.any() and (~queries.fake).any()):
        return []
    known = without(without(context.known, queries), pool)
    known = known.take(~(known.fake & (known.names == name)))
    told: list[dict[str, Json]] = []
    numbers = [n for n in context.options.numbers or NUMBERS if n <= len(pool)]
    with state_of(context, known) as base:
        for n in numbers:
            trials = [_trial(context, base, drawn(pool, n, seed), queries) for seed in seeds_of(context, n)]
            for method in (RD, RETRAINED):
                one = stated([trial[method] for trial in trials])
                told.append(one | {"row": {"generator": name, "method": method, "n": n} | one["row"]})
    return told


def _trial(context: Context, base: State, lesson: Images, queries: Images) -> dict[str, dict[str, Json]]:
    """What each method makes of one draw, for ``stated``."""
    with base.taught(lesson) as state:
        scores, _, aside = both_asked(context, state, queries)
    fpr, resamples = context.options.fpr, context.options.resamples
    found = {}
    for method, (own, calib) in scores.items():
        asked = queries.scored(own)
        recall = thresholded([asked], [_set_aside(aside, calib)], fpr=fpr, resamples=resamples)
        found[method] = {
            "row": judged(own, queries.fake, threshold_of(context, calib, aside.fake)),
            "redrawn": {
                "auroc": ranked(asked, resamples=resamples).plain(),
                "recall": None if recall is None else recall.plain(),
            },
            "sources": ranges(auroc, asked),
        }
    return found


def both_asked(
    context: Context, state: State, queries: Images
) -> tuple[dict[str, tuple[Float64, Float64]], Images, Images]:
    """By rd and by a regression trained again: scores of queries and of the rows set aside.

    Beside them the rows that vote, and those set aside.
    """
    scorer = state.scorer
    aside = references(scorer.snapshot, context.layers, split="calib")
    bank = references(scorer.snapshot, context.layers, split="bank")
    calib = scorer.ask(aside).scores if len(aside) else np.empty(0)
    by_regression = regression(context, bank, queries, aside)
    return {RD: (scorer.ask(queries).scores, calib), RETRAINED: by_regression}, bank, aside


def _set_aside(images: Images, scores: Float64) -> Scored:
    """With groups named for the least of their images: the same in every index, as their numbers are not."""
    least: dict[int, str] = {}
    identities = [identity.hex() for identity in images.content_ids]
    for group, identity in zip(images.groups.tolist(), identities, strict=True):
        least[group] = min(identity, least.get(group, identity))
    groups = np.array([least[group] for group in images.groups.tolist()], np.str_)
    return Scored(scores, images.fake, groups, images.names)


def regression(context: Context, bank: Images, queries: Images, aside: Images) -> tuple[Float64, Float64]:
    """Logistic regression's scores of queries and of the rows set aside."""
    both = rival_scores(bank, queries.joined(aside), context.layer, logistic)
    return both[: len(queries)], both[len(queries) :]


def judged(scores: Float64, fake: Bool, threshold: float | None) -> dict[str, float | None]:
    """AUC, and recall and false alarms at a threshold."""
    row: dict[str, float | None] = {"auroc": auroc(scores, fake), "recall": None, "fpr": None}
    if threshold is not None:
        row |= {"recall": float((scores[fake] > threshold).mean())}
        row |= {"fpr": float((scores[~fake] > threshold).mean())}
    return row


# ---------------------------------------------------------------- bank size


def bank_size(context: Context) -> Plan:
    """Banks of so many references each, drawn by chance: what size buys."""
    known = without(context.known, context.images.take(asked_about(context)))
    largest = min(int(known.fake.sum()), int((~known.fake).sum()))
    sizes = [n for n in context.options.numbers or BANK_SIZES if 1 < n < largest]
    cases = [(n, seed) for n in sizes for seed in range(context.options.seeds)]
    steps = [(f"{n} a bank, {seed}", partial(_sized, context, known, n, seed)) for n, seed in cases]
    steps.append((f"{largest} a bank", partial(_sized, context, known, largest, 0)))
    dimensions = sum(context.snapshot.manifest.encoder.layers[layer] for layer in context.layers)

    def finish(found: dict[str, Json]) -> Result:
        by_size: dict[int, list[Json]] = {}
        for draw in found.values():
            by_size.setdefault(draw["n"], []).append(draw)
        told = []
        for n, own in by_size.items():
            # Of both labels, two bytes a number.
            facts = {"n": n, "draws": len(own), "vectors_bytes": 2 * 2 * n * dimensions}
            told.append((one := stated(own)) | {"row": facts | one["row"]})
        rows, lines = [one["row"] for one in told], ["n: references of each label.", f"{BOTH_CHANCES}."]
        return tabled(context, "bank-size", "Size of the banks", rows, lines, by_source(told, "n"))

    return Plan(steps, finish)


def _sized(context: Context, known: Images, n: int, seed: int) -> Json:
    parts = [drawn(known.take(known.fake == fake), n, seed) for fake in (False, True)]
    queries = context.images.take(asked_about(context)).once()
    with state_of(context, parts[0].joined(parts[1])) as state:
        scorer = state.scorer
        started_s = time.perf_counter()
        scores = scorer.ask(queries).scores
        seconds = time.perf_counter() - started_s
    asked = queries.scored(scores)
    redrawn = {"auroc": ranked(asked, resamples=context.options.resamples).plain()}
    row = {"auroc": auroc(scores, queries.fake), "seconds_a_query": seconds / len(queries)}
    return {"n": n, "row": row, "redrawn": redrawn, "sources": ranges(auroc, asked)}
