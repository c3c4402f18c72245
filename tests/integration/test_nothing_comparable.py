"""Photographs of a kind that the real bank does not hold: unknown, whatever they score."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask.fitted import COVERAGE, read
from retrieval_detect.errors import FormatUnsupported, UsageError
from retrieval_detect.review.whole import verify
from retrieval_detect.store.manifest import Manifest
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.coverage import fit_coverage
from retrieval_detect.teach.erasing import purge
from tests.calibrated import calibrate, detector, fakes, images, taught
from tests.factories import D, add, digest, embedded, new_store

KINDS = 4


def of_kind(prefix, n, *, axis, away=3.0):
    """Photographs that show one thing: all of them lie along one axis."""
    made = []
    for i in range(n):
        rng = np.random.default_rng(int.from_bytes(digest(f"{prefix}-{i}")[:8], "big"))
        vector = rng.normal(size=D).astype(np.float32) * 0.6
        vector[axis] += away
        made.append(embedded(f"{prefix}-{i}", vector=vector))
    return made


@pytest.fixture
def store(tmp_path):
    """Four sources that show much the same, and two generators; of shoes there are fakes alone."""
    made = new_store(tmp_path / "idx")
    for site in range(KINDS):
        add(made, of_kind(f"site{site}", 80, axis=site % 2), "real", f"site{site}")
    add(made, of_kind("sdxl", 80, axis=0, away=2.5), "fake", "sdxl")
    add(made, of_kind("shoes", 80, axis=5), "fake", "shoemaker")
    calibrate(made)
    return made


def reasons(judge, asked, **how):
    return [judge.judge(one, **how).reason for one in asked]


def test_photographs_of_a_kind_that_is_not_there_are_unknown(store):
    judge = detector(store)
    shoes, known = of_kind("shop", 30, axis=5), of_kind("fresh", 60, axis=0)
    assert reasons(judge, shoes).count("nothing-comparable") > 25
    assert reasons(judge, known).count("nothing-comparable") <= 6
    verdict = judge.judge(shoes[0])
    assert (verdict.verdict, verdict.reach) == ("unknown", None)
    found = verdict.coverage
    assert found["similarity"] < found["threshold"] and verdict.p_values is not None
    assert sum(near["photographs"] for near in found["nearest"]) == 9


def test_who_says_that_the_kind_is_known_is_believed(store):
    judge, asked = detector(store), of_kind("shop", 20, axis=5)
    for how in ({"photographs": "known"}, {"source": "site0", "fpr": 0.1}):
        assert "nothing-comparable" not in reasons(judge, asked, **how)
    verdict = judge.judge(asked[0], photographs="known")
    assert verdict.coverage["similarity"] < verdict.coverage["threshold"]


def test_some_of_photographs_of_the_kind_mends_it(store):
    asked = of_kind("shop", 30, axis=5)
    add(store, of_kind("catalogue", 60, axis=5), "real", "catalogue")
    calibrate(store)
    assert reasons(detector(store), asked).count("nothing-comparable") < 8


def test_it_is_the_mean_cosine_with_the_nine_nearest_photographs(store):
    (asked,) = of_kind("shop", 1, axis=5)
    bank = np.concatenate(
        [shard.vectors("proj").astype(np.float64) for shard in store.snapshot().shards("real", "bank")]
    )
    vector = asked.vectors["proj"].astype(np.float64)
    cosines = bank @ vector / np.linalg.norm(vector) / np.linalg.norm(bank, axis=1)
    found = detector(store).judge(asked).coverage["similarity"]
    assert found == pytest.approx(np.sort(cosines)[-9:].mean(), abs=1e-3)


def test_its_own_group_is_out(store):
    """A photograph of the bank asked about again is as near as it would be had it never been added."""
    row = store.snapshot().scan(["row_id", "content_id"], label="real", split="bank").to_pylist()[3]
    (asked,) = [one for one in of_kind("site0", 80, axis=0) if one.content_id == row["content_id"]]
    again = detector(store).judge(asked).coverage["similarity"]
    Index(store.folder, store).remove([row["row_id"]], calibrate=False, device="cpu")
    assert again == pytest.approx(detector(store).judge(asked).coverage["similarity"], abs=1e-9)


def test_through_another_projection_it_is_the_same(store):
    """Whatever the banks are searched through, near is by the stored vectors."""
    from retrieval_detect.teach.projections import commit_projection, fitted_projection

    (asked,) = of_kind("shop", 1, axis=5)
    before = detector(store).judge(asked).coverage
    commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
    assert detector(store).judge(asked).coverage == before
    assert not list(verify(store.snapshot()).problems)


def test_left_out_is_what_an_index_without_the_source_says(store):
    index = Index(store.folder, store)
    kept = fit_coverage(store.snapshot()).left_out["site3"]
    rows = store.snapshot().scan(["row_id", "source"], label="real").to_pylist()
    gone = [row["row_id"] for row in rows if row["source"] == "site3"]
    index.remove(gone, calibrate=False, device="cpu")
    judge = detector(store)
    asked = np.sort([judge.judge(one).coverage["similarity"] for one in of_kind("site3", 80, axis=1)])
    assert np.abs(asked - kept).max() < 1e-3


def test_it_follows_additions_and_removals(store):
    before = store.snapshot().fitted("coverage", "proj")
    index, rows = Index(store.folder, store), store.snapshot().scan(["row_id", "source"]).to_pylist()
    gone = [row["row_id"] for row in rows if row["source"] == "site3"]
    index.remove(gone, device="cpu")
    found = read(store.snapshot(), COVERAGE, "proj")
    assert found is not None and set(found.left_out) == {"site0", "site1", "site2"}
    assert not [record for record in store.snapshot().stale() if record.kind == "coverage"]
    fake = next(row["row_id"] for row in store.snapshot().scan(["row_id"], label="fake").to_pylist())
    after = store.snapshot().fitted("coverage", "proj")
    index.remove([fake], device="cpu")
    assert (
        after != before and store.snapshot().fitted("coverage", "proj") == after
    )  # photographs are the same


def test_stale_it_says_so(store):
    add(store, images("more", 3), "real", "site0")
    warnings = detector(store).judge(*of_kind("shop", 1, axis=5)).warnings
    assert any("coverage proj was fitted on other references" in warning for warning in warnings)


def test_a_purge_forgets_whose_photographs_they_were(store):
    rows = store.snapshot().scan(["row_id", "source"]).to_pylist()
    gone = [row["row_id"] for row in rows if row["source"] == "site3"]
    Index(store.folder, store).remove(gone, calibrate=False, device="cpu")
    before = read(store.snapshot(), COVERAGE, "proj")
    purge(store)
    after = read(store.snapshot(), COVERAGE, "proj")
    assert "site3" in before.left_out and "site3" not in after.left_out
    assert after.threshold == before.threshold and len(after.left_out) == len(before.left_out)


def test_one_source_has_none_and_is_judged_all_the_same(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, images("camera", 160), "real", "camera")
    add(store, fakes("sdxl", 160), "fake", "sdxl")
    with pytest.raises(UsageError, match="two sources"):
        fit_coverage(store.snapshot())
    calibrate(store)
    assert store.snapshot().fitted("coverage", "proj") is None
    verdict = detector(store).judge(*images("fresh", 1))
    assert verdict.coverage is None and verdict.p_values is not None


def test_without_it_an_index_of_an_earlier_rd_answers_as_before(tmp_path):
    store = taught(tmp_path)
    calibrate(store)
    with store.writer() as writer:
        writer.forget("coverage", "proj", along=[])
    (image,) = images("fresh", 1)
    verdict = detector(store).judge(image)
    assert verdict.coverage is None and verdict.p_values is not None


def test_a_kind_that_this_rd_does_not_know_is_named(store):
    data = json.loads(json.dumps(store.snapshot().manifest.to_json()))
    data["fitted"][0]["kind"] = "crystal"
    with pytest.raises(FormatUnsupported, match=r"'crystal'.*does not know"):
        Manifest.from_json(data)


def test_all_together_are_judged_as_each_alone(store):
    from time import perf_counter

    from retrieval_detect.verdicts import Question

    judge, asked = detector(store), [*of_kind("shop", 5, axis=5), *of_kind("fresh", 5, axis=1)]
    question = judge.checked(Question())
    together = judge.judge_all([[one] for one in asked], question, started=[perf_counter()] * len(asked))
    alone = [judge.judge(one) for one in asked]
    assert [replace(v, elapsed_s=0) for v in together] == [replace(v, elapsed_s=0) for v in alone]
