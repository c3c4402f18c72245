"""Made-up references for tests of heads: vectors whose label and generator can be learnt."""

from __future__ import annotations

import numpy as np

from retrieval_detect.vectors import Rows


def training_set(
    *,
    dims: dict[str, int],
    names: dict[str, tuple[bool, int]] | None = None,
    apart: float = 1.0,
    norm: float = 10.0,
    seed: int = 0,
) -> Rows:
    """References by names: name → (fake, how many).

    In every layer, labels lie ``apart`` from one another along one direction, and each name half as far
    along one of its own; the rest is noise of length one. A layer of width 1 holds scores instead.
    """
    names = names or {f"g{i}": (True, 20) for i in range(3)} | {f"s{i}": (False, 20) for i in range(3)}
    rng = np.random.default_rng(seed)
    fake = np.array([is_fake for is_fake, n in names.values() for _ in range(n)])
    name = np.array([text for text, (_, n) in names.items() for _ in range(n)])
    vectors, norms = {}, {}
    for layer, d in dims.items():
        if d == 1:
            scores = rng.normal(size=len(fake)) + np.where(fake, apart, -apart)
            vectors[layer] = scores[:, None].astype(np.float32)
            norms[layer] = np.ones(len(fake), np.float32)
            continue
        x = rng.normal(size=(len(fake), d)) / np.sqrt(d) + unit(rng.normal(size=d))
        x += np.where(fake, apart / 2, -apart / 2)[:, None] * unit(rng.normal(size=d))
        for one in names:
            x[name == one] += apart / 2 * unit(rng.normal(size=d))
        vectors[layer] = unit(x).astype(np.float32)
        norms[layer] = (norm * rng.uniform(0.9, 1.1, len(fake))).astype(np.float32)
    return Rows.of(vectors=vectors, norms=norms, fake=fake, names=name, row_ids=np.arange(len(fake)) + 100)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def encoded(rows: Rows) -> dict[str, np.ndarray]:
    """The rows' vectors as a head is asked about them."""
    return {layer: rows.as_encoded(layer) for layer in rows.vectors}
