"""Hypothesis strategies that several test files share, and how they are run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from retrieval_detect.search.exact import ShardVectors
from retrieval_detect.search.projection import Identity
from retrieval_detect.vectors import unit
from tests.votes import BankNeighbours

QUICK = settings(derandomize=True, deadline=None, max_examples=60)
"""The same examples on every machine, so that a red test is red everywhere."""


@dataclass(frozen=True)
class SearchCase:
    """Rows in shards, some of them dead, and queries; full of equal and nearly equal rows."""

    vectors: np.ndarray
    row_ids: np.ndarray
    shard_of: np.ndarray
    dead: np.ndarray
    queries: np.ndarray
    k: int

    @cached_property
    def projection(self):
        return Identity("proj", self.vectors.shape[1])

    def shards(self, shard_of=None):
        shard_of = self.shard_of if shard_of is None else shard_of
        return [
            ShardVectors(f"s{number}", self.row_ids[shard_of == number], self.vectors[shard_of == number])
            for number in np.unique(shard_of)
        ]


@st.composite
def search_cases(draw):
    """Directions are few and repeat, so most cuts fall among ties; some differ by one float16 step."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    d, n = draw(st.sampled_from([2, 3, 16, 33])), draw(st.integers(1, 120))
    pool = rng.normal(size=(draw(st.integers(1, 40)), d)).astype(np.float32)
    vectors = unit(pool[rng.integers(0, len(pool), n)]).astype(np.float16)
    nudged = rng.random(n) < draw(st.sampled_from([0, 0.3]))
    vectors[nudged, 0] = np.nextafter(vectors[nudged, 0], np.float16(0))
    dead = rng.random(n) < draw(st.sampled_from([0, 0.2, 0.9]))
    dead[rng.integers(n)] = False
    row_ids = np.sort(rng.choice(10 * n, n, replace=False)).astype(np.int64)
    queries = np.concatenate([pool[:3], rng.normal(size=(2, d)).astype(np.float32)])
    return SearchCase(
        vectors=vectors,
        row_ids=row_ids,
        shard_of=rng.integers(0, draw(st.integers(1, 5)), n),
        dead=row_ids[dead],
        queries=queries,
        k=draw(st.integers(1, 12)),
    )


@st.composite
def bank_neighbours(draw, *, first_row_id=0, n=None, views=True):
    """Neighbours of one query in one bank: ties, several views of one image, uneven weights."""
    n = draw(st.integers(1, 12)) if n is None else n
    similarities = draw(st.lists(st.integers(-4, 4), min_size=n, max_size=n))
    content = draw(st.lists(st.integers(0, n), min_size=n, max_size=n)) if views else range(n)
    weight = draw(st.lists(st.integers(1, 50), min_size=n + 1, max_size=n + 1))
    names = draw(st.lists(st.integers(0, 3), min_size=n + 1, max_size=n + 1))
    images = np.array(content, np.int64)
    return BankNeighbours(
        similarities=(np.array(similarities) / 8).astype(np.float32),
        content=images,
        log_weights=np.log(np.array(weight) / 100)[images],
        names=np.array(names, np.int64)[images],
        row_ids=np.arange(n, dtype=np.int64) + first_row_id,
        n_bank=len(set(content)) + draw(st.integers(0, 30)),
    )


def both_banks(**options):
    """(fake, real) neighbours of one query; row ids are unique across both."""
    return st.tuples(bank_neighbours(**options), bank_neighbours(first_row_id=1000, **options))
