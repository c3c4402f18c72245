"""95 % intervals that know which images belong together.

Near-duplicates are one observation, and so, from ten sources on, are the photographs of one source:
what is said of other cameras must not rest on how many pictures one camera took. Units are redrawn with
Poisson(1) weights, each by its own name (Chamandy et al. 2012, "Estimating uncertainty for massive data
streams", §3), so that whatever columns share a photograph redraw it together.

Where references are drawn by chance, and a threshold is set on photographs put aside, these are sources of
chance as well: see ``over_draws`` and ``thresholded``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.metrics import Metric
    from retrieval_detect.types import Bool, Int64, Label

    Float64: TypeAlias = NDArray[np.float64]

By: TypeAlias = Literal["source", "group"]

LEAST_SOURCES = 10
"""From so many named sources (or generators) of a label on, they are the units that are redrawn."""
RESAMPLES = 1000
LEVEL = 0.95
_KINDS: tuple[Label, Label] = ("real", "fake")
_AT_ONCE = 10_000_000
"""Weights that are worked on at once, for the sake of memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """n images. ``scores`` : float64 (n,), positive = fake. ``fake`` : bool (n,).

    ``groups`` : (n,), whole numbers or text; near-duplicates share one, and the same image has the same
    one in every column. ``names`` : text (n,), source of a photograph, generator of a fake.
    """

    scores: Float64
    fake: Bool
    groups: NDArray[np.generic]
    names: NDArray[np.str_]

    def __post_init__(self) -> None:
        if len({len(self.scores), len(self.fake), len(self.groups), len(self.names)}) != 1:
            raise UsageError("scores, labels, groups and names are not of one length")

    def take(self, chosen: Bool | Int64) -> Scored:
        """Some of the images, by mask or by position (more than once, if need be)."""
        return Scored(self.scores[chosen], self.fake[chosen], self.groups[chosen], self.names[chosen])


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval; ``low`` and ``high`` are NaN where too few units can be redrawn.

    ``by`` : for each label, what was redrawn.
    """

    value: float
    low: float
    high: float
    by: Mapping[Label, By]

    def ends(self) -> dict[str, Any]:
        """``low``, ``high`` and ``by`` as plain JSON types; ``None`` for an end that is not known."""
        low, high = (round(x, 6) if np.isfinite(x) else None for x in (self.low, self.high))
        return {"low": low, "high": high, "by": dict(self.by)}


def interval(metric: Metric, scored: Scored, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of one column."""
    return intervals(metric, {"": scored}, resamples=resamples, seed=seed)[""]


def intervals(
    metric: Metric,
    columns: Mapping[str, Scored],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    mean: str | None = None,
) -> dict[str, Interval]:
    """Intervals of several columns, redrawn jointly.

    ``mean`` : a name under which the mean over all columns is put too: photographs that columns share
    make their errors move together, and its interval must be as wide as that makes it.
    """
    found, drawn = _values(metric, columns, resamples=resamples, seed=seed)
    by = {name: units_of(column) for name, column in columns.items()}
    result = {name: Interval(found[i], *_bounds(drawn[:, i]), by[name]) for i, name in enumerate(columns)}
    if mean is not None:
        together: dict[Label, By] = {
            label: "source" if all(b[label] == "source" for b in by.values()) else "group" for label in _KINDS
        }
        result[mean] = Interval(float(np.mean(found)), *_bounds(drawn.mean(axis=1)), together)
    return result


def difference(
    metric: Metric, new: Scored, old: Scored, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """``new`` less ``old``, paired: the images that both hold are redrawn together."""
    found, drawn = _values(metric, {"new": new, "old": old}, resamples=resamples, seed=seed)
    return Interval(found[0] - found[1], *_bounds(drawn[:, 0] - drawn[:, 1]), units_of(new))


def ranges(metric: Metric, scored: Scored) -> dict[Label, dict[str, float]]:
    """Each source's (or generator's) own value, against all of the other label.

    For labels that have two names or more but fewer than ``LEAST_SOURCES``: too few to redraw, so that the
    least and the greatest must speak for themselves.
    """
    found: dict[Label, dict[str, float]] = {}
    for label in _KINDS:
        own = scored.fake == (label == "fake")
        names = np.unique(scored.names[own]).tolist()
        if 2 <= len(names) < LEAST_SOURCES:
            parts = {name: scored.take(~own | (scored.names == name)) for name in names}
            found[label] = {name: metric(part.scores, part.fake) for name, part in parts.items()}
    return found


def units_of(scored: Scored) -> dict[Label, By]:
    """What is redrawn, for each label."""
    names = {label: scored.names[scored.fake == (label == "fake")] for label in _KINDS}
    named = {label: len(np.unique(own[own != ""])) for label, own in names.items()}
    return {label: "source" if n >= LEAST_SOURCES else "group" for label, n in named.items()}


# ---------------------------------------------------------------- redrawing


def _values(
    metric: Metric, columns: Mapping[str, Scored], *, resamples: int, seed: int
) -> tuple[list[float], Float64]:
    """Values, and redrawn ones float64 (resamples, columns), NaN where a label is gone."""
    if not columns:
        raise UsageError("there is nothing to measure")
    found = [metric(column.scores, column.fake) for column in columns.values()]
    named = [_units(column) for column in columns.values()]
    unique, numbers = np.unique(np.concatenate(named), return_inverse=True)  # the same for the same unit
    units = np.split(numbers, np.cumsum([len(own) for own in named])[:-1])
    enough = [_can_be_redrawn(column, own) for column, own in zip(columns.values(), units, strict=True)]
    rng = np.random.default_rng(seed)
    drawn = np.full((resamples, len(columns)), np.nan)
    for row in drawn:
        counts = rng.poisson(1.0, len(unique))
        for i, column in enumerate(columns.values()):
            if enough[i]:
                row[i] = _redrawn(metric, column, counts[units[i]])
    return found, drawn


def _redrawn(metric: Metric, column: Scored, counts: Int64) -> float:
    scores, fake = np.repeat(column.scores, counts), np.repeat(column.fake, counts)
    whole = len(np.unique(fake)) == len(np.unique(column.fake))
    return metric(scores, fake) if whole else float("nan")


def _can_be_redrawn(column: Scored, units: Int64) -> bool:
    return all(len(np.unique(units[column.fake == fake])) > 1 for fake in np.unique(column.fake))


def _units(scored: Scored) -> NDArray[np.str_]:
    """A name for what each image is redrawn with."""
    by = units_of(scored)
    keys = np.empty(len(scored.fake), dtype=object)
    for label in _KINDS:
        own = np.flatnonzero(scored.fake == (label == "fake"))
        values = scored.names if by[label] == "source" else scored.groups
        for i in own:
            # An image without a name is a source of its own, not of one source with all others.
            unnamed = by[label] == "source" and not values[i]
            kind, value = ("group", scored.groups[i]) if unnamed else (by[label], values[i])
            keys[i] = f"{label}\0{kind}\0{value}"
    return keys.astype(np.str_)


def _bounds(drawn: Float64) -> tuple[float, float]:
    """The middle 95 %."""
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


# ---------------------------------------------------------------- draws of references


@dataclass(frozen=True, slots=True, eq=False)
class Redrawn:
    """A number, and the same in each resample: ``drawn``, float64 (resamples,); (0,) where none can be had.

    In resample r of a seed every unit weighs the same in all that is measured, so that numbers with units in
    common are paired: they may be subtracted, and ``averaged``.
    """

    value: float
    drawn: Float64

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; NaN where too few units can be redrawn."""
        return _bounds(self.drawn)[0]

    @property
    def high(self) -> float:
        """Its upper end."""
        return _bounds(self.drawn)[1]

    def __sub__(self, other: Redrawn) -> Redrawn:
        return Redrawn(self.value - other.value, _paired([self, other], lambda both: both[0] - both[1]))

    def plain(self) -> list[float]:
        """As plain JSON types: the value, then its resamples, to six digits."""
        return [round(x, 6) for x in (self.value, *self.drawn.tolist())]

    @staticmethod
    def of(plain: Sequence[float]) -> Redrawn:
        """What ``plain`` gave."""
        return Redrawn(plain[0], np.array(plain[1:], np.float64))


def averaged(numbers: Sequence[Redrawn]) -> Redrawn:
    """The mean of several numbers of one seed."""
    value = float(np.mean([number.value for number in numbers]))
    return Redrawn(value, _paired(numbers, lambda drawn: np.mean(drawn, axis=0)))


def over_draws(draws: Sequence[Redrawn], *, seed: int = 0) -> Redrawn:
    """The mean over draws of references, each of them one observation of what another draw would give.

    Of D draws, D − 1 are redrawn with replacement: D would make so few seem to agree better than they do
    (McCarthy and Snowden 1985, "The bootstrap and finite population sampling"). One draw stays what it is.
    """
    n = len(draws)
    value = float(np.mean([draw.value for draw in draws]))
    if n == 1:
        return draws[0]

    def chosen(drawn: Float64) -> Float64:
        rng = np.random.default_rng([seed, n])
        shares = rng.multinomial(n - 1, np.full(n, 1 / n), size=drawn.shape[1]) / (n - 1)
        mean: Float64 = (shares.T * drawn).sum(axis=0)
        return mean

    return Redrawn(value, _paired(draws, chosen))


def ranked(scored: Scored, *, resamples: int = RESAMPLES, seed: int = 0) -> Redrawn:
    """AUROC, of one draw of references."""
    return _measured(_weighted_auroc, scored, resamples=resamples, seed=seed)


def right_at_zero(scored: Scored, *, resamples: int = RESAMPLES, seed: int = 0) -> Redrawn:
    """Share of images on the right side of score 0, of one draw of references."""
    return _measured(_weighted_right, scored, resamples=resamples, seed=seed)


def thresholded(
    asked: Sequence[Scored],
    aside: Sequence[Scored],
    *,
    fpr: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Redrawn | None:
    """Recall of the fakes ``asked`` at the threshold that a share ``fpr`` of photographs ``aside`` exceeds.

    One element of either for each draw of references; photographs of the one and fakes of the other are
    passed over. In every resample fakes and photographs (whole groups, or sources) and draws are redrawn,
    and each draw's threshold is set anew: its chance is the recall's, too. ``None`` without a fake, or where
    a draw's photographs are too few for the rate. The threshold is that of ``states.threshold_at``.
    """
    if len(asked) != len(aside):
        raise UsageError(f"{len(asked)} draws are asked about, {len(aside)} have photographs set aside")
    fakes = [own.take(own.fake) for own in asked]
    calm = [own.take(~own.fake) for own in aside]
    few = any(len(own.fake) * fpr < 1 for own in calm)
    if few or not fakes or not all(len(own.fake) for own in fakes):
        return None
    pairs = zip(fakes, calm, strict=True)
    draws = [_recall(*pair, fpr=fpr, resamples=resamples, seed=seed) for pair in pairs]
    return over_draws(draws, seed=seed)


Draws: TypeAlias = tuple[Sequence["Scored"], Sequence["Scored"]]
"""``asked`` and ``aside`` of ``thresholded``: the same images, scored after each draw of references."""


def recall_change(
    before: Draws, after: Draws, *, fpr: float, resamples: int = RESAMPLES, seed: int = 0
) -> Redrawn | None:
    """Recall ``after`` less recall ``before``, each at the threshold of its own time; −1…1.

    Paired: one resample has the same groups of queries, the same groups of photographs set aside and, if
    they are as many, the same draws on both sides (before the first lesson there is but one). A group is
    the same if it bears the same number or name. ``None`` where ``thresholded`` gives it for either.
    """
    new, old = (thresholded(*draws, fpr=fpr, resamples=resamples, seed=seed) for draws in (after, before))
    return None if new is None or old is None else new - old


def _recall(fakes: Scored, calm: Scored, *, fpr: float, resamples: int, seed: int) -> Redrawn:
    weights = [_weights(own, resamples=resamples, seed=seed) for own in (fakes, calm)]
    rows = min(len(own) for own in weights)
    of_fakes, of_calm = (own[:rows] for own in weights)
    flagged = fakes.scores > _thresholds(calm.scores, of_calm, fpr)[:, None]
    shares = np.where(flagged, of_fakes, 0.0).sum(axis=1) / of_fakes.sum(axis=1)
    return Redrawn(float(shares[0]), shares[1:])


def _thresholds(scores: Float64, weights: Float64, fpr: float) -> Float64:
    """For each row of weights the lowest threshold that at most a share ``fpr`` of the weight exceeds."""
    order = np.argsort(-scores)
    above = np.cumsum(weights[:, order], axis=1)
    beyond = above > fpr * above[:, -1:] + 1e-9
    found: Float64 = np.where(beyond.any(axis=1), scores[order][beyond.argmax(axis=1)], -np.inf)
    return found


def _weighted_auroc(scored: Scored, weights: Float64) -> Float64:
    fakes, calm = scored.scores[scored.fake], scored.scores[~scored.fake]
    of_fakes, of_calm = weights[:, scored.fake], weights[:, ~scored.fake]
    order = np.argsort(calm)
    below = np.cumsum(np.pad(of_calm[:, order], ((0, 0), (1, 0))), axis=1)
    beaten = sum(below[:, np.searchsorted(calm[order], fakes, side=side)] for side in ("left", "right")) / 2
    area: Float64 = (beaten * of_fakes).sum(axis=1) / (of_fakes.sum(axis=1) * below[:, -1])
    return area


def _weighted_right(scored: Scored, weights: Float64) -> Float64:
    right: Float64 = weights @ ((scored.scores > 0) == scored.fake) / weights.sum(axis=1)
    return right


def _measured(
    measure: Callable[[Scored, Float64], Float64], scored: Scored, *, resamples: int, seed: int
) -> Redrawn:
    weights = _weights(scored, resamples=resamples, seed=seed)
    n_parts = -(-weights.size // _AT_ONCE)
    values = np.concatenate([measure(scored, part) for part in np.array_split(weights, n_parts)])
    return Redrawn(float(values[0]), values[1:])


def _weights(scored: Scored, *, resamples: int, seed: int) -> Float64:
    """What each image weighs: float64 (1 + resamples, n), 1 in the first row; the only one for lack of units.

    Weights follow from the unit's name alone, so that it weighs the same wherever it is found. They are
    exponential (Rubin 1981, "The Bayesian bootstrap"), not counts: a threshold that few photographs exceed
    would move by whole photographs, and always to the same side.
    """
    units, numbers = np.unique(_units(scored), return_inverse=True)
    if not _can_be_redrawn(scored, numbers):
        return np.ones((1, len(numbers)))
    own = np.ones((1 + resamples, len(units)))
    for i, unit in enumerate(units.tolist()):
        name = int.from_bytes(blake2b(unit.encode(), digest_size=8).digest(), "big")
        own[1:, i] = np.random.default_rng([seed, name]).standard_exponential(resamples)
    weights: Float64 = own[:, numbers]
    return weights


def _paired(numbers: Sequence[Redrawn], combine: Callable[[Float64], Float64]) -> Float64:
    """What becomes of the resamples, float64 (numbers, resamples) → (resamples,); none if one has none."""
    rows = min(len(number.drawn) for number in numbers)
    return combine(np.stack([number.drawn[:rows] for number in numbers]))
