"""Rows of tables: means over draws of references, beside their 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_detect.evaluate.context import Json, rounded
from retrieval_detect.evaluate.intervals import Redrawn, averaged, over_draws

BOTH_CHANCES = (
    "low, high: 95 % intervals over images (whole groups; from ten sources on, sources) and over draws of "
    "references"
)


def mean_of(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Json]:
    """Means over seeds, and their range for AUC and recall."""
    mean: dict[str, Json] = {}
    for key in rows[0]:
        values = [value for row in rows if (value := row[key]) is not None]
        mean[key] = round(float(np.mean(values)), 4) if values else None
        if key in ("auroc", "recall") and len(values) > 1:
            mean[f"{key}_range"] = [round(min(values), 4), round(max(values), 4)]
    return mean


def stated(draws: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """Several draws as one: ``row``, means beside their 95 % intervals; ``redrawn``; ``sources``.

    Of each draw, ``row`` : its numbers. ``redrawn`` : of those that have intervals, ``Redrawn.plain`` or
    ``None``. ``sources`` : ``ranges`` of its AUROC.
    """
    redrawn = {}
    for key in draws[0]["redrawn"]:
        known = [Redrawn.of(draw["redrawn"][key]) for draw in draws if draw["redrawn"][key] is not None]
        redrawn[key] = over_draws(known).plain() if len(known) == len(draws) else None
    sources = {
        label: {
            name: round(float(np.mean([draw["sources"][label][name] for draw in draws])), 4) for name in own
        }
        for label, own in draws[0]["sources"].items()
    }
    row = bounded(mean_of([draw["row"] for draw in draws]), redrawn)
    return {"row": row, "redrawn": redrawn, "sources": sources}


def bounded(row: Mapping[str, Json], redrawn: Mapping[str, list[float] | None]) -> dict[str, Json]:
    """A row with the ends of the 95 % interval beside each number that has one."""
    found: dict[str, Json] = {}
    for key, value in row.items():
        found[key] = value
        if key in redrawn:
            plain = redrawn[key]
            ends = (None, None) if plain is None else (Redrawn.of(plain).low, Redrawn.of(plain).high)
            found |= {f"{key}_low": rounded(ends[0]), f"{key}_high": rounded(ends[1])}
    return found


def by_source(rows: Sequence[Mapping[str, Json]], *keys: str) -> dict[str, Json]:
    """AUROC of each source and generator, where too few to be redrawn, for the rows that keys name."""
    found = [{key: row["row"][key] for key in keys} | row["sources"] for row in rows if row["sources"]]
    return {"auroc_by_source": found} if found else {}


def averaged_over(numbers: Sequence[list[float] | None]) -> list[float] | None:
    """The mean of those of several ``Redrawn.plain`` that are known."""
    known = [Redrawn.of(number) for number in numbers if number is not None]
    return averaged(known).plain() if known else None
