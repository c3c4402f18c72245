"""A bank of a few images of each content category, and nothing else.

Khan and Dang-Nguyen 2024, "CLIPping the Deception", few-shot: 16 photographs and 16 fakes of each of
ProGAN's 20 categories, 640 images, are all there is to learn from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial, reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate import metrics
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, references, tabled
from retrieval_detect.evaluate.datasets import apart
from retrieval_detect.evaluate.intervals import ranges, ranked, right_at_zero
from retrieval_detect.evaluate.newcomers import RD, asked_about, drawn, without
from retrieval_detect.evaluate.rows import BOTH_CHANCES, averaged_over, by_source, stated
from retrieval_detect.evaluate.shortcuts import logistic
from retrieval_detect.evaluate.states import rival_scores, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.intervals import Scored

    Float64: TypeAlias = NDArray[np.float64]

PER_CATEGORY = (1, 2, 4, 8, 16, 32)
"""Of each label; 16 is the paper's."""
PEER = "LogisticRegression"
MEAN = "mean"


def few_shot(context: Context) -> Plan:
    """Indexes of nothing but n photographs and n fakes of every category the index's references state."""
    # All images of the set, if none is a reference.
    asked = context.images.take(asked_about(context)) if context.n_stored else context.images
    pools = _pools(without(context.known, asked))
    most = min(len(pool) for pool in pools.values())
    numbers = [n for n in context.options.numbers or PER_CATEGORY if 0 < n <= most]
    if not numbers:
        raise UsageError(f"a category has {most} references of one label alone", hint="Give smaller --n.")
    steps = [
        (f"{n} a category, draw {seed}", partial(_taught, context, asked, pools, n, seed))
        for n in numbers
        for seed in range(context.options.seeds)
    ]

    def finish(found: dict[str, Json]) -> Result:
        n_categories = len(pools) // 2
        lines = [
            f"n: photographs, and as many fakes, of each of {n_categories} categories: "
            + ", ".join(f"{2 * n * n_categories} references at n = {n}" for n in numbers)
            + f". Means over {context.options.seeds} draws.",
            "acc fixed: at score 0; nothing is set aside from so few.",
            f"{BOTH_CHANCES}.",
        ]
        told = list(_told(list(found.values())))
        rows, detail = [one["row"] for one in told], by_source(told, "generator", "method", "n")
        return tabled(context, "few-shot", "Few references of each category", rows, lines, detail)

    return Plan(steps, finish)


def _pools(known: Images) -> dict[tuple[str, bool], Images]:
    """The references of each category and label, of categories that have both."""
    named = known.take(known.categories != "")
    both = np.intersect1d(named.categories[named.fake], named.categories[~named.fake]).tolist()
    if not both:
        raise UsageError(
            "no category has references of both labels",
            hint="Say what references show when you add them: --fact category=NAME, or --category-folders.",
        )
    return {
        (category, fake): named.take((named.categories == category) & (named.fake == fake))
        for category in both
        for fake in (False, True)
    }


def _taught(
    context: Context, asked: Images, pools: Mapping[tuple[str, bool], Images], n: int, seed: int
) -> Json:
    lessons = [drawn(pool, n, seed) for pool in pools.values()]
    with state_of(context, reduce(Images.joined, lessons)) as state:
        scorer = state.scorer
        bank = references(scorer.snapshot, context.layers, split="bank")
        scores = {RD: scorer.ask(asked).scores, PEER: rival_scores(bank, asked, context.layer, logistic)}
    return {"n": n} | {method: _by_column(context, asked, own) for method, own in scores.items()}


def _by_column(context: Context, asked: Images, scores: Float64) -> dict[str, Json]:
    """For ``stated``: each column that has both labels, and the mean over those of the paper's mean."""
    found: dict[str, Json] = {}
    for name in context.dataset.columns:
        own = asked.column(name)
        if asked.fake[own].any() and not asked.fake[own].all():
            found[name] = _measured(asked.take(own).scored(scores[own]), context.options.resamples)
    counted = [told for name, told in found.items() if name not in apart(context.dataset.name)]
    found[MEAN] = {
        "row": {k: float(np.mean([told["row"][k] for told in counted])) for k in counted[0]["row"]},
        "redrawn": {
            k: averaged_over([told["redrawn"][k] for told in counted]) for k in counted[0]["redrawn"]
        },
        "sources": {},
    }
    return found


def _measured(scored: Scored, resamples: int) -> dict[str, Json]:
    row = metrics.measure(scored.scores, scored.fake)
    redrawn = {"auroc": ranked, "acc_fixed": right_at_zero}
    return {
        "row": {key: row[key] for key in ("auroc", "ap", "acc_fixed")},
        "redrawn": {key: of(scored, resamples=resamples).plain() for key, of in redrawn.items()},
        "sources": ranges(metrics.auroc, scored),
    }


def _told(trials: list[Json]) -> Iterator[dict[str, Json]]:
    """A row a column, method and number: means over draws."""
    for column in trials[0][RD]:
        for n in dict.fromkeys(trial["n"] for trial in trials):
            for method in (RD, PEER):
                one = stated([trial[method][column] for trial in trials if trial["n"] == n])
                yield one | {"row": {"generator": column, "method": method, "n": n} | one["row"]}
