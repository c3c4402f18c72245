"""95 % intervals that know which images belong together.

Near-duplicates are one observation, and so, from ten sources on, are the photographs of one source:
what is said of other cameras must not rest on how many pictures one camera took. Units are redrawn with
Poisson(1) weights, each by its own name (Chamandy et al. 2012, "Estimating uncertainty for massive data
streams", §3), so that whatever columns share a photograph redraw it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    return {
        label: "source"
        if _named(scored.names[scored.fake == (label == "fake")]) >= LEAST_SOURCES
        else "group"
        for label in _KINDS
    }


def _named(names: NDArray[np.str_]) -> int:
    return len(np.unique(names[names != ""]))


# ---------------------------------------------------------------- redrawing


def _values(
    metric: Metric, columns: Mapping[str, Scored], *, resamples: int, seed: int
) -> tuple[list[float], Float64]:
    """Values, and redrawn ones float64 (resamples, columns), NaN where a label is gone."""
    if not columns:
        raise UsageError("there is nothing to measure")
    found = [metric(column.scores, column.fake) for column in columns.values()]
    units, n_units = _numbered([_units(column) for column in columns.values()])
    enough = [_can_be_redrawn(column, own) for column, own in zip(columns.values(), units, strict=True)]
    rng = np.random.default_rng(seed)
    drawn = np.full((resamples, len(columns)), np.nan)
    for row in drawn:
        counts = rng.poisson(1.0, n_units)
        for i, column in enumerate(columns.values()):
            if enough[i]:
                row[i] = _redrawn(metric, column, counts[units[i]])
    return found, drawn


def _redrawn(metric: Metric, column: Scored, counts: Int64) -> float:
    scores, fake = np.repeat(column.scores, counts), np.repeat(column.fake, counts)
    whole = len(np.unique(fake)) == len(np.unique(column.fake))
    return metric(scores, fake) if whole else float("nan")


def _numbered(units: Sequence[NDArray[np.str_]]) -> tuple[list[Int64], int]:
    """Units of several columns as whole numbers, the same for the same unit, and how many there are."""
    unique, numbers = np.unique(np.concatenate(list(units)), return_inverse=True)
    return np.split(numbers, np.cumsum([len(own) for own in units])[:-1]), len(unique)


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
