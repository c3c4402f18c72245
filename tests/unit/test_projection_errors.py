"""Rows that cannot teach a projection, and options that cannot be meant, are one clear error."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.projections.registry import KINDS, fit_projection
from tests.fitting import made_up, rows_of

FROM_BOTH = ["lda", "nca", "mask", "heads", "nullspace"]
FROM_GENERATORS = ["lda", "nca", "mask", "heads"]


def fit(kind, rows, **options):
    options = {"layers": ["heads01" if kind == "heads" else "proj"], **options}
    if kind == "heads":
        options.setdefault("head_width", 5)
        rows = rows_of({"heads01": next(iter(rows.vectors.values()))}, rows.names)
    return fit_projection(kind, rows, **options)


@pytest.mark.parametrize("kind", FROM_BOTH)
@pytest.mark.parametrize(("counts", "label"), [({"sources": 0}, "real"), ({"generators": 0}, "fake")])
def test_one_class_only(kind, counts, label):
    with pytest.raises(UsageError, match=f"no {label} references") as caught:
        fit(kind, made_up(**counts))
    assert f"--label {label}" in caught.value.hint


def test_whitening_needs_photographs():
    with pytest.raises(UsageError, match="no real references"):
        fit("whiten", made_up(sources=0))


@pytest.mark.parametrize("kind", FROM_GENERATORS)
def test_one_generator_only(kind):
    with pytest.raises(UsageError, match="there is 1 generator"):
        fit(kind, made_up(generators=1))


@pytest.mark.parametrize("kind", FROM_GENERATORS)
def test_a_generator_with_one_image(kind):
    rows = made_up()
    first = np.flatnonzero(rows.names == "g1")[1:]
    with pytest.raises(UsageError, match="'g1' has one image") as caught:
        fit(kind, rows.take(np.setdiff1d(np.arange(len(rows)), first)))
    assert "--generator g1" in caught.value.hint


def test_a_generator_with_one_image_does_not_hinder_whitening():
    rows = made_up()
    first = np.flatnonzero(rows.names == "g1")[1:]
    fit("whiten", rows.take(np.setdiff1d(np.arange(len(rows)), first)))


@pytest.mark.parametrize("kind", ["whiten", *FROM_BOTH])
def test_equal_vectors(kind):
    rows = made_up()
    rows.vectors["proj"][:] = rows.vectors["proj"][0]
    with pytest.raises(UsageError, match="are equal"):
        fit(kind, rows)


def test_equal_photographs_cannot_be_whitened():
    rows = made_up()
    rows.vectors["proj"][~rows.fake] = rows.vectors["proj"][0]
    with pytest.raises(UsageError, match="are equal"):
        fit("whiten", rows)


@pytest.mark.parametrize("kind", ["whiten", *FROM_BOTH])
def test_a_vector_that_is_not_finite(kind):
    rows = made_up()
    rows.vectors["proj"][-3, 2] = np.nan
    with pytest.raises(VectorError, match="not finite"):
        fit(kind, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_layer(kind):
    with pytest.raises(UsageError, match="no vectors of layer 'block07'"):
        fit(kind, made_up(), layers=["block07"])


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("whitten", {}, "no projection of kind"),
        ("whiten", {"shrinkge": "0.2"}, "no option 'shrinkge'"),
        ("whiten", {"shrinkage": "1.5"}, "shrinkage is '1.5'"),
        ("whiten", {"shrinkage": "some"}, "shrinkage is 'some'"),
        ("whiten", {"shrinkage": "nan"}, "shrinkage is 'nan'"),
        ("whiten", {"weights": "1,2"}, "2 weights for 1 layers"),
        ("concat", {"weights": "0"}, "not all positive"),
        ("concat", {"weights": "x"}, "not numbers"),
        ("concat", {"learn": True}, "no weights to learn"),
        ("identity", {"layers": ["proj", "block01"]}, "identity reads one layer"),
        ("identity", {"layers": []}, "one layer or several"),
        ("concat", {"layers": ["proj", "proj"]}, "one layer or several"),
        ("lda", {"dims": 4}, "3 generators span 3 dimensions"),
        ("nca", {"sample": 9_000}, "at most 5000"),
        ("mask", {"max_removed": 2.0}, "max_removed is 2.0"),
        ("nullspace", {"content": "colour"}, "content cannot be"),
        ("nullspace", {"content": "categories"}, "no two categories"),
        ("nullspace", {"content": "pairs"}, "no two groups"),
        ("nullspace", {"directions": 10}, "leaves nothing"),
        ("heads", {"head_width": 3}, "no heads of width 3"),
    ],
)
def test_options_that_cannot_be_meant(kind, options, words):
    rows = made_up(layers=("proj", "block01"))
    with pytest.raises(UsageError, match=words):
        fit(kind, rows, **options)


def test_a_layer_that_holds_no_heads():
    with pytest.raises(UsageError, match="layer proj"):
        fit_projection("heads", made_up(), layers=["proj"], head_width=5)


def test_a_singular_covariance_is_refused_unshrunk():
    rows = made_up(d=50, generators=2, sources=2, each=8)
    with pytest.raises(UsageError, match="singular"):
        fit("whiten", rows, shrinkage="0")


def test_listing_kinds_and_options_loads_nothing_heavy():
    code = (
        "import sys; from retrieval_detect.projections.registry import KINDS;"
        "print(len(KINDS), sorted({'torch', 'faiss', 'pyarrow', 'PIL', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "8 []\n"
