"""Generators whose subject no photograph shows: photographs of it would look like that generator.

By the stored vectors of the encoder's own last layer, in which images of one subject lie together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.scoring.coverage import NEAREST
from retrieval_detect.scoring.new_sources import MOST_ROWS
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import stored_rows
from retrieval_detect.teach.coverage import nearest_mean
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from collections.abc import Collection

    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Float32
    from retrieval_detect.vectors import Rows

FARTHER = 2.5
"""A generator is apart where photographs lie so many times as far from its images as these from each other.

Measured: ``bench.coverage``. With photographs of the subject among the references it is 1.9 at most,
without them 2.8 and more; with fifteen of them 2.4."""
MENDED_BY = 15
"""Photographs of the subject, of any source, that bring it below that."""
_NO_DISTANCE = 1e-6
_LEAST = 2 * NEAREST
"""Images of a generator that this can be said of."""


@dataclass(frozen=True, slots=True)
class Apart:
    """One generator. ``farther`` : how many times as far photographs are as its own images, see ``FARTHER``.

    ``images`` : it has. ``nearest`` : source → how many of the photographs nearest to its images are of it.
    """

    generator: str
    images: int
    farther: float
    nearest: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def generators_apart(
    rows: Rows, layer: str, *, only: Collection[str] | None = None, at_least: float = FARTHER
) -> list[Apart]:
    """Those of ``rows``, with unit vectors of ``layer``, that have no photographs near, the farthest first.

    ``only`` : of these generators. Groups of near-duplicates count once; views are left out.
    """
    rows = rows.take(rows.views == ORIGINAL_VIEW)
    photographs = rows.take(~rows.fake)
    found = []
    for name in sorted(set(rows.names[rows.fake].tolist())):
        mine = np.flatnonzero(rows.fake & (rows.names == name))
        first = np.sort(mine[np.unique(rows.groups[mine], return_index=True)[1]])
        if (only is not None and name not in only) or min(len(first), len(photographs)) < _LEAST:
            continue
        farther, nearest = _farther(rows.vectors[layer][first], photographs, layer)
        if farther >= at_least:
            found.append(Apart(name, len(mine), farther, nearest))
    return sorted(found, key=lambda one: -one.farther)


def _farther(images: Float32, photographs: Rows, layer: str) -> tuple[float, dict[str, int]]:
    """How many times as far photographs are as the images from each other; and of which sources they are.

    Asked of ``MOST_ROWS`` images at most.
    """
    step = -(-len(images) // MOST_ROWS)
    own, others = images[::step] @ images.T, images[::step] @ photographs.vectors[layer].T
    own[np.arange(len(own)), np.arange(0, len(images), step)] = -np.inf
    to_photographs, to_own = (
        float(np.median(1 - nearest_mean(cosines, NEAREST))) for cosines in (others, own)
    )
    sources = Counter(photographs.names[others.argmax(axis=1)].tolist())
    return to_photographs / max(to_own, _NO_DISTANCE), dict(sources.most_common())


def apart_in(snapshot: Snapshot, generators: Collection[str]) -> list[Apart]:
    """The same of some generators of an index."""
    layer = grouping_layer(snapshot.manifest.layers)
    return generators_apart(stored_rows(snapshot, (layer,)), layer, only=generators)
