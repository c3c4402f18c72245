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
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import stored_rows
from retrieval_detect.teach.coverage import nearest_mean
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Float32, Float64, Int64
    from retrieval_detect.vectors import Rows

CLOSE, CLOSE_PART = 0.85, 0.65
"""A generator is apart where its closeness is less; a part of one, which is tighter, below the second.

Measured on five generators with two encoders (``bench.coverage``): with photographs of what it shows a
generator has 1.2 or more, and 0.56 to 0.73 without them, of ten images as of three hundred; parts have 0.7 or
more, and 0.57 or less. Painted fantasy, which no camera takes, has 0.6."""
MENDED_BY = 15
"""Photographs of the subject, of any source, that mend most of it."""
_EXAMPLES = 3
_LEAST, _LEAST_PART = 10, 20
"""Images of a generator, and of a part of one, that this can be said of."""
_MOST = 500
"""Images of one generator that are looked at."""
_IN_A_PART, _MOST_PARTS = 40, 8
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Apart:
    """One generator, or a part of one.

    ``images`` : different ones, of the ``of`` that were looked at. ``closeness`` : how much nearer the nine
    nearest photographs are than any are, as a share of how much nearer its images are to one another: 1, as
    near as these; 0, no nearer than any. ``nearest`` : source → how many of the photographs nearest to its
    images are of it. ``examples`` : names of its most typical images, as far as they are known.
    """

    generator: str
    images: int
    of: int
    closeness: float
    nearest: Mapping[str, int]
    examples: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def generators_apart(
    rows: Rows,
    layer: str,
    *,
    only: Collection[str] | None = None,
    uris: Sequence[str] = (),
    close: float = CLOSE,
) -> list[Apart]:
    """Those of ``rows``, with unit vectors of ``layer``, that have no photographs near, the farthest first.

    Where the whole of one has, a part of it may have none. ``only`` : of these generators. ``uris`` : of all
    rows, to name examples by. Groups of near-duplicates count once; views are left out.
    """
    at = np.flatnonzero(rows.views == ORIGINAL_VIEW)
    photographs = rows.take(at[~rows.fake[at]])
    if len(photographs) < NEAREST:
        return []
    found = []
    for name in sorted(set(rows.names[rows.fake].tolist()) if only is None else set(only)):
        mine = at[rows.fake[at] & (rows.names[at] == name)]
        first = mine[np.sort(np.unique(rows.groups[mine], return_index=True)[1])]
        chosen = first[:: -(-len(first) // _MOST)] if len(first) >= _LEAST else first[:0]
        if len(chosen):
            shown = _Shown.of(rows.vectors[layer][chosen], photographs, layer)
            for part in shown.parts(close):
                central = chosen[part[shown.central(part)]][:_EXAMPLES].tolist()
                examples = tuple(uris[i].rpartition("/")[2] for i in central) if len(uris) else ()
                closeness, nearest = shown.closeness(part), shown.nearest(part)
                found.append(Apart(name, len(part), len(chosen), closeness, nearest, examples))
    return sorted(found, key=lambda one: one.closeness)


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What n images of one generator show, unit norm (n, d), and how photographs lie to it.

    ``to_nearest`` : the mean cosine of each with its nine nearest photographs; ``to_any`` : with all of them;
    ``sources`` : of the nearest one.
    """

    images: Float32
    to_nearest: Float64
    to_any: Float64
    sources: NDArray[np.str_]

    @classmethod
    def of(cls, images: Float32, photographs: Rows, layer: str) -> _Shown:
        x = photographs.vectors[layer]
        blocks = [images[start : start + _AT_ONCE] @ x.T for start in range(0, len(images), _AT_ONCE)]
        parts = [
            (nearest_mean(cosines, NEAREST), cosines.mean(axis=1, dtype=np.float64), cosines.argmax(axis=1))
            for cosines in blocks
        ]
        to_nearest, to_any, first = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(images, to_nearest, to_any, photographs.names[first])

    def closeness(self, part: Int64) -> float:
        """See ``Apart``; inf of images that are no more alike than they are like any photograph.

        Likeness among its images is the mean over all pairs, which does not depend on how many there are;
        that of the nearest does, and of sixty images would be too low.
        """
        x, n = self.images[part].astype(np.float64), len(part)
        among = (np.square(x.sum(axis=0)).sum() - np.square(x).sum()) / (n * (n - 1))
        any_ = self.to_any[part].mean()
        return float((self.to_nearest[part].mean() - any_) / (among - any_)) if among > any_ else np.inf

    def parts(self, close: float) -> Iterator[Int64]:
        """The whole, or the clusters of it, with less closeness; positions."""
        whole = np.arange(len(self.images))
        n_parts = min(len(whole) // _IN_A_PART, _MOST_PARTS)
        if self.closeness(whole) < close:
            yield whole
        elif n_parts > 1:
            from sklearn.cluster import KMeans

            cluster = KMeans(n_parts, n_init=1, random_state=0).fit_predict(self.images)
            parts = (np.flatnonzero(cluster == number) for number in range(n_parts))
            yield from (p for p in parts if len(p) >= _LEAST_PART and self.closeness(p) < CLOSE_PART)

    def central(self, part: Int64) -> Int64:
        """Positions within a part, the most typical first."""
        x = self.images[part]
        return np.argsort(-(x @ x.sum(axis=0)), kind="stable")

    def nearest(self, part: Int64) -> dict[str, int]:
        """Source → how many of a part are nearest to a photograph of it, the most first."""
        return dict(Counter(self.sources[part].tolist()).most_common())


def apart_in(snapshot: Snapshot, generators: Collection[str]) -> list[Apart]:
    """The same of some generators of an index, compared with all its photographs."""
    if not generators:
        return []
    layer = grouping_layer(snapshot.manifest.layers)
    uris = snapshot.scan(["uri"])["uri"].to_pylist()
    return generators_apart(stored_rows(snapshot, (layer,)), layer, only=generators, uris=uris)
