"""Verdicts as a table, a row an image: for data frames, Parquet files and spreadsheets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, overload

import pyarrow as pa

from retrieval_detect.errors import UsageError
from retrieval_detect.types import Failure
from retrieval_detect.verdicts import Verdict

_TYPES = {
    **dict.fromkeys(("input", "verdict", "reason", "reach"), pa.string()),
    **dict.fromkeys(("score", "log10_lr", "p_real", "p_new", "p_fake", "p_typical"), pa.float64()),
    **dict.fromkeys(("votes_fake", "votes_of"), pa.int64()),
    **dict.fromkeys(("best_fake", "best_real", "coverage"), pa.float64()),
    "top_generator": pa.string(),
    **dict.fromkeys(("stable", "regions", "regions_p_max"), pa.float64()),
    **dict.fromkeys(("verdict_beside", "sha256", "index"), pa.string()),
    "generation": pa.int64(),
    **dict.fromkeys(("warnings", "error"), pa.string()),
}
SCHEMA = pa.schema(list(_TYPES.items()))
COLUMNS = tuple(_TYPES)
"""A row an image: the few values people sort and filter by. What is not known is null: of a failure all but
``input`` and ``error``, p-values and ratios without a calibration."""


class Verdicts(Sequence[Verdict | Failure]):
    """What came of several images, in their order: a ``Verdict`` each, or a ``Failure``."""

    def __init__(self, results: Iterable[Verdict | Failure]) -> None:
        self._results = tuple(results)

    @overload
    def __getitem__(self, at: int) -> Verdict | Failure: ...
    @overload
    def __getitem__(self, at: slice) -> Verdicts: ...
    def __getitem__(self, at: int | slice) -> Verdict | Failure | Verdicts:
        return Verdicts(self._results[at]) if isinstance(at, slice) else self._results[at]

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        kinds = Counter("failed" if isinstance(r, Failure) else r.verdict for r in self)
        counts = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common())
        return f"<{len(self):,} image{'s' * (len(self) != 1)}{': ' * bool(counts)}{counts}>"

    def to_arrow(self) -> pa.Table:
        """A table of ``SCHEMA``, a row an image, failures among them: row i is of image i."""
        return pa.Table.from_pylist([row_of(result) for result in self], SCHEMA)

    def to_pandas(self) -> Any:
        """``to_arrow`` as a ``pandas.DataFrame``; ``UsageError`` where pandas is not installed."""
        try:
            return self.to_arrow().to_pandas()
        except ImportError as error:
            raise UsageError(
                "pandas is not installed", hint="pip install pandas; to_arrow() does without it."
            ) from error


def row_of(result: Verdict | Failure) -> dict[str, Any]:
    """One image: all of ``COLUMNS``, plain values; either ``error`` is empty, or all but ``input`` besides.

    ``top_generator`` : of the nearest fakes, by its share of the density, or of those that the head asked
    tells apart; the true tool may be absent.
    ``coverage`` : the mean similarity of the nearest photographs, see ``Verdict.coverage``.
    ``verdict_beside`` : that with photographs laid beside. ``stable`` : the share of re-encodings that
    agree. ``regions`` : the crops' scores, pooled.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    if isinstance(result, Failure):
        return row | {"input": result.uri, "error": f"{result.reason}: {result.message}"}
    row |= {
        "input": result.input,
        "verdict": result.verdict,
        "score": round(result.score, 6),
        "reason": result.reason,
        "reach": result.reach,
        **{f"p_{name}": p if p is None else round(p, 6) for name, p in (result.p_values or {}).items()},
        "votes_fake": result.votes.fake,
        "votes_of": result.votes.of,
        "best_fake": round(result.nearest["fake"], 6),
        "best_real": round(result.nearest["real"], 6),
        "top_generator": result.attribution[0].generator,
        "sha256": result.sha256,
        "index": result.index.name,
        "generation": result.index.generation,
        "warnings": "; ".join(result.warnings),
    }
    if result.log10_lr is not None:
        row["log10_lr"] = round(result.log10_lr, 4)
    if result.coverage is not None:
        row["coverage"] = round(result.coverage["similarity"], 6)
    if result.beside is not None:
        row["verdict_beside"] = result.beside.verdict
    if stability := result.stability:
        row["stable"] = round(stability.agree / max(stability.of, 1), 4)
    if regions := result.regions:
        row["regions"] = round(regions.score, 6)
        row["regions_p_max"] = None if regions.p_max is None else round(regions.p_max, 6)
    return row
