"""What old generators keep: whose photographs set the threshold; and folds that know few references."""

from __future__ import annotations

import numpy as np
import pytest

from bench._nested import Fold, World, thinned
from bench.kept import _quality
from retrieval_detect.vectors import Rows


def test_each_threshold_is_set_on_its_own_photographs():
    names = np.array(["old"] * 4 + ["new"] * 2 + ["camera"] * 20 + ["elsewhere"] * 20)
    fake = np.arange(len(names)) < 6
    scores = np.concatenate(
        [[1.0, 1.0, 3.0, 3.0], [0.0, 3.0], np.linspace(-1, 0.5, 20), np.linspace(0, 2, 20)]
    )
    found = _quality(scores, fake, names, ["old", "new"], "elsewhere")
    assert (found["first_known"], found["first_left_out"], found["later_known"]) == (1.0, 0.5, 0.5)
    assert found["first_known"] > found["first_together"] >= found["first_left_out"]
    assert found["flagged"] == pytest.approx((np.linspace(0, 2, 20) > np.quantile(scores[6:26], 0.95)).mean())


def rows(n):
    half = n // 2
    fake = np.arange(n) < half
    return Rows.of(fake=fake, names=np.where(fake, "g", "s"))


def test_a_small_index_knows_as_many_of_each_label_and_only_what_the_fold_knew():
    world = World(rows(40), np.zeros(40, np.int64), np.zeros(40, bool))
    nobody = np.zeros(40, bool)
    known = np.arange(40) % 2 == 0
    fold = Fold("g", "s", 1, known, nobody, nobody, ~known, nobody)
    few = thinned(world, fold, 3).known
    assert few[:20].sum() == few[20:].sum() == 3 and not (few & ~known).any()
    assert thinned(world, fold, None) is fold
    assert (thinned(world, fold, 99).known == known).all()
