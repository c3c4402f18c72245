"""References made up for fitting: what is known of each, and vectors in which it shows."""

from __future__ import annotations

import numpy as np

from retrieval_detect.vectors import Rows


def rows_of(vectors, names, *, groups=None, categories=None):
    """``vectors`` : layer → (n, d), any norm. ``names`` : generators start with ``g``, sources with ``s``."""
    names = np.asarray(names, dtype=str)
    n = len(names)
    norms = {layer: np.linalg.norm(x, axis=1).astype(np.float32) for layer, x in vectors.items()}
    return Rows.of(
        vectors={layer: (x / norms[layer][:, None]).astype(np.float32) for layer, x in vectors.items()},
        norms=norms,
        fake=np.char.startswith(names, "g"),
        names=names,
        groups=np.arange(n) if groups is None else np.asarray(groups),
        row_ids=np.arange(n) + 100,
        categories=np.full(n, "") if categories is None else np.asarray(categories, dtype=str),
    )


def names_of(*, generators=3, sources=3, each=12):
    return np.repeat([*(f"g{i}" for i in range(generators)), *(f"s{i}" for i in range(sources))], each)


def made_up(*, seed=0, d=10, signal=3.0, content=2.0, layers=("proj",), **counts):
    """Coordinate 0 tells fakes, 1 and 2 what an image shows; every generator and source has its own taste."""
    rng = np.random.default_rng(seed)
    names = names_of(**counts)
    fake = np.char.startswith(names, "g")
    _, code = np.unique(names, return_inverse=True)
    vectors = {}
    for layer in layers:
        x = rng.normal(size=(len(names), d))
        x[:, 0] += signal * fake
        x[:, 1:3] += content * rng.normal(size=(code.max() + 1, 2))[code]
        vectors[layer] = x
    return rows_of(vectors, names)


def applied(projection, rows):
    return projection.apply(np.concatenate([rows.vectors[layer] for layer in projection.layers], axis=1))
