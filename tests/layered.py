"""Stores of several layers, made up: what an image is shows in each of them, otherwise in each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retrieval_detect.store.append import NewRow
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.types import Embedded, Facts, ImageItem
from tests.factories import digest, spec

WIDTHS = {"proj": 24, "pre": 16, "block01": 12, "heads01": 12}
EACH = 60
FAKES, PHOTOGRAPHS = ("flux", "sdxl", "gan"), ("camera", "phone", "press")


def image(name, *, fake=False, vectors=None, phash=None):
    """One image; its vectors follow from its name, whose first part is its kind."""
    rng, kind = (_rng(text) for text in (name, name.rpartition("-")[0]))
    drawn = {}
    for layer, d in WIDTHS.items():
        x = rng.normal(size=d) + 0.8 * kind.normal(size=d)
        x[0] += 2.0 * fake
        drawn[layer] = (rng.uniform(5, 15) * x).astype(np.float32)
    hashed = int(rng.integers(0, 2**63)) * 2 + 1 if phash is None else phash
    item = ImageItem(f"{name}.png", bytes)
    return Embedded(item, digest(name), hashed, 64, 48, "PNG", drawn | (vectors or {}))


def images(kind, n, *, fake=False, since=0):
    return [image(f"{kind}-{i}", fake=fake) for i in range(since, since + n)]


def _rng(text):
    return np.random.default_rng(int.from_bytes(digest(text)[:8], "big"))


def add(store, found, label, name="", review=None):
    named = {"generator" if label == "fake" else "source": name}
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(found)
        rows = [NewRow(one.content_id, one.item.uri, Facts(label, **named)) for one in found]
        return writer.add(
            Addition(rows), staging, review=None if review is None else lambda new: review(writer, new)
        )


def empty(folder, *, is_clip=False, **encoder):
    made = replace(spec(**encoder), layers=WIDTHS, is_clip=is_clip)
    rng = np.random.default_rng(0)
    return Store.create(
        folder, made, canaries={n: rng.normal(size=(16, d)).astype(np.float32) for n, d in WIDTHS.items()}
    )


def layered(folder, *, each=EACH, fakes=FAKES, photographs=PHOTOGRAPHS, **encoder):
    """A store of ``each`` images of every name."""
    store = empty(folder, **encoder)
    for name in photographs:
        add(store, images(name, each), "real", name)
    for name in fakes:
        add(store, images(name, each, fake=True), "fake", name)
    return store
