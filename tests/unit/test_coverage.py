"""How near the real bank usually is: the threshold, and what is below it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retrieval_detect.scoring.coverage import Coverage


def similar(mean, n=100):
    return np.sort(np.random.default_rng(int(1000 * mean)).normal(mean, 0.02, n))


ORDINARY = {f"site{i}": similar(0.6 + 0.01 * i) for i in range(4)}


def test_one_strange_source_does_not_disarm_it():
    plain = Coverage.of("proj", ORDINARY)
    strange = Coverage.of("proj", ORDINARY | {"x-rays": similar(0.2)})
    assert strange.threshold >= plain.threshold - 0.02 > 0.5
    assert strange.uncovered()["x-rays"] == 1 and next(iter(strange.uncovered())) == "x-rays"
    assert max(share for name, share in strange.uncovered().items() if name != "x-rays") < 0.3


def test_sources_weigh_alike_however_many_photographs_they_gave():
    """The threshold does not follow the source that gave most, nor do its photographs fill the quantile."""
    alike = Coverage.of("proj", ORDINARY)
    many = Coverage.of("proj", ORDINARY | {"site0": np.repeat(ORDINARY["site0"], 50)})
    assert many.threshold == pytest.approx(alike.threshold, abs=1e-3)


def test_of_sources_that_are_alike_a_twentieth_is_below():
    shares = Coverage.of("proj", {f"{i}": similar(0.6 + i / 1e6, 1000) for i in range(20)}).uncovered()
    assert np.mean([*shares.values()]) == pytest.approx(0.05, abs=0.01)


def test_the_threshold_of_two_sources_is_that_of_the_nearer():
    found = Coverage.of("proj", {"a": similar(0.3), "b": similar(0.7)})
    assert found.threshold == pytest.approx(np.quantile(similar(0.7), 0.05), abs=0.01)


def test_what_is_not_known_is_covered():
    found = Coverage.of("proj", ORDINARY)
    low, high = found.threshold - 1e-9, found.threshold
    assert found.covers(np.array([low, high, np.nan])).tolist() == [False, True, True]


def test_it_is_read_as_it_was_written():
    found = Coverage.of("proj", ORDINARY)
    again = Coverage.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"threshold": 7},
        {"threshold": float("nan")},
        {"left_out": {"a": []}},
        {"left_out": {"a": [0.1, float("nan")]}},
    ],
)
def test_what_is_none_is_refused(change):
    with pytest.raises(ValueError, match=r"this is|similarities"):
        Coverage.from_json(Coverage.of("proj", ORDINARY).to_json() | change)
