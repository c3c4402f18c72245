"""What old generators keep while others are learnt, and on whose photographs: ``python -m bench.kept``.

Each source of photographs in turn is in no bank. The banks begin with all references of one generator, and
learn a few of each other. README.md says what the columns are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._contest import Contest, Entry, HeadEntry, VoteEntry
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
from bench._nested import Fold, World
from retrieval_detect.encoders.base import default_layers
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.scoring.metrics import recall_at_fpr
from retrieval_detect.teach.again import DEFAULT_T, default_reads

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    Scores = NDArray[np.float64]
    Mask = NDArray[np.bool_]

TAUGHT = 20
"""References of each generator that is learnt."""
GIVEN = (0, 15)
"""Photographs of the source left out that the real bank is given all the same."""
FPR = 0.05
SPLITS = range(1)
RD, REGRESSION = "rd", "logistic regression, retrained"
_BY = {"known": "known", "left_out": "left out", "together": "together"}
"""Whose photographs set the threshold: of known sources, of the one left out, both."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("kept", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("kept", options, lambda: rounded(measure(options)), table, indent=None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run; one split where it is only tried."""
    clock = Clock()
    head = about("kept", command=command_of("kept", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    encoder = load_encoder(name)
    given = embedded(encoder, data=options.data, images=options.images, say=clock.say)
    with workplace() as work:
        world = World.of(given, work)
    layers, directions = default_reads(encoder.spec, default_layers(encoder.spec))
    how = {"content": "within", "directions": directions}
    entries: tuple[Entry, ...] = (
        VoteEntry(RD, layers, "nullspace", temperature=DEFAULT_T, options=how),
        HeadEntry(REGRESSION, LinearHead),
    )
    fake, names = world.rows.fake, world.rows.names
    sources = sorted(set(names[~fake].tolist()))
    generators = [g for g in ORDER if g in set(names[fake].tolist())]
    rows: list[dict[str, Any]] = []
    for source, split in product(sources, SPLITS[: 1 if options.images else None]):
        clock.say(f"{name}, without {source}, split {split + 1}")
        for first in range(len(generators)):
            order = generators[first:] + generators[:first]
            rows += _one_by_one(world, entries, order, source, split)
    return {"encoder": name, "images": len(world.rows), "rows": rows}


# ---------------------------------------------------------------- one order, one source


def _one_by_one(
    world: World, entries: Sequence[Entry], order: Sequence[str], source: str, split: int
) -> Iterator[dict[str, Any]]:
    """With the first generator alone, and once all are learnt."""
    fake, names = world.rows.fake, world.rows.names
    chance = np.random.default_rng(split)
    groups, of_row = np.unique(world.rows.groups, return_inverse=True)
    asked = (chance.random(len(groups)) < 0.5)[of_row]
    bank = ~asked & ~world.calib
    known = bank & (fake & (names == order[0]) | ~fake & (names != source))
    learnt = known.copy()
    for name in order[1:]:
        learnt |= _drawn(bank & fake & (names == name), TAUGHT, chance)
    beside = {n: _drawn(bank & ~fake & (names == source), n, chance) for n in GIVEN}
    nobody = np.zeros(len(asked), bool)
    for n, (generators, references) in product(GIVEN, ((1, known), (len(order), learnt))):
        fold = Fold(order[0], source, split, references | beside[n], nobody, nobody, asked, nobody)
        contest = Contest(world, fold)
        what = {"source": source, "first": order[0], "split": split, "given": n, "generators": generators}
        for entry in entries:
            scores = contest.scores(entry, fold.known, asked)
            yield {**what, "method": entry.name, **_quality(scores, fake[asked], names[asked], order, source)}


def _drawn(pool: Mask, n: int, chance: np.random.Generator) -> Mask:
    drawn = np.zeros_like(pool)
    drawn[chance.permutation(np.flatnonzero(pool))[:n]] = True
    return drawn


def _quality(
    scores: Scores, fake: Mask, names: NDArray[np.str_], order: Sequence[str], source: str
) -> dict[str, float]:
    """Recall of the first generator and of those learnt, by whose photographs set the threshold."""
    elsewhere = ~fake & (names == source)
    photographs = {"known": ~fake & ~elsewhere, "left_out": elsewhere, "together": ~fake}
    fakes = {"first": fake & (names == order[0]), "later": fake & np.isin(names, order[1:])}
    found = {
        f"{which}_{by}": recall_at_fpr(scores[own], scores[photographs[by]], fpr=FPR)
        for which, own in fakes.items()
        for by in _BY
    }
    threshold = np.quantile(scores[photographs["known"]], 1 - FPR)
    return found | {"flagged": float((scores[elsewhere] > threshold).mean())}


# ---------------------------------------------------------------- table


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    found = by_encoder(result)
    rows = beside(found, _rows)
    images = " and ".join(f"{n:,}" for n in dict.fromkeys(one["images"] for one in found))
    head = f"{told(found)}, {images} images; {origin(result)}."
    return f"{head}\n\n{markdown_table(list(rows[0]), [list(row.values()) for row in rows])}"


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    last = max(row["generators"] for row in found["rows"])
    for method, given in product((RD, REGRESSION), GIVEN):
        own = [r for r in found["rows"] if (r["method"], r["given"]) == (method, given)]
        before, after = ([r for r in own if r["generators"] == n] for n in (1, last))
        first = {by: (_mean(before, f"first_{by}"), _mean(after, f"first_{by}")) for by in _BY}
        recalls = {f"the first, {said}": " → ".join(first[by]) for by, said in _BY.items()}
        later = {f"learnt, {said}": _mean(after, f"later_{by}") for by, said in _BY.items()}
        yield {
            "method": method,
            "photographs of it": str(given),
            **recalls,
            **later,
            "flagged": f"{_mean(before, 'flagged')} → {_mean(after, 'flagged')}",
            "worst": _worst(after),
        }


def _mean(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    return f"{100 * np.mean([row[what] for row in rows]):.0f} %"


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    """The source of which most is flagged once all are learnt."""
    shares = {
        source: np.mean([row["flagged"] for row in rows if row["source"] == source])
        for source in {row["source"] for row in rows}
    }
    worst = max(shares, key=lambda source: shares[source])
    return f"{worst} {100 * shares[worst]:.0f} %"


if __name__ == "__main__":
    main()
