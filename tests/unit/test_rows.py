"""One record for what is fitted on, asked about and measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from retrieval_detect.ask.banks import Asked
from retrieval_detect.store.training import stored_rows
from retrieval_detect.vectors import Rows
from tests.layered import add, empty, images


def rows(n=4):
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2) + 1
    norms = np.linalg.norm(x, axis=1)
    return Rows.of(
        vectors={"proj": x / norms[:, None], "score": x},
        norms={"proj": norms},
        fake=np.arange(n) % 2 == 1,
        names=np.array([f"name{i}" for i in range(n)]),
        content_ids=np.array([bytes([i, 0]) for i in range(n)], object),
        sizes=np.stack([np.arange(n), np.arange(n) + 9], axis=1),
    )


def test_what_is_not_known_has_the_shape_of_a_column():
    found = rows()
    assert len(found) == 4 and found.row_ids.tolist() == [-1] * 4 and found.groups.tolist() == [0, 1, 2, 3]
    assert (found.categories.tolist(), found.views.tolist()) == ([""] * 4, ["original"] * 4)
    nobody = Rows.of(fake=np.empty(0, bool))
    assert len(nobody) == 0 and nobody.sizes.shape == (0, 2) and nobody.names.dtype.kind == "U"


def test_vectors_as_the_network_gave_them():
    found = rows()
    given = np.arange(8, dtype=np.float32).reshape(4, 2) + 1
    np.testing.assert_allclose(found.as_encoded("proj"), given, rtol=1e-6)
    assert found.as_encoded("score") is found.vectors["score"]  # no norm: nothing was taken away
    with pytest.raises(KeyError):
        found.as_encoded("pre")


@pytest.mark.parametrize("chosen", [np.array([3, 1]), np.array([False, True, False, True])])
def test_take_moves_every_column_alike(chosen):
    found = rows().take(chosen)
    at = np.array([3, 1]) if chosen.dtype != bool else np.array([1, 3])
    assert found.names.tolist() == [f"name{i}" for i in at] and found.fake.all()
    assert found.content_ids.tolist() == [bytes([i, 0]) for i in at]
    assert found.sizes.tolist() == [[i, i + 9] for i in at] and found.groups.tolist() == at.tolist()
    assert np.array_equal(found.vectors["score"], rows().vectors["score"][at])
    assert np.array_equal(found.as_encoded("proj"), rows().as_encoded("proj")[at])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Marked(Rows):
    marks: np.ndarray
    subject: str = ""


def test_columns_of_a_subclass_go_along_and_the_rest_stays():
    found = Marked.of(fake=np.array([True, False]), marks=np.array([7, 8]), subject="all")
    taken = found.take(np.array([1]))
    assert isinstance(taken, Marked) and taken.marks.tolist() == [8] and taken.subject == "all"
    together = taken.followed_by(found, taken)
    assert together.marks.tolist() == [8, 7, 8, 8] and together.groups.tolist() == [1, 0, 1, 1]


def test_followed_by_is_the_inverse_of_take():
    found = rows()
    again = found.take(np.array([0])).followed_by(found.take(np.array([1, 2, 3])))
    for layer in ("proj", "score"):
        assert np.array_equal(again.as_encoded(layer), found.as_encoded(layer))
    assert again.names.tolist() == found.names.tolist() and again.sizes.tolist() == found.sizes.tolist()


def test_references_are_asked_about_without_their_own_group():
    asked = Asked.of(rows())
    assert asked.own_groups == {i: {i} for i in range(4)} and asked.content_ids[2] == b"\x02\x00"
    assert np.array_equal(asked.vectors["proj"], rows().as_encoded("proj"))


def test_the_store_gives_every_column(tmp_path):
    store = empty(tmp_path / "idx")
    given = images("cat", 3, fake=True)
    add(store, given, "fake", "flux")
    add(store, images("phone", 2), "real", "phone")
    found = stored_rows(store.snapshot(), ("proj", "pre"))
    assert found.names.tolist() == ["flux"] * 3 + ["phone"] * 2
    assert found.fake.tolist() == [True] * 3 + [False] * 2 and found.row_ids.tolist() == list(range(5))
    assert found.content_ids.tolist()[:3] == [one.content_id for one in given]
    assert found.phash.tolist()[:3] == [one.phash for one in given]
    assert found.sizes.tolist() == [[64, 48]] * 5 and set(found.formats.tolist()) == {"PNG"}
    assert np.linalg.norm(found.vectors["pre"], axis=1) == pytest.approx(1, abs=1e-6)
    for one, encoded in zip(given, found.as_encoded("pre"), strict=False):
        assert encoded == pytest.approx(one.vectors["pre"], rel=2e-2, abs=2e-2)
    nobody = stored_rows(store.snapshot(), ("proj",), split="calib")
    assert len(nobody) == 0 and nobody.vectors["proj"].shape == (0, 24)
