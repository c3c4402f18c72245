"""How much of each bank the density vote counts: ``python -m bench.share``.

The weights of a bank sum to one, but k neighbours are much of a small bank and little of a large one.
Compared are k of each bank, the same share of the references, the same share of the weight (what rd does)
and whole banks. Embeds each image once; README.md says what the protocol is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._data import ORDER, add_data, embedded, encoders_of, workplace
from bench._frame import (
    Clock,
    about,
    beside,
    by_encoder,
    carry_out,
    command_of,
    markdown_table,
    origin,
    parser_of,
    rounded,
    told,
)
from bench._machine import commit
from bench._nested import INNER_N, SEEDS, Fold, World, inner_folds, nearest, outer_folds
from retrieval_detect.encoders.base import default_layers
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.metrics import auroc, tpr_at_fpr
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.scoring.metrics import recall_at_fpr
from retrieval_detect.scoring.vote import DEFAULT_K, densities
from retrieval_detect.teach.again import default_reads

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from retrieval_detect.scoring.neighbours import NearestImages

    Scores = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Reads = tuple[tuple[str, ...], int]
    """Layers, and directions of content removed."""

K = DEFAULT_K["density"]
TEMPERATURES = (0.1, 0.2)
TAUGHT = 5
"""References of the next generator, and of the one held out where flags are counted."""
SPLITS = range(4)
EVERY, ONE = "every generator", "one generator"
_MARKS = {EVERY: "", ONE: ", `1`"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("share", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("share", options, lambda: rounded(measure(options)), table, indent=None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run; one seed and one split where it is only tried."""
    clock = Clock()
    head = about("share", command=command_of("share", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    encoder = load_encoder(name)
    reads = default_reads(encoder.spec, default_layers(encoder.spec))
    given = embedded(encoder, data=options.data, images=options.images, say=clock.say)
    with workplace() as work:
        world = World.of(given, work)
    seeds, splits = (SEEDS[:1], SPLITS[:1]) if options.images else (SEEDS, SPLITS)
    inner: list[dict[str, Any]] = []
    stages: list[dict[str, Any]] = []
    outer = list(outer_folds(world, seeds))
    for number, fold in enumerate(outer):
        clock.say(f"within fold {number + 1} of {len(outer)}")
        every = list(inner_folds(world, fold))
        one = [_with_one(world, inside, number) for inside in every]
        inner += _quality(world, reads, every, {"fold": number, "known": EVERY})
        inner += _quality(world, reads, one, {"fold": number, "known": ONE})
    for seed in splits:
        clock.say(f"one by one, split {seed + 1}")
        for fold in _stages(world, seed):
            stages += _kept(world, reads, fold)
    return {"encoder": name, "images": len(world.rows), "inner": inner, "stages": stages}


# ---------------------------------------------------------------- what is counted


def _k_of_each(fake: NearestImages, real: NearestImages, temperature: float) -> Scores:
    return _density(fake.first(K), temperature) - _density(real.first(K), temperature)


def _share_of_references(fake: NearestImages, real: NearestImages, temperature: float) -> Scores:
    sizes = [bank.similarities.shape[1] for bank in (fake, real)]
    share = min(1.0, K / max(sizes))
    n_fake, n_real = (max(1, round(share * size)) for size in sizes)
    return _density(fake.first(n_fake), temperature) - _density(real.first(n_real), temperature)


def _share_of_weight(fake: NearestImages, real: NearestImages, temperature: float) -> Scores:
    d_fake, d_real = densities(fake.first(K), real.first(K), temperature)
    return d_fake - d_real


def _whole(fake: NearestImages, real: NearestImages, temperature: float) -> Scores:
    return _density(fake, temperature) - _density(real, temperature)


def _density(near: NearestImages, temperature: float) -> Scores:
    """Log of all terms, float64 (q,)."""
    terms: Scores = np.logaddexp.reduce(near.similarities / temperature + near.log_weights, axis=1)
    return terms


COUNTED: Mapping[str, Callable[[NearestImages, NearestImages, float], Scores]] = {
    f"{K} of each bank": _k_of_each,
    "the same share of the references": _share_of_references,
    "the same share of the weight": _share_of_weight,
    "whole banks": _whole,
}


# ---------------------------------------------------------------- scores of a fold


def _scores(
    world: World, reads: Reads, fold: Fold, numbers: Sequence[int]
) -> Iterator[tuple[int, str, float, Scores]]:
    """The fold's queries scored once n of the family are known: n, what is counted, T, float64 (q,)."""
    fake = world.rows.fake
    for n in numbers:
        taught = fold.taught(n)
        z = _projected(world, reads, taught)
        real, found = (nearest(world, z, taught & (fake == label), fold.queries) for label in (False, True))
        for counted, score in COUNTED.items():
            for temperature in TEMPERATURES:
                yield n, counted, temperature, score(found, real, temperature)


def _projected(world: World, reads: Reads, known: Mask) -> NDArray[np.float32]:
    """All vectors through what an index of ``known`` would search through, rounded as banks store them."""
    layers, directions = reads
    rows = world.rows.take(known)
    fitted = fit_projection("nullspace", rows, layers=layers, content="within", directions=directions)
    vectors = np.concatenate([world.rows.vectors[layer] for layer in layers], axis=1)
    return fitted.apply(vectors).astype(np.float16).astype(np.float32)


# ---------------------------------------------------------------- a generator held out


def _with_one(world: World, fold: Fold, number: int) -> Fold:
    """The fold with a single generator among its references, another one for each ``number``."""
    fake, names = world.rows.fake, world.rows.names
    generators = sorted(set(names[fold.known & fake].tolist()))
    one = generators[number % len(generators)]
    return replace(fold, known=fold.known & (~fake | (names == one)))


def _quality(
    world: World, reads: Reads, folds: Sequence[Fold], about: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Means over ``folds``, by number known, what is counted, and temperature."""
    found = defaultdict(list)
    for fold in folds:
        fake = world.rows.fake[fold.queries]
        for n, counted, temperature, scores in _scores(world, reads, fold, INNER_N):
            flagged = (scores > 0)[~fake].mean(), (scores > 0)[fake].mean()
            found[n, counted, temperature].append(
                (auroc(scores, fake), tpr_at_fpr(scores, fake, fpr=0.05), *flagged)
            )
    for (n, counted, temperature), values in found.items():
        means = zip(("auc", "recall", "flagged", "found"), np.mean(values, axis=0).tolist(), strict=True)
        yield {**about, "n": n, "counted": counted, "temperature": temperature, **dict(means)}


# ---------------------------------------------------------------- generators one by one


def _stages(world: World, seed: int) -> Iterator[Fold]:
    """Each generator but the first as the next to be learnt; the same half of all groups is asked about."""
    fake, names = world.rows.fake, world.rows.names
    groups, of_row = np.unique(world.rows.groups, return_inverse=True)
    asked = (np.random.default_rng(seed).random(len(groups)) < 0.5)[of_row]
    bank, nobody = ~asked & ~world.calib, np.zeros(len(asked), bool)
    found = set(names[fake].tolist())
    order = [name for name in ORDER if name in found]
    order += sorted(found - set(order))
    for number, new in enumerate(order[1:], 1):
        known = bank & (~fake | np.isin(names, order[:number]))
        yield Fold(new, "", seed, known, nobody, bank & (names == new), asked, nobody)


def _kept(world: World, reads: Reads, fold: Fold) -> Iterator[dict[str, Any]]:
    """Recall of each generator known before, without and with references of the next, thresholds set anew."""
    fake, names = world.rows.fake[fold.queries], world.rows.names[fold.queries]
    old = sorted(set(world.rows.names[fold.known & world.rows.fake].tolist()))
    recalls = defaultdict(list)
    for _, counted, temperature, scores in _scores(world, reads, fold, (0, TAUGHT)):
        for name in old:
            recall = recall_at_fpr(scores[fake & (names == name)], scores[~fake], fpr=0.05)
            recalls[name, counted, temperature].append(recall)
    about = {"new": fold.family, "split": fold.seed}
    for (name, counted, temperature), (before, after) in recalls.items():
        what = {"old": name, "counted": counted, "temperature": temperature}
        yield {**about, **what, "before": before, "after": after}


# ---------------------------------------------------------------- table


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    found = by_encoder(result)
    rows = beside(found, lambda one: [_row(one, what, t) for what in COUNTED for t in TEMPERATURES])
    images = " and ".join(f"{n:,}" for n in dict.fromkeys(one["images"] for one in found))
    head = f"{told(found)}, {images} images; {origin(result)}."
    return f"{head}\n\n{markdown_table(list(rows[0]), [list(row.values()) for row in rows])}"


def _row(found: Mapping[str, Any], counted: str, temperature: float) -> dict[str, str]:
    own = {
        part: [r for r in found[part] if (r["counted"], r["temperature"]) == (counted, temperature)]
        for part in ("inner", "stages")
    }

    def mean(known: str, measure: str, numbers: Sequence[int]) -> float:
        chosen = [row for row in own["inner"] if row["known"] == known and row["n"] in numbers]
        return float(np.mean([row[measure] for row in chosen]))

    change = 100 * np.mean([row["after"] - row["before"] for row in own["stages"]])
    return {
        "counted": counted,
        "T": f"{temperature:g}".lstrip("0"),
        **{f"AUC{mark}": f"{mean(k, 'auc', INNER_N):.3f}".lstrip("0") for k, mark in _MARKS.items()},
        **{f"flagged{mark}": f"{100 * mean(k, 'flagged', (TAUGHT,)):.0f} %" for k, mark in _MARKS.items()},
        "old generators": f"{change:+.1f}".replace("-", "−"),
    }


if __name__ == "__main__":
    main()
