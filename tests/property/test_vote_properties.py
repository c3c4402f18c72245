"""What every vote must obey, whatever the neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.scoring.attribution import attribute
from retrieval_detect.scoring.vote import densities, merged_counts
from retrieval_detect.types import METHODS
from tests.strategies import QUICK, bank_neighbours, both_banks
from tests.votes import BankNeighbours, nearest_images, score_of, vote_on

methods = pytest.mark.parametrize("method", METHODS)
ks = st.integers(1, 15)


def k_of(method, k):
    return 1 if method == "nearest" else k


@methods
@QUICK
@given(banks=both_banks(), k=ks)
def test_banks_that_change_places_flip_the_sign(method, banks, k):
    fake, real = banks
    there = score_of(fake, real, method=method, k=k_of(method, k))
    assert score_of(real, fake, method=method, k=k_of(method, k)) == -there
    near = [nearest_images(bank, k) for bank in banks]
    fakes, reals = merged_counts(*near, k)
    assert [n.tolist() for n in merged_counts(*near[::-1], k)] == [reals.tolist(), fakes.tolist()]


@methods
@QUICK
@given(banks=both_banks(), k=ks, at=st.integers(0, 100), step=st.integers(1, 4))
def test_a_more_similar_fake_never_lowers_the_score(method, banks, k, at, step):
    fake, real = banks
    raised = fake.similarities.copy()
    raised[at % len(raised)] += np.float32(step / 8)
    before = score_of(fake, real, method=method, k=k_of(method, k))
    after = score_of(replace(fake, similarities=raised), real, method=method, k=k_of(method, k))
    if method != "density":
        assert after >= before - 1e-12
    elif nearest_images(fake, k).n[0] < k:
        # Where the bank has more than k images, a heavy one can give way to a light one.
        assert after >= before - 1e-12


@QUICK
@given(banks=both_banks(), k=ks, step=st.integers(1, 4))
def test_density_grows_with_the_similarity_of_what_votes_already(banks, k, step):
    fake, real = banks
    order = np.lexsort((fake.row_ids, -fake.similarities))
    raised = fake.similarities.copy()
    raised[order[0]] += np.float32(step / 8)
    assert score_of(replace(fake, similarities=raised), real, k=k) > score_of(fake, real, k=k)


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
    together = vote_on(fakes, reals, method=method, k=k)
    alone = [vote_on(fake, real, method=method, k=k) for fake, real in singles]
    assert together.scores.tolist() == [float(one.scores[0]) for one in alone]
    assert together.k.tolist() == [int(one.k[0]) for one in alone]


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
    assert score_of(*banks, k=k) == pytest.approx(d_fake - d_real, abs=1e-9)


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
    near = nearest_images(fake, k)
    found = attribute(near, names=["a", "b", "c", "d"], of=of)
    assert sum(entry.share for entry in found) == pytest.approx(1)
    assert sum(entry.of_nearest_fakes for entry in found) == min(of, near.n[0])
    assert [entry.share for entry in found] == sorted((entry.share for entry in found), reverse=True)
