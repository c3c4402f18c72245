"""What holds of fitted projections whatever the references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_detect.projections.inner import Trial, held_out_auc
from retrieval_detect.projections.registry import fit_projection
from tests.fitting import applied, made_up, rows_of
from tests.strategies import QUICK

cases = st.builds(
    made_up,
    seed=st.integers(0, 10_000),
    d=st.sampled_from([4, 9, 24]),
    signal=st.sampled_from([0.0, 2.0]),
    generators=st.integers(2, 4),
    sources=st.integers(1, 3),
    each=st.integers(3, 9),
)
LIGHT = ["whiten", "lda", "mask", "nullspace"]


@pytest.mark.parametrize("kind", LIGHT)
@QUICK
@given(rows=cases, seed=st.integers(0, 100))
def test_the_order_of_references_does_not_matter(kind, rows, seed):
    order = np.random.default_rng(seed).permutation(len(rows))
    options = {"whiten": {"shrinkage": "0.3"}, "nullspace": {"directions": 2}, "mask": {"steps": 1}}.get(
        kind, {}
    )
    a, b = (fit_projection(kind, r, layers=["proj"], **options) for r in (rows, rows.take(order)))
    za, zb = applied(a, rows), applied(b, rows)
    np.testing.assert_allclose(za @ za.T, zb @ zb.T, atol=1e-3)


@QUICK
@given(rows=cases, g=st.sampled_from(["0.2", "0.5", "1", "ledoit-wolf"]))
def test_whitening_keeps_row_by_row_and_any_scale(rows, g):
    projection = fit_projection("whiten", rows, layers=["proj"], shrinkage=g)
    z = applied(projection, rows)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(
        projection.apply(rows.vectors["proj"][:1]).astype(np.float16), z[:1].astype(np.float16)
    )


@QUICK
@given(rows=cases)
def test_full_shrinkage_only_centres(rows):
    z = applied(fit_projection("whiten", rows, layers=["proj"], shrinkage="1"), rows)
    x = rows.vectors["proj"].astype(np.float64)
    x -= x[~rows.fake].mean(axis=0)
    np.testing.assert_allclose(z, x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-5)


@QUICK
@given(rows=cases, directions=st.integers(1, 3))
def test_removed_content_is_gone(rows, directions):
    projection = fit_projection("nullspace", rows, layers=["proj"], directions=directions)
    z = applied(projection, rows).astype(np.float64)
    removed = np.eye(projection.d_out) - projection.matrix
    assert np.abs(z @ removed).max() < 1e-4


@QUICK
@given(rows=cases, seed=st.integers(0, 100))
def test_held_out_detection_is_a_share_and_knows_no_rotation_or_order(rows, seed):
    z = rows.vectors["proj"]
    found = held_out_auc(z, rows)
    assert 0 <= found <= 1
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(z.shape[1],) * 2))[0]
    assert held_out_auc((z @ rotation).astype(np.float32), rows) == pytest.approx(found, abs=5e-3)


@QUICK
@given(rows=cases)
def test_swapping_labels_leaves_held_out_detection(rows):
    """Both labels are treated alike: every score changes its sign, and what is asked of it too."""
    swapped = np.char.translate(rows.names, str.maketrans("gs", "sg"))
    mirrored = rows_of({"proj": rows.vectors["proj"]}, swapped)
    trial = Trial.of(rows)
    if not trial.possible:
        return
    z = rows.vectors["proj"]
    assert held_out_auc(z, mirrored) == pytest.approx(held_out_auc(z, rows), abs=1e-6)
