"""What every vote must obey, whatever the neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.scoring.attribution import attribute
from retrieval_detect.scoring.neighbours import BankNeighbours, nearest_images
from retrieval_detect.scoring.vote import densities, vote, vote_batch
from retrieval_detect.types import METHODS
from tests.strategies import QUICK, bank_neighbours, both_banks

methods = pytest.mark.parametrize("method", METHODS)
ks = st.integers(1, 15)


def k_of(method, k):
    return 1 if method == "nearest" else k


def reordered(bank, order):
    columns = ("similarities", "content", "log_weights", "names", "row_ids")
    return replace(bank, **{name: getattr(bank, name)[order] for name in columns})


def joined(a, b):
    columns = ("similarities", "content", "log_weights", "names", "row_ids")
    merged = {name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in columns}
    return BankNeighbours(**merged, n_bank=a.n_bank)


@methods
@QUICK
@given(banks=both_banks(), k=ks)
def test_banks_that_change_places_flip_the_sign(method, banks, k):
    fake, real = banks
    there = vote(fake, real, method=method, k=k_of(method, k))
    back = vote(real, fake, method=method, k=k_of(method, k))
    assert back.score == -there.score
    assert (back.votes_fake, back.votes_real) == (there.votes_real, there.votes_fake)


@methods
@QUICK
@given(banks=both_banks(), k=ks, at=st.integers(0, 100), step=st.integers(1, 4))
def test_a_more_similar_fake_never_lowers_the_score(method, banks, k, at, step):
    fake, real = banks
    raised = fake.similarities.copy()
    raised[at % len(raised)] += np.float32(step / 8)
    before = vote(fake, real, method=method, k=k_of(method, k))
    after = vote(replace(fake, similarities=raised), real, method=method, k=k_of(method, k))
    if method != "density":
        assert after.score >= before.score - 1e-12
    elif nearest_images(fake, k).n[0] < k:
        # Where the bank has more than k images, a heavy one can give way to a light one.
        assert after.score >= before.score - 1e-12


@QUICK
@given(banks=both_banks(), k=ks, step=st.integers(1, 4))
def test_density_grows_with_the_similarity_of_what_votes_already(banks, k, step):
    fake, real = banks
    order = np.lexsort((fake.row_ids, -fake.similarities))
    raised = fake.similarities.copy()
    raised[order[0]] += np.float32(step / 8)
    before, after = vote(fake, real, k=k), vote(replace(fake, similarities=raised), real, k=k)
    assert after.score > before.score


@methods
@QUICK
@given(data=st.data(), k=ks, q=st.integers(1, 4), n=st.integers(1, 8))
def test_a_batch_is_its_queries_one_by_one(method, data, k, q, n):
    singles = [data.draw(both_banks(n=n)) for _ in range(q)]
    singles = [(replace(fake, n_bank=20), replace(real, n_bank=30)) for fake, real in singles]
    columns = ("similarities", "content", "log_weights", "names", "row_ids")

    def stacked(banks):
        return BankNeighbours(
            **{c: np.stack([getattr(b, c) for b in banks]) for c in columns}, n_bank=banks[0].n_bank
        )

    fakes, reals = (stacked(banks) for banks in zip(*singles, strict=True))
    k = k_of(method, k)
    together = vote_batch(fakes, reals, method=method, k=k)
    assert together == [vote(fake, real, method=method, k=k) for fake, real in singles]


@methods
@QUICK
@given(banks=both_banks(), k=ks, data=st.data())
def test_the_order_of_the_neighbours_does_not_count(method, banks, k, data):
    fake, real = banks
    order = np.array(data.draw(st.permutations(range(len(fake.row_ids)))))
    k = k_of(method, k)
    assert vote(reordered(fake, order), real, method=method, k=k) == vote(fake, real, method=method, k=k)


@methods
@QUICK
@given(banks=both_banks(), k=ks, data=st.data())
def test_more_views_of_an_image_that_are_less_similar_change_nothing(method, banks, k, data):
    fake, real = banks
    images = data.draw(st.lists(st.integers(0, len(fake.row_ids) - 1), min_size=1, max_size=6))
    views = reordered(fake, np.array(images))
    nearest_view = np.array([fake.similarities[fake.content == c].max() for c in views.content])
    views = replace(
        views,
        similarities=(nearest_view - np.float32(0.25)).astype(np.float32),
        row_ids=np.arange(500, 500 + len(images)),
    )
    k = k_of(method, k)
    assert vote(joined(fake, views), real, method=method, k=k) == vote(fake, real, method=method, k=k)


@methods
@QUICK
@given(banks=both_banks(), k=ks, data=st.data())
def test_masked_rows_are_as_good_as_absent(method, banks, k, data):
    fake, real = banks
    extra = data.draw(bank_neighbours(first_row_id=500))
    masked = joined(fake, replace(extra, similarities=np.full_like(extra.similarities, -np.inf)))
    k = k_of(method, k)
    with_them, without = (vote(bank, real, method=method, k=k) for bank in (masked, fake))
    assert with_them.score == pytest.approx(without.score, abs=1e-12)
    assert (with_them.k, with_them.votes_fake) == (without.k, without.votes_fake)


@QUICK
@given(banks=both_banks(), k=ks)
def test_density_is_the_formula(banks, k):
    def by_hand(bank):
        best = {}
        for s, c, w in zip(bank.similarities.tolist(), bank.content, bank.log_weights, strict=True):
            best[c] = max(
                best.get(c, (-2, 0, 0)),
                (s, -min(bank.row_ids[(bank.content == c) & (bank.similarities == np.float32(s))]), w),
            )
        return sorted(best.values(), reverse=True)[:k]

    def density(nearest, left):
        total = 0.0
        for s, _, w in nearest:
            total += min(left, np.exp(w)) * np.exp(s / 0.2)
            left = max(0.0, left - np.exp(w))
        return np.log(total)

    near = [by_hand(bank) for bank in banks]
    share = min(sum(np.exp(w) for _, _, w in nearest) for nearest in near)
    d_fake, d_real = (density(nearest, share) for nearest in near)
    assert vote(*banks, k=k).score == pytest.approx(d_fake - d_real, abs=1e-9)


@QUICK
@given(banks=both_banks(), k=ks, factor=st.integers(2, 100))
def test_density_of_a_larger_bank_of_the_same_images(banks, k, factor):
    """Every fake as ``factor`` images, of which as many more are looked at: nothing changes."""
    fake, real = (replace(bank, content=bank.row_ids) for bank in banks)
    many = replace(
        fake,
        similarities=np.repeat(fake.similarities, factor),
        content=np.arange(factor * len(fake.content)),
        log_weights=np.repeat(fake.log_weights, factor) - np.log(factor),
        names=np.repeat(fake.names, factor),
        row_ids=np.arange(factor * len(fake.content)),
    )
    near = nearest_images(fake, k), nearest_images(real, k)
    more = densities(nearest_images(many, factor * k), near[1])
    np.testing.assert_allclose(more, densities(*near), rtol=0, atol=1e-9)


@QUICK
@given(fake=bank_neighbours(), k=ks, of=st.integers(1, 12))
def test_attribution_shares_out_everything_once(fake, k, of):
    found = attribute(fake, names=["a", "b", "c", "d"], k=k, of=of)
    near = nearest_images(fake, k)
    assert sum(entry.share for entry in found) == pytest.approx(1)
    assert sum(entry.of_nearest_fakes for entry in found) == min(of, near.n[0])
    assert [entry.share for entry in found] == sorted((entry.share for entry in found), reverse=True)
