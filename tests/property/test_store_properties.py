"""An index depends on what was added, not on how: order, portions, detours and repetitions vanish."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_detect.ask.detector import Detector
from retrieval_detect.store.groups import CALIB_ONE_IN, MIN_GROUPS, assign_splits
from retrieval_detect.store.verify import findings
from retrieval_detect.types import METHODS
from tests.factories import D, add, digest, embedded, new_store, spec
from tests.strategies import QUICK

NAMES = {"real": ("camera", "phone"), "fake": ("sdxl", "flux", "dalle")}
BELOW_THE_SPLIT = 18
"""Images in all: no stratum reaches ``MIN_GROUPS``, so all are in the banks."""
SOME = settings(QUICK, max_examples=12)
"""Each example builds an index or two."""


class Silent:
    """An encoder for embeddings that are made already."""

    spec = spec()


def image(number: int):
    """Pairs of numbers are near-duplicates: vectors and hashes almost alike."""
    base, copy = divmod(number, 2)
    rng = np.random.default_rng(base)
    vector = rng.normal(size=D).astype(np.float32)
    phash = int(rng.integers(0, 2**63))
    if copy and base % 3 == 0:
        vector = vector + 0.05 * np.random.default_rng(1000 + base).normal(size=D).astype(np.float32)
        phash ^= 0b101
    elif copy:
        vector = np.random.default_rng(2000 + base).normal(size=D).astype(np.float32)
        phash ^= (1 << 63) - 1
    return embedded(f"image-{number}", vector=vector, phash=phash)


def home(number: int) -> tuple[str, str]:
    """Label and name: near-duplicates keep together."""
    label = "fake" if (number // 2) % 2 else "real"
    return label, NAMES[label][(number // 4) % len(NAMES[label])]


def teach(store, numbers):
    """One addition a stratum, in the order of ``numbers``."""
    known = {i for i, *_ in store.snapshot().find([image(n).content_id for n in numbers])}
    fresh = [n for i, n in enumerate(numbers) if i not in known]
    for where in dict.fromkeys(map(home, fresh)):
        add(store, [image(n) for n in fresh if home(n) == where], *where)


def answers(store):
    detector = Detector(store.snapshot(), encoder=Silent(), device="cpu")
    return [
        detector.judge(embedded(f"question-{q}"), method=method) for q in range(3) for method in METHODS
    ] + [detector.judge(image(n)) for n in (0, 2)]


def said(verdict):
    """All that does not name rows or moments. Scores to rounding: sums run in the order of the rows."""
    shown = [(e.label, e.generator, e.source, e.uri, round(e.similarity, 6)) for e in verdict.evidence]
    own = sorted(e.uri for e in verdict.same_image)
    shares = [(a.generator, a.of_nearest_fakes, round(a.share, 6)) for a in verdict.attribution]
    return (
        verdict.verdict,
        pytest.approx(verdict.score, abs=1e-9),
        shown,
        own,
        shares,
        verdict.votes,
        verdict.warnings,
    )


def agree(store, other):
    for a, b in zip(answers(store), answers(other), strict=True):
        assert said(a) == said(b)


def groups(store):
    """The partition of images into near-duplicates."""
    rows = store.snapshot().scan(["content_id", "group", "split"]).to_pylist()
    parts = {}
    for row in rows:
        parts.setdefault(row["group"], set()).add((row["content_id"], row["split"]))
    assert all(len({split for _, split in part}) == 1 for part in parts.values())
    return {frozenset(part) for part in parts.values()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    store = new_store(tmp_path_factory.mktemp("reference") / "idx")
    teach(store, range(BELOW_THE_SPLIT))
    return store


@st.composite
def portions(draw):
    """All images in some order, in some portions, some of them given again."""
    order = draw(st.permutations(range(BELOW_THE_SPLIT)))
    cuts = sorted(draw(st.sets(st.integers(1, BELOW_THE_SPLIT - 1), max_size=4)))
    parts = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    again = draw(st.lists(st.sampled_from(range(BELOW_THE_SPLIT)), max_size=4, unique=True))
    return [*parts, again] if again else parts


@SOME
@given(portions())
def test_neither_order_nor_portions_matter(reference, parts):
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder) / "idx")
        for part in parts:
            teach(store, part)
        assert list(findings(store.snapshot())) == []
        assert groups(store) == groups(reference)
        agree(store, reference)


@SOME
@given(st.lists(st.integers(BELOW_THE_SPLIT, 30), min_size=1, unique=True), st.booleans())
def test_removing_what_was_added_leaves_no_trace_in_any_verdict(extra, compacted):
    with tempfile.TemporaryDirectory() as folder:
        store = new_store(Path(folder) / "idx")
        teach(store, range(BELOW_THE_SPLIT))
        before = [said(verdict) for verdict in answers(store)]
        rows_before = store.snapshot().manifest.next_row_id
        teach(store, extra)
        added = list(range(rows_before, store.snapshot().manifest.next_row_id))
        with store.writer() as writer:
            writer.remove(added, reason="", detail={})
            if compacted:
                writer.compact()
        assert [said(verdict) for verdict in answers(store)] == before
        assert list(findings(store.snapshot())) == []


@SOME
@given(st.data())
def test_any_history_comes_to_what_is_left_of_it(data):
    """Adding, removing and adding again, in any order: as if only the survivors had ever been added."""
    alive: set[int] = set(range(8))
    with tempfile.TemporaryDirectory() as folder:
        store, plain = new_store(Path(folder) / "long"), new_store(Path(folder) / "short")
        teach(store, sorted(alive))
        for _ in range(data.draw(st.integers(1, 4))):
            change = data.draw(st.sets(st.integers(8, BELOW_THE_SPLIT - 1), min_size=1, max_size=5))
            if data.draw(st.booleans()):
                teach(store, sorted(change - alive))
                alive |= change
            elif gone := change & alive:
                hits = store.snapshot().find([image(n).content_id for n in gone])
                with store.writer() as writer:
                    writer.remove([row_id for _, row_id, _, _ in hits], reason="", detail={})
                alive -= gone
        teach(plain, sorted(alive))
        assert store.snapshot().manifest.counts("fake") == plain.snapshot().manifest.counts("fake")
        agree(store, plain)


# ---------------------------------------------------------------- splits

KEYS = st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=80, unique=True)
STRATUM = ("fake", "sdxl")


@QUICK
@given(KEYS, st.randoms(use_true_random=False))
def test_a_split_depends_on_the_group_alone(keys, random):
    before = dict(zip(keys, assign_splits([STRATUM] * len(keys), keys, {}), strict=True))
    shuffled = random.sample(keys, len(keys))
    assert before == dict(zip(shuffled, assign_splits([STRATUM] * len(keys), shuffled, {}), strict=True))
    if len(keys) < MIN_GROUPS:
        assert set(before.values()) == {"bank"}


@QUICK
@given(st.integers(0, 10**9), st.integers(400, 2000))
def test_a_fifth_is_held_back(seed, n):
    keys = [digest((seed, i)) for i in range(n)]
    share = assign_splits([STRATUM] * n, keys, {}).count("calib") / n
    spread = (0.2 * 0.8 / n) ** 0.5
    assert abs(share - 1 / CALIB_ONE_IN) < 5 * spread


@QUICK
@given(st.integers(0, 60), st.integers(1, 60))
def test_groups_that_came_before_count(existing, new):
    keys = [digest(i) for i in range(new)]
    splits = assign_splits([STRATUM] * new, keys, {STRATUM: existing, ("real", "sdxl"): 1000})
    alone = assign_splits([STRATUM] * new, keys, {STRATUM: MIN_GROUPS})
    assert splits == (alone if existing + new >= MIN_GROUPS else ["bank"] * new)
