"""The banks in two dimensions, for people to look at. Nothing is judged by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import numpy as np

from retrieval_detect.ask.fitted import read_projection
from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.search.projection import query_codes, row_codes
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.search.projection import Projection
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Float32, Int64

MapMethod: TypeAlias = Literal["pca", "tsne", "umap"]
MAP_METHODS: tuple[MapMethod, ...] = get_args(MapMethod)
MOST = 5000
"""References that are drawn, at most."""
_NEIGHBOURS = 10
_INNER = 50
"""Principal components that t-SNE starts from: van der Maaten and Hinton 2008, §4."""
_SEED = 0


class _Placer(Protocol):
    def transform(self, x: Float32, /) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """n references of both banks in two dimensions.

    ``row_ids`` : int64 (n,); ``places`` : float32 (n, 2), 0…1; ``codes`` : float32 (n, d), unit norm, as
    banks search them. ``fake`` : bool (n,); ``generators``, ``sources`` : text (n,), empty where not known.
    ``total`` : how many references there are to draw from. ``placer`` : places others in the same way,
    where the method can (``low``, ``spread`` : float32 (2,), what is mapped to 0…1).
    """

    method: MapMethod
    row_ids: Int64
    places: Float32
    codes: Float32
    fake: Bool
    generators: NDArray[np.str_]
    sources: NDArray[np.str_]
    total: int
    projection: Projection
    placer: _Placer | None
    low: Float32
    spread: Float32

    def place(self, vectors: Mapping[str, Float32]) -> tuple[float, float]:
        """Where an image lies: by the map's own rule, or at the mean of its nearest here.

        ``vectors`` : layer → float32 (d,), as the network gave them. The mean is weighted by similarity.
        """
        side_by_side = np.concatenate([vectors[layer] for layer in self.projection.layers])[None, :]
        code = query_codes(side_by_side, self.projection).astype(np.float32)
        if self.placer is not None:
            return self._inside(self.placer.transform(code)[0])
        similarities = (self.codes @ code[0]).astype(np.float64)
        nearest = np.argsort(-similarities, kind="stable")[:_NEIGHBOURS]
        return _mean(self.places[nearest], similarities[nearest])

    def place_among(
        self, snapshot: Snapshot, row_ids: Sequence[int], similarities: Sequence[float]
    ) -> tuple[float, float] | None:
        """The mean of some references' places, weighted by similarity; ``None`` where none has a place."""
        if self.placer is not None:
            found = self.placer.transform(_codes(snapshot, row_ids, self.projection))
            return _mean(np.array([self._inside(point) for point in found]), np.array(similarities))
        at = {row_id: position for position, row_id in enumerate(self.row_ids.tolist())}
        known = [(at[r], s) for r, s in zip(row_ids, similarities, strict=True) if r in at]
        if not known:
            return None
        positions, weights = zip(*known, strict=True)
        return _mean(self.places[list(positions)], np.array(weights))

    def _inside(self, point: Float32) -> tuple[float, float]:
        x, y = np.clip((point - self.low) / self.spread, 0, 1).tolist()
        return float(x), float(y)


def draw(snapshot: Snapshot, *, method: MapMethod = "pca", at_most: int = MOST) -> Atlas:
    """Place references of both banks in two dimensions, by the vectors that banks search.

    PCA: Pearson 1901; t-SNE: van der Maaten and Hinton 2008; UMAP: McInnes and others 2018. The same
    references give the same map. Of more than ``at_most``, every generator and source gives the same
    number, as far as it has them. Views are left out. Raises ``EmptyBank``, and ``UsageError`` where the
    package for UMAP is missing.
    """
    table = snapshot.scan(["row_id", "label", "generator", "source", "view"], split="bank")
    rows = [row for row in table.to_pylist() if row["view"] == ORIGINAL_VIEW]
    if len(rows) < 3:
        raise EmptyBank("a map needs three references at least", hint="Add some: rd bank add")
    chosen = [rows[i] for i in _drawn([(r["label"], _name(r)) for r in rows], at_most)]
    row_ids = np.array([row["row_id"] for row in chosen], np.int64)
    projection = read_projection(snapshot)
    codes = _codes(snapshot, row_ids.tolist(), projection)
    flat, placer = _flattened(codes, method)
    low = flat.min(axis=0)
    spread = np.maximum(flat.max(axis=0) - low, 1e-9)
    return Atlas(
        method=method,
        row_ids=row_ids,
        places=((flat - low) / spread).astype(np.float32),
        codes=codes,
        fake=np.array([row["label"] == "fake" for row in chosen]),
        generators=np.array([row["generator"] for row in chosen]),
        sources=np.array([row["source"] for row in chosen]),
        total=len(rows),
        projection=projection,
        placer=placer,
        low=low,
        spread=spread,
    )


def _name(row: Mapping[str, Any]) -> str:
    return str(row["generator"] if row["label"] == "fake" else row["source"])


def _drawn(names: Sequence[tuple[str, str]], at_most: int) -> list[int]:
    """Positions of at most so many, in order: the first of every name, then the second of every name, …"""
    if len(names) <= at_most:
        return list(range(len(names)))
    rng = np.random.default_rng(_SEED)
    _, of = np.unique([f"{label}/{name}" for label, name in names], return_inverse=True)
    turn = np.empty(len(names), np.int64)
    for name in range(of.max() + 1):
        members = np.flatnonzero(of == name)
        turn[rng.permutation(members)] = np.arange(len(members))
    order = np.lexsort((rng.random(len(names)), turn))
    return sorted(order[:at_most].tolist())


def _codes(snapshot: Snapshot, row_ids: Sequence[int], projection: Projection) -> Float32:
    """References as banks search them, float32 (n, d), unit norm."""
    stored = [snapshot.gather(row_ids, layer) for layer in projection.layers]
    return row_codes(np.concatenate(stored, axis=1).astype(np.float16), projection).astype(np.float32)


def _flattened(codes: Float32, method: MapMethod) -> tuple[Float32, _Placer | None]:
    """Two dimensions, float32 (n, 2), and what places others among them."""
    from sklearn.decomposition import PCA

    if method == "pca":
        pca = PCA(2, random_state=_SEED, svd_solver="randomized" if len(codes) > 500 else "full")
        return pca.fit_transform(codes).astype(np.float32), pca
    if method == "tsne":
        from sklearn.manifold import TSNE

        inner = PCA(min(_INNER, *codes.shape), random_state=_SEED).fit_transform(codes)
        perplexity = min(30.0, (len(codes) - 1) / 3)
        flat = TSNE(2, perplexity=perplexity, init="pca", random_state=_SEED).fit_transform(inner)
        return flat.astype(np.float32), None
    return _umap(codes)


def _umap(codes: Float32) -> tuple[Float32, _Placer | None]:
    try:
        umap: Any = import_module("umap")  # nobody has to have it
    except ImportError as error:
        raise UsageError(
            "a map by UMAP needs a package that is not here",
            hint="pip install umap-learn, or choose --method tsne or pca.",
        ) from error
    mapper = umap.UMAP(n_components=2, metric="cosine", random_state=_SEED, n_jobs=1)
    return mapper.fit_transform(codes).astype(np.float32), mapper


def _mean(places: Float32 | NDArray[np.float64], similarities: NDArray[np.float64]) -> tuple[float, float]:
    weights = np.maximum(similarities, 1e-6)
    x, y = (np.asarray(places, np.float64) * (weights / weights.sum())[:, None]).sum(axis=0).tolist()
    return float(x), float(y)
