"""Files of stored embeddings, and what is said of them."""

from __future__ import annotations

import numpy as np

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.rescore import Rescoring
from retrieval_detect.store.exchange import write_embeddings
from tests.layered import WIDTHS, image

LAYERS = tuple(WIDTHS)


def near_duplicates(of, n, *, seed):
    """Images with the hash of ``of`` and nearly its vectors."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        moved = {
            layer: (x + 0.02 * np.linalg.norm(x) / np.sqrt(len(x)) * rng.normal(size=len(x))).astype(
                np.float32
            )
            for layer, x in of.vectors.items()
        }
        made.append(image(f"{of.item.uri}-copy-{i}", vectors=moved, phash=of.phash))
    return made


def written(path, rows, store, layers=LAYERS):
    write_embeddings(path, rows, spec=store.snapshot().manifest.encoder, layers=layers)
    return path


def rescored(store, path, question, **options):
    return rows_of(Rescoring(Detector(store.snapshot()), question, path, **options))


def rows_of(rescoring):
    return [
        row
        for piece in rescoring.pieces()
        for table, _ in rescoring.tables(piece)
        for row in table.to_pylist()
    ]
