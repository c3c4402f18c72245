"""What is fitted, as files: every kind is written and read in one way."""

from __future__ import annotations

import pytest

from retrieval_detect.ask.fitted import KINDS, REGIONS, files_of, read
from retrieval_detect.errors import IndexCorrupt
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.review.whole import require_fitted, verify
from retrieval_detect.scoring.highest_crops import HighestCrops
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.projections import commit_projection, fitted_projection
from retrieval_detect.teach.regions import commit_regions
from tests.layered import layered


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layered") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder.parent / "cache"))
        store = layered(folder)
        commit_projection(store, "white", fitted_projection(store.snapshot(), "whiten", ("proj",)))
        commit_head(store, "lr", LinearHead().fit(training_set(store.snapshot(), LinearHead())))
        commit_calibration(store, fit_calibration(store.snapshot()))
        digest = store.snapshot().rows_digest(REGIONS.strata)
        commit_regions(store, HighestCrops("density", 200, "white", "scorer", digest, ((4, 0.5), (9, 1.5))))
    return store


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_is_read_would_be_written_as_it_was(store, kind):
    snapshot = store.snapshot()
    (record,) = (record for record in snapshot.manifest.fitted if record.kind == kind.name)
    found = read(snapshot, kind, record.name)
    assert kind.to_files(found, snapshot.manifest.encoder) == files_of(snapshot, record)
    assert read(snapshot, kind, "nope") is None


@pytest.mark.parametrize("data", [b"x", b"[]", b"{}", b'{"format": 1, "kind": "linear"}'])
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_files_that_are_none_are_damage_to_whoever_reads_them(store, kind, data):
    before = store.snapshot()
    (record,) = (record for record in before.manifest.fitted if record.kind == kind.name)
    rows = (record.rows_digest, record.strata)
    files = dict.fromkeys(record.files, data)
    with store.writer() as writer:
        bad = writer.write_fitted(kind.name, record.name, method=record.method, files=files, rows=rows)
        writer.fit([bad])
    with pytest.raises(IndexCorrupt, match=f"{record.name}-"):
        read(store.snapshot(), kind, record.name)
    with pytest.raises(IndexCorrupt, match=f"{record.name}-"):
        require_fitted(store.snapshot())
    (problem,) = verify(store.snapshot()).problems
    assert f"{record.name}-" in problem and "missing, truncated or altered" in problem
    with store.writer() as writer:
        writer.rollback(before.manifest.generation)
