"""p_new and the likelihood ratio of new sources, by hand and after a file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrieval_detect.scoring.new_sources import LeftOut, NewSources

SOURCES = {
    "camera": LeftOut(np.array([-1.0, 0.0, 1.0, 2.0])),
    "phone": LeftOut(np.array([-2.0, -1.0])),
    "shoes": LeftOut(np.array([3.0]), 0.0, "midjourney", (7, 9)),
}
GENERATORS = {
    "flux": LeftOut(np.array([1.0, 2.0, 3.0]), 0.25, "sdxl"),
    "sdxl": LeftOut(np.array([0.0, 2.5]), 1.0, "flux"),
}


@pytest.mark.parametrize(
    ("score", "wanted"),
    [(-9.0, 1.0), (0.0, (1 + 0.75 + 0 + 1) / 4), (2.0, (1 + 0.25 + 1) / 4), (3.5, 1 / 4)],
)
def test_every_source_counts_alike_however_many_photographs_it_has(score, wanted):
    assert NewSources(SOURCES).p(score) == pytest.approx(wanted)


def test_so_few_sources_cannot_show_less():
    found = NewSources(SOURCES)
    assert found.smallest == 1 / 4 == found.p(100.0)
    assert NewSources().p(1.0) is None


def test_the_worst_source_is_named_with_its_share():
    assert NewSources(SOURCES).worst(2.0) == ("shoes", 1.0)
    assert NewSources({"a": SOURCES["camera"], "b": SOURCES["phone"]}).worst(0.5) == ("a", 0.5)


def test_no_ratio_is_beyond_what_so_many_names_can_show():
    """However many photographs there are, three sources and two generators are five units."""
    rng = np.random.default_rng(0)
    sources = {f"s{i}": LeftOut(np.sort(rng.normal(-9, 1, 500))) for i in range(3)}
    generators = {f"g{i}": LeftOut(np.sort(rng.normal(9, 1, 500))) for i in range(2)}
    found = NewSources.of(sources, generators)
    assert found.likelihood(20.0) == pytest.approx(np.log10(4))
    assert found.likelihood(-20.0) == pytest.approx(-np.log10(3))
    low, high = found.interval(0.0)
    assert low <= found.likelihood(0.0) <= high


def test_an_interval_is_as_wide_as_the_names_differ():
    def width(spread):
        centres = np.random.default_rng(1).normal(0, spread, 12)
        draw = np.random.default_rng(2)
        sides = [
            {str(i): LeftOut(np.sort(draw.normal(c + shift, 1, 60))) for i, c in enumerate(centres)}
            for shift in (-1, 1)
        ]
        low, high = NewSources.of(*sides).interval(0.5)
        return high - low

    assert width(1.5) > 2 * width(0.05)


def test_one_name_gives_no_ratio():
    found = NewSources.of({"camera": SOURCES["camera"]}, GENERATORS)
    assert found.likelihood is None and found.interval(0.0) is None


@pytest.mark.parametrize(
    "found", [NewSources.of(SOURCES, GENERATORS), NewSources(SOURCES), NewSources(why="one source alone")]
)
def test_it_outlives_a_file(found):
    again = NewSources.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert again.to_json() == found.to_json() and again.why == found.why
    assert again.p(0.3) == found.p(0.3) and again.interval(0.3) == found.interval(0.3)


@pytest.mark.parametrize(
    "broken",
    [
        {"sources": {"a": {"scores": [2.0, 1.0], "real_like": 0.0, "taken_for": "", "nearest": []}}},
        {"sources": {"a": {"scores": [], "real_like": 0.0, "taken_for": "", "nearest": []}}},
        {"sources": {"a": {"scores": [float("nan")], "real_like": 0.0, "taken_for": "", "nearest": []}}},
        {"likelihood": {"scores": [0.0, 1.0], "log10_lr": [1.0, 0.0], "low": [0, 0], "high": [0, 0]}},
        {"likelihood": {"scores": [0.0, 1.0], "log10_lr": [0.0], "low": [0, 0], "high": [0, 0]}},
    ],
)
def test_a_file_that_is_none_is_refused(broken):
    data = NewSources.of(SOURCES, GENERATORS).to_json() | broken
    with pytest.raises(ValueError, match=r"ascending|as many"):
        NewSources.from_json(data)
