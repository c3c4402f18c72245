"""What each kind of projection does with references whose structure is known."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.projections.inner import Trial, held_out_auc
from retrieval_detect.projections.registry import KINDS, fit_projection
from retrieval_detect.search.projection import Affine
from tests.fitting import applied, made_up, names_of, rows_of

NEEDS_HEADS = {"heads": {"head_width": 5}}
NEEDS_SEVERAL = {"nca": {"iterations": 3}}


def fitted(kind, rows, layers=("proj",), **options):
    return fit_projection(kind, rows, layers=layers, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_unit_vectors_and_survives_its_file(kind):
    layer = "heads02" if kind == "heads" else "proj"
    rows = made_up(layers=(layer,))
    options = {**NEEDS_HEADS.get(kind, {}), **NEEDS_SEVERAL.get(kind, {})}
    projection = fitted(kind, rows, (layer,), **options)
    again = Affine.from_bytes(projection.to_bytes())
    z = applied(projection, rows)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(applied(again, rows), z)
    same = fitted(kind, rows, (layer,), **options)
    np.testing.assert_array_equal(applied(same, rows), z)
    assert same.facts == projection.facts == again.facts
    assert (again.kind, again.layers) == (kind, (layer,))
    assert again.facts["labels"] == list(KINDS[kind](**options).labels)
    assert set(options) <= set(again.facts["options"])


def test_labels_fitted_on_are_stated():
    both = ("real", "fake")
    assert {kind: KINDS[kind]().labels for kind in KINDS} == {
        "identity": (),
        "concat": (),
        "whiten": ("real",),
        **dict.fromkeys(("lda", "nca", "mask", "heads", "nullspace"), both),
    }
    assert KINDS["concat"](learn=True).labels == both


def test_identity_is_the_layer():
    rows = made_up(layers=("proj", "block01"))
    np.testing.assert_allclose(
        applied(fitted("identity", rows, ["block01"]), rows), rows.vectors["block01"], atol=1e-6
    )


# ---------------------------------------------------------------- concat


def test_concat_weighs_similarities_by_squared_weights():
    rows = made_up(layers=("proj", "block01"))
    z = applied(fitted("concat", rows, ["proj", "block01"], weights="2,1"), rows)
    a, b = (x @ x.T for x in rows.vectors.values())
    np.testing.assert_allclose(z @ z.T, (4 * a + b) / 5, atol=1e-5)


def test_learnt_weights_favour_the_layer_that_tells():
    telling, misleading = made_up(signal=4.0, content=0.0), made_up(seed=1, signal=0.0, content=4.0)
    vectors = {"proj": misleading.vectors["proj"], "block01": telling.vectors["proj"]}
    rows = rows_of(vectors, telling.names)
    projection = fitted("concat", rows, ["proj", "block01"], learn=True)
    weights = {part.layer: part.weight for part in projection.parts}
    assert weights["block01"] > weights.get("proj", 0)
    assert projection.facts["inner_auc"] == pytest.approx(
        held_out_auc(applied(projection, rows), rows), abs=1e-3
    )
    assert projection.facts["inner_auc"] >= held_out_auc(
        applied(fitted("concat", rows, list(vectors)), rows), rows
    )


# ---------------------------------------------------------------- whiten


def test_whiten_is_design_9():
    rows = made_up(layers=("proj", "block01"), each=30)
    projection = fitted("whiten", rows, ["proj", "block01"], shrinkage="0.3", weights="1,2")
    pieces = []
    for layer, weight in (("proj", 1), ("block01", 2)):
        photographs = rows.vectors[layer][~rows.fake].astype(np.float64)
        s = np.cov(photographs.T, bias=True)
        c = 0.7 * s + 0.3 * np.trace(s) / len(s) * np.eye(len(s))
        values, vectors = np.linalg.eigh(c)
        y = (rows.vectors[layer] - photographs.mean(0)) @ (vectors / np.sqrt(values) @ vectors.T)
        pieces.append(weight * y / np.linalg.norm(y, axis=1, keepdims=True))
    expected = np.concatenate(pieces, axis=1) / np.sqrt(5)
    np.testing.assert_allclose(applied(projection, rows), expected, atol=2e-6)


def test_whiten_sees_photographs_alone():
    rows = made_up()
    others = made_up(seed=9)
    mixed = {"proj": np.where(rows.fake[:, None], others.vectors["proj"], rows.vectors["proj"])}
    changed = rows_of(mixed, rows.names)
    a, b = (fitted("whiten", r, shrinkage="ledoit-wolf").parts[0] for r in (rows, changed))
    np.testing.assert_allclose(a.matrix, b.matrix, rtol=1e-4, atol=1e-4)


def test_ledoit_wolf_is_scikit_learns():
    from sklearn.covariance import LedoitWolf

    rows = made_up()
    projection = fitted("whiten", rows, shrinkage="ledoit-wolf")
    expected = LedoitWolf().fit(rows.vectors["proj"][~rows.fake].astype(np.float64)).shrinkage_
    assert projection.facts["shrinkage"]["proj"] == pytest.approx(expected, abs=1e-3)


def test_shrinkage_is_chosen_by_refitting_without_each_source():
    rows = made_up(d=30, each=15)
    facts = fitted("whiten", rows).facts
    trial, expected = Trial.of(rows), {}
    for wanted in ("0.2", "0.5", "0.8"):
        scores = []
        for fold in trial.folds_of("real"):
            kept = rows.take(rows.fake | (trial.folds != fold))
            scores.append(trial.auc(applied(fitted("whiten", kept, shrinkage=wanted), rows), real=fold))
        expected[wanted] = np.mean(scores)
    found = facts["inner_auc"]
    assert {wanted: found[wanted] for wanted in expected} == pytest.approx(expected, abs=2e-3)
    best = max(found, key=found.get)
    assert best == "ledoit-wolf" or facts["shrinkage"] == {"proj": float(best)}


def test_photographs_alone_can_be_whitened():
    rows = made_up(generators=0, sources=2)
    lw, default = (fitted("whiten", rows, **o) for o in ({"shrinkage": "ledoit-wolf"}, {}))
    np.testing.assert_array_equal(lw.parts[0].matrix, default.parts[0].matrix)


def test_fewer_photographs_than_dimensions_need_shrinkage():
    rows = made_up(d=50, generators=2, sources=2, each=8)
    assert np.isfinite(applied(fitted("whiten", rows, shrinkage="0.1"), rows)).all()


# ---------------------------------------------------------------- supervised maps


def stretched(seed):
    """What an image shows varies far more than what tells fakes, within every generator and source."""
    rows = made_up(seed=seed, signal=2.5, content=0.0, each=40)
    return rows_of({"proj": rows.vectors["proj"] * ([1, 6, 6] + [1] * 7)}, rows.names)


@pytest.mark.parametrize(("kind", "options"), [("lda", {}), ("nca", {"dims": 3})])
def test_supervised_maps_find_what_tells_fakes(kind, options):
    train, test = stretched(0), stretched(1)
    projection = fitted(kind, train, **options)
    assert projection.d_out == 3
    plain = held_out_auc(test.vectors["proj"], test)
    assert held_out_auc(applied(projection, test), test) > plain + 0.05


def test_lda_is_the_textbook_direction_for_its_first_dimension():
    """With balanced classes and no shrinkage, W^-1 Sb has the kept directions as leading eigenvectors."""
    rows = made_up(each=50, sources=1)
    projection = fitted("lda", rows, shrinkage="0", dims=1)
    x = rows.vectors["proj"].astype(np.float64)
    means = {name: x[rows.names == name].mean(0) for name in np.unique(rows.names)}
    centred = x - np.stack([means[name] for name in rows.names])
    generators = [means[name] for name in means if name.startswith("g")]
    centre = (np.mean(generators, axis=0) + means["s0"]) / 2
    offsets = [(0.5, means["s0"] - centre), *((0.5 / 3, mean - centre) for mean in generators)]
    between = sum(weight * np.outer(offset, offset) for weight, offset in offsets)
    values, vectors = np.linalg.eig(np.linalg.solve(centred.T @ centred / len(x), between))
    leading = vectors[:, np.argmax(values.real)].real
    ours = projection.matrix[:, 0].astype(np.float64)
    cosine = abs(leading @ ours) / np.linalg.norm(leading) / np.linalg.norm(ours)
    assert cosine == pytest.approx(1, abs=1e-5)


def test_mask_drops_the_coordinates_that_mislead():
    rows = made_up(signal=1.5, content=6.0, d=12, each=60)
    projection = fitted("mask", rows)
    kept = np.flatnonzero(projection.matrix.any(axis=1))
    assert 0 in kept
    assert {1, 2} - set(kept.tolist())
    before, after = projection.facts["linear_auc"]
    assert after > before
    assert set(np.unique(projection.matrix)) == {0, 1}
    assert np.array_equal(projection.matrix.sum(axis=0), np.ones(len(kept)))
    assert fitted("mask", rows, max_removed=0.0).d_out == 12


def test_mask_foretells_what_leaving_a_coordinate_out_does():
    """All coordinates at once against one at a time."""
    from scipy.stats import norm

    from retrieval_detect.projections.mask import _Contest

    trial = Trial.of(made_up(each=20))
    contest = _Contest.of(trial, trial.rows.vectors["proj"])

    def normal_auc(kept):
        total = []
        for t in range(contest.weights.shape[1]):
            w = (contest.weights[:, t] * kept).astype(np.float64)
            real = (contest.halves[1 - t % 2].centred + contest.halves[1 - t % 2].mean.T) @ w
            for number, generator in enumerate(contest.generators):
                if number != t // 2:
                    fake = (generator.centred + generator.mean.T) @ w
                    spread = np.sqrt(fake.var() + real.var())
                    total.append(norm.cdf((fake.mean() - real.mean()) / spread))
        return np.mean(total)

    kept = np.ones(10, bool)
    kept[4] = False
    gains = contest.gains(kept)
    for j in (0, 1, 7):
        without = kept.copy()
        without[j] = False
        assert gains[j] == pytest.approx(normal_auc(without) - normal_auc(kept), abs=1e-4)


def test_heads_keeps_those_that_tell():
    rng = np.random.default_rng(0)
    names = names_of(each=20)
    fake = np.char.startswith(names, "g")
    _, code = np.unique(names, return_inverse=True)
    x = rng.normal(size=(len(names), 6, 4))
    x[:, 2] += 3.0 * fake[:, None] + 1
    x[:, 5] += 4.0 * rng.normal(size=(6, 4))[code]
    rows = rows_of({"heads01": x[:, :3].reshape(-1, 12), "heads12": x[:, 3:].reshape(-1, 12)}, names)
    projection = fitted("heads", rows, ["heads01", "heads12"], head_width=4)
    assert 2 in projection.facts["heads"]
    assert 5 not in projection.facts["heads"]
    assert projection.facts["inner_auc"] == pytest.approx(
        held_out_auc(applied(projection, rows), rows), abs=1e-3
    )
    only = fitted("heads", rows, ["heads01", "heads12"], head_width=4, keep=1)
    assert (only.facts["heads"], only.d_out) == ([2], 4)


# ---------------------------------------------------------------- nullspace


def content_rows(*, categories=None, groups=None):
    """Coordinates 3 and 4 hold what an image shows, 0 the label, 1 much variation that is not content."""
    rng = np.random.default_rng(0)
    names = names_of(generators=2, sources=2, each=30)
    shown = np.tile(np.arange(30) % 5, 4)
    x = rng.normal(size=(120, 8)) * 0.3
    x[:, 0] += 2.0 * np.char.startswith(names, "g") + 1
    x[:, 1] += 0.8 * rng.normal(size=120)
    x[:, 3:5] += rng.normal(size=(5, 2))[shown] * (1.2 if categories or groups else 3)
    return rows_of(
        {"proj": x},
        names,
        categories=np.char.add("c", shown.astype(str)) if categories else None,
        groups=np.tile(np.arange(30), 4) if groups else None,
    )


@pytest.mark.parametrize(
    ("known", "content"), [({"categories": True}, "categories"), ({"groups": True}, "pairs"), ({}, "within")]
)
def test_nullspace_removes_what_is_shown_and_keeps_the_label(known, content):
    rows = content_rows(**known)
    projection = fitted("nullspace", rows, directions=2)
    assert (projection.facts["content"], projection.facts["removed"]) == (content, 2)
    matrix = projection.matrix.astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix, matrix, atol=1e-6)
    assert np.trace(matrix) == pytest.approx(6, abs=1e-5)
    assert np.linalg.norm(matrix[0]) > 0.8
    removed = [1 - matrix[j, j] for j in range(8)]
    assert removed[3] + removed[4] > (1.0 if content == "within" else 1.5)


def test_nullspace_takes_what_one_generator_varies_in_and_leaves_where_it_lies():
    """Of many images, that is: a few could lie anywhere."""
    rng = np.random.default_rng(1)
    names = np.repeat(["g0", "g1", "s0"], [2000, 2000, 2000])
    x = rng.normal(size=(6000, 8)) * 0.1
    x[:, 7] += 4
    x[names == "g1", 1] += 6  # what tells one generator from another
    x[:2000, 3] += 2 * rng.normal(size=2000)  # what one shows
    rows = rows_of({"proj": x}, names)
    kept = np.diag(fitted("nullspace", rows, directions=1).matrix)
    assert kept[1] > 0.9 and kept[3] < 0.1
    few = rows.take(np.r_[0:2000, 2000:2005, 4000:6000])
    matrix = fitted("nullspace", few, directions=2, trusted=10**6).matrix
    assert np.diag(matrix)[1] < np.diag(fitted("nullspace", few, directions=2, trusted=0).matrix)[1]


def test_nullspace_ignores_categories_that_are_but_other_names_of_generators():
    rows = content_rows()
    named = rows_of({"proj": rows.vectors["proj"]}, rows.names, categories=rows.names)
    assert fitted("nullspace", named, directions=3).facts["content"] == "within"


def test_equal_maps_are_equal_files_and_have_one_id():
    rows = made_up()
    found = {fit_projection("whiten", rows, layers=("proj",), shrinkage="0.5").to_bytes() for _ in range(5)}
    assert len(found) == 1
    (data,) = found
    assert Affine.from_bytes(data).id == fit_projection("whiten", rows, layers=("proj",), shrinkage="0.5").id
    assert Affine.from_bytes(data).to_bytes() == data
