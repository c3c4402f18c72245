"""Fitting how near the real bank usually is: every source asked about as if it were not there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.fitted import COVERAGE
from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.coverage import NEAREST, Coverage
from retrieval_detect.scoring.new_sources import MOST_ROWS
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import stored_rows
from retrieval_detect.teach.fitted import write
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retrieval_detect.store.manifest import FittedRecord
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Float32, Float64, Split
    from retrieval_detect.vectors import Rows


def fit_coverage(snapshot: Snapshot) -> Coverage:
    """How similar photographs of each source are to their nearest of the others in the real bank.

    Of each source ``MOST_ROWS`` photographs at most, of those set aside and of the bank alike; their own
    groups have no part. Raises ``UsageError`` where there are fewer than two sources.
    """
    layer = grouping_layer(snapshot.manifest.layers)
    bank, aside = (_photographs(snapshot, layer, split) for split in ("bank", "calib"))
    if len(set(bank.names.tolist())) < 2:
        raise UsageError("how near the real bank usually is takes two sources to tell, and there is one")
    everything = bank.followed_by(aside)
    left_out = {}
    for name in sorted(set(everything.names.tolist())):
        mine = np.flatnonzero(everything.names == name)
        asked = everything.take(mine[:: -(-len(mine) // MOST_ROWS)])
        left_out[name] = np.sort(_nearness(asked, bank.take(bank.names != name), layer))
    return Coverage.of(layer, left_out)


def _photographs(snapshot: Snapshot, layer: str, split: Split) -> Rows:
    rows = stored_rows(snapshot, (layer,), split=split)
    return rows.take(~rows.fake & (rows.views == ORIGINAL_VIEW))


def _nearness(asked: Rows, bank: Rows, layer: str) -> Float64:
    """The mean similarity of each row with its nearest, float64 (q,); -1 where only its own group is left."""
    cosines = asked.vectors[layer] @ bank.vectors[layer].T
    cosines[asked.groups[:, None] == bank.groups] = -np.inf
    return nearest_mean(cosines, NEAREST)


def nearest_mean(cosines: Float32, k: int) -> Float64:
    """The mean of the k largest of each row of float32 (q, n), float64 (q,); -inf does not count."""
    k = min(k, cosines.shape[1])
    nearest = np.sort(np.partition(cosines, -k, axis=1)[:, -k:].astype(np.float64))
    there = nearest > -np.inf
    total, n = np.where(there, nearest, 0.0).sum(axis=1), there.sum(axis=1)
    mean: Float64 = np.where(n, total / np.maximum(n, 1), -1.0)
    return mean


def coverage_to_fit(writer: Writer, to_be: Snapshot) -> Iterator[Callable[[], FittedRecord]]:
    """What fits it for the generation to be, if it can be and there is none of these very photographs."""
    old = to_be.fitted(COVERAGE.name, grouping_layer(to_be.manifest.layers))
    possible = sum(s.label == "real" and s.bank > 0 for s in to_be.manifest.strata) > 1
    if possible and (old is None or old.rows_digest != to_be.rows_digest(COVERAGE.strata)):
        yield partial(_written, writer, to_be)


def _written(writer: Writer, to_be: Snapshot) -> FittedRecord:
    found, rows = fit_coverage(to_be), (to_be.rows_digest(COVERAGE.strata), COVERAGE.strata)
    return write(writer, COVERAGE, found.layer, found, method="nearest", rows=rows)
