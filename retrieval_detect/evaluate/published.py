"""Published numbers, shipped as data with their source, to be shown beside one's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from retrieval_detect.errors import UsageError

TABLES = ("ufd", "clipping")
METRICS = ("acc", "ap")
MEAN = "mean"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One row of a paper. ``values`` : metric of ``METRICS`` → column → percent, where known."""

    name: str
    source: str
    values: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A paper's table. ``layout`` : of ``datasets.LAYOUTS``; ``test`` : how it was measured."""

    name: str
    layout: str
    source: str
    test: str
    rows: tuple[PublishedRow, ...]


def published(name: str) -> PublishedTable:
    """The table called ``name``; ``UsageError`` if there is none."""
    if name not in TABLES:
        raise UsageError(f"there are no published numbers {name!r}", hint=f"There are: {', '.join(TABLES)}")
    text = (files("retrieval_detect.evaluate") / "published" / f"{name}.toml").read_text("utf-8")
    data = tomllib.loads(text)
    rows = tuple(
        PublishedRow(
            row["name"],
            row.get("source", data["source"]),
            {metric: row[metric] for metric in METRICS if metric in row},
        )
        for row in data["row"]
    )
    return PublishedTable(name, data["layout"], data["source"], data["test"], rows)


def compared(
    table: PublishedTable, metric: str, ours: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """One row a column: what was published and, below ``difference``, how far ours is from it, in points.

    ``ours`` : name of a method → column → value, 0…1; with ``MEAN`` if a mean is to be compared.
    """
    if metric not in METRICS:
        raise UsageError(f"no {metric!r} is published", hint=f"Metrics: {', '.join(METRICS)}")
    columns = list(dict.fromkeys(column for own in ours.values() for column in own))
    rows = []
    for column in columns:
        percent = {name: 100 * own[column] for name, own in ours.items() if column in own}
        theirs = {row.name: row.values.get(metric, {}).get(column) for row in table.rows}
        rows.append(
            {
                "column": column,
                "metric": metric,
                "ours": percent,
                "published": theirs,
                "difference": {
                    name: {
                        other: round(value - known, 2) for other, known in theirs.items() if known is not None
                    }
                    for name, value in percent.items()
                },
            }
        )
    return rows
