from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.store.groups import GUARANTEED_DISTANCE, near_candidates, near_keys
from tests.strategies import QUICK

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30)
FLIPS = st.lists(st.integers(0, 63), max_size=GUARANTEED_DISTANCE, unique=True)


def pairs(stored, asked):
    found = near_candidates(near_keys(np.array(stored, np.uint64)), np.array(asked, np.uint64))
    return set(zip(*(part.tolist() for part in found), strict=True))


def flipped(value, bits):
    for bit in bits:
        value ^= 1 << bit
    return value


@QUICK
@given(HASHES, st.data())
def test_everything_within_the_guaranteed_distance_is_a_candidate(stored, data):
    wanted = [flipped(value, data.draw(FLIPS)) for value in stored]
    found = pairs(stored, wanted)
    assert {(i, i) for i in range(len(stored))} <= found
    for i, a in enumerate(wanted):
        for j, b in enumerate(stored):
            if (a ^ b).bit_count() <= GUARANTEED_DISTANCE:
                assert (i, j) in found


@QUICK
@given(HASHES, HASHES)
def test_candidates_share_a_band_up_to_one_bit(stored, asked):
    for i, j in pairs(stored, asked):
        bands = [((asked[i] ^ stored[j]) >> shift & 0xFFFF).bit_count() for shift in (0, 16, 32, 48)]
        assert min(bands) <= 1


def test_extreme_hashes():
    extremes = [0, 2**64 - 1, 2**63, 1, 0xFFFF, 0xFFFF << 48]
    assert {(i, i) for i in range(6)} <= pairs(extremes, extremes)


def test_nothing_stored_or_asked():
    assert pairs([], [1, 2]) == pairs([1, 2], []) == set()


def test_a_thousand_equal_hashes_cost_little():
    found = pairs([7] * 1000, [7] * 10)
    assert 0 < len(found) <= 10 * 4 * 17 * 64
    assert {i for i, _ in found} == set(range(10))


def test_keys_are_sorted_and_hold_every_position_once_a_band():
    keys = near_keys(np.arange(50, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    assert (np.diff(keys.astype(object)) >= 0).all()
    positions = (keys & np.uint64((1 << 46) - 1)).tolist()
    assert sorted(positions) == sorted(list(range(50)) * 4)
