"""Does p_new keep to its rate? Simulated, sources drawn at random, banks and projection fitted in every draw.

``python -m bench.new_sources``. Two thousand draws for each number of sources; seven minutes on idle cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._frame import Clock, about, carry_out, markdown_table, origin, parser_of, rounded
from bench._machine import commit
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.scoring.neighbours import NearestImages
from retrieval_detect.scoring.new_sources import MOST_FOLDS, LeftOut, NewSources
from retrieval_detect.scoring.vote import vote
from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.vectors import Rows, unit

if TYPE_CHECKING:
    import argparse

    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32, Float64

SOURCES, ALPHAS = (9, 19, 40), (0.2, 0.1, 0.05)
DRAWS, QUICK = 2000, 20
_D, _OF_SOURCE, _ASIDE = 16, 8, 4
"""Dimensions; photographs of a source in the bank, and set aside."""
_GENERATORS, _TEMPERATURE = 4, 0.1
_LAYER = "proj"
_SPREADS = {"alike": 0.15, "apart": 0.45}
"""How far sources lie from one another, beside what lies between photographs of one (0.35)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, write the JSON, print the table."""
    parser = parser_of("new_sources", __doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} draws; no number counts.")
    options = parser.parse_args(arguments)
    carry_out("new_sources", options, lambda: rounded(measure(options)), tables)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rates of one run."""
    clock, draws = Clock(), QUICK if options.quick else DRAWS
    head = about("new_sources", command="python -m bench.new_sources", git_commit=commit())
    rows = []
    for spread, n_sources in ((spread, n) for spread in _SPREADS for n in SOURCES):
        clock.say(f"{n_sources} sources, {spread}")
        p = np.array(
            [
                _drawn(np.random.default_rng([seed, n_sources]), n_sources, _SPREADS[spread])
                for seed in range(draws)
            ]
        )
        rows += list(_rates(p, spread, n_sources))
    return {**head, "draws": draws, "rows": rows, "elapsed_s": clock.elapsed_s}


def _rates(p: Float64, spread: str, n_sources: int) -> Iterator[dict[str, Any]]:
    """``p`` : float64 (draws, 4): known source; new source by p_known, jackknife, jackknife+."""
    for alpha in ALPHAS:
        rates, error = (p <= alpha).mean(axis=0), np.sqrt(alpha * (1 - alpha) / len(p))
        names = ("known", "new_as_known", "jackknife", "jackknife_plus")
        yield {
            "sources": n_sources,
            "spread": spread,
            "alpha": alpha,
            "possible": 1 / (n_sources + 1) <= alpha,
            "four_errors": 4 * error,
            **dict(zip(names, rates.tolist(), strict=True)),
        }


# ---------------------------------------------------------------- one draw


@dataclass(frozen=True, eq=False)
class _World:
    """Photographs of many sources and images of some generators; the last source is new."""

    photographs: Float32
    source: np.ndarray
    fakes: Float32
    generator: np.ndarray


def _drawn(rng: np.random.Generator, n_sources: int, spread: float) -> tuple[float, float, float, float]:
    world = _world(rng, n_sources, spread)
    place = np.tile(np.arange(_OF_SOURCE + _ASIDE), n_sources + 1)
    known, bank = world.source < n_sources, place < _OF_SOURCE
    judge = _Judge(world, known & bank)
    aside = np.sort(judge(world.photographs[known & ~bank]))
    new, usual = world.photographs[~known][:1], world.photographs[known & ~bank]
    score = judge(new)
    others = np.sort(judge(usual[1:]))
    left_out, beside = {}, []
    folds = np.arange(n_sources) % MOST_FOLDS
    for fold in range(min(MOST_FOLDS, n_sources)):
        gone = np.flatnonzero(folds == fold)
        without = _Judge(world, known & bank & ~np.isin(world.source, gone))
        again = without(new)[0]
        for source in gone.tolist():
            scores = np.sort(without(world.photographs[world.source == source]))
            left_out[str(source)] = LeftOut(scores)
            beside.append(float(np.mean(scores >= again)))
    jackknife = NewSources(left_out).p(score)
    assert jackknife is not None
    plus = (1 + sum(beside)) / (n_sources + 1)
    return (
        float(at_least(others, judge(usual[:1]))[0]),
        float(at_least(aside, score)[0]),
        float(jackknife[0]),
        plus,
    )


def _world(rng: np.random.Generator, n_sources: int, spread: float) -> _World:
    axis = np.eye(_D, dtype=np.float32)[0]
    n = _OF_SOURCE + _ASIDE

    def images(n_names: int, centre: Float32) -> tuple[Float32, np.ndarray]:
        means = centre + spread * rng.normal(size=(n_names, 1, _D))
        x = (means + 0.35 * rng.normal(size=(n_names, n, _D))).reshape(-1, _D).astype(np.float32)
        return unit(x), np.repeat(np.arange(n_names), n)

    photographs, source = images(n_sources + 1, axis)
    fakes, generator = images(_GENERATORS, 0.6 * axis + 0.8 * np.eye(_D, dtype=np.float32)[1])
    return _World(photographs, source, fakes, generator)


class _Judge:
    """The density vote over some photographs and all fakes, through rd's own default projection."""

    def __init__(self, world: _World, chosen: np.ndarray) -> None:
        x = np.concatenate([world.photographs[chosen], world.fakes])
        fake = np.arange(len(x)) >= int(chosen.sum())
        names = np.concatenate([world.source[chosen], world.generator]).astype(str)
        rows = Rows.of(
            vectors={_LAYER: x}, norms={_LAYER: np.ones(len(x), np.float32)}, fake=fake, names=names
        )
        self._map: Affine = fit_projection(
            "nullspace", rows, layers=(_LAYER,), content="within", directions=2
        )
        z = self._map.apply(x)
        self._banks = [
            (z[of], reference_weights(names[of], np.arange(int(of.sum())))) for of in (fake, ~fake)
        ]

    def __call__(self, photographs: Float32) -> Float64:
        """Scores, float64 (q,), positive = fake."""
        z = self._map.apply(photographs)
        near = [_nearest(z, *bank) for bank in self._banks]
        return vote(near[0], near[1], temperature=_TEMPERATURE).scores


def _nearest(z: Float32, bank: Float32, weights: Float64) -> NearestImages:
    found = (z @ bank.T).astype(np.float64)
    order = np.argsort(-found, axis=1, kind="stable")
    nothing = np.zeros_like(order)
    return NearestImages(
        np.take_along_axis(found, order, 1),
        weights[order],
        nothing,
        nothing,
        np.full(len(z), len(bank)),
        len(bank),
    )


# ---------------------------------------------------------------- what is shown


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    head = ["sources", "they lie", "asked for", "known source", "new, by p_known", "jackknife", "jackknife+"]
    rows = []
    for row in result["rows"]:
        cells = [
            f"{100 * row[name]:.1f} %" for name in ("known", "new_as_known", "jackknife", "jackknife_plus")
        ]
        if not row["possible"]:
            cells[2:] = ["none can be so small"] * 2
        rows.append([row["sources"], row["spread"], f"{100 * row['alpha']:.0f} %", *cells])
    error = max(row["four_errors"] for row in result["rows"])
    return "\n\n".join(
        [
            f"Simulated vectors, no encoder: {result['draws']:,} draws each, banks and projection fitted in "
            f"every one; four standard errors are {100 * error:.1f} points at most. {origin(result)}.",
            markdown_table(head, rows),
        ]
    )


if __name__ == "__main__":
    main()
