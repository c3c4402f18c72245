"""What was added and is removed again leaves no trace: not in scores, nor in what was fitted, to the bit."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.fitted import read_fitted
from retrieval_detect.ask.methods import calibrations
from retrieval_detect.heads.registry import head_class
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.measure import Reviewer
from retrieval_detect.teach.projections import commit_projection, fit_default, fitted_projection
from retrieval_detect.verdicts import Question
from tests.layered import add, images, layered
from tests.rescoring import near_duplicates
from tests.strategies import QUICK

SOME = settings(QUICK, max_examples=3, phases=[Phase.explicit, Phase.generate])
"""Each example fits everything twice: too slow to look for the smallest that fails."""
ASKED = (*images("camera", 1, since=900), *images("sdxl", 1, fake=True, since=900), *images("phone", 1))


def nothing(store):
    """An index as it is built, without a calibration."""


def default(store):
    fit_default(store, device="cpu")


def projected(kind, store, **options):
    of = store.snapshot()
    found = fitted_projection(of, kind, ("proj", "block01"), options=options)
    commit_projection(store, kind, found, of=of, device="cpu")


def trained(kind, store):
    default(store)
    head = head_class(kind)()
    commit_head(store, kind, head.fit(training_set(store.snapshot(), head)), device="cpu")
    calibrated(store, kind)


def calibrated(store, method="density"):
    commit_calibration(store, fit_calibration(store.snapshot(), Question(method), device="cpu"))


FITS = {
    "nothing": nothing,
    "default": default,
    "whiten": partial(projected, "whiten"),
    "lda": partial(projected, "lda"),
    "nullspace": partial(projected, "nullspace", directions=3),
    "linear": partial(trained, "linear"),
    "svm": partial(trained, "svm"),
    "prototype": partial(trained, "prototype"),
}


@pytest.fixture(scope="module", params=FITS)
def built(request, tmp_path_factory):
    """An index with something fitted, and with calibrations of two votes."""
    store = layered(tmp_path_factory.mktemp(request.param) / "idx", each=48)
    FITS[request.param](store)
    calibrated(store)
    if request.param != "nothing":
        calibrated(store, "nearest")
    return store


def seen(store):
    """Every score and p-value of some images, by every method that is fitted; every map and threshold."""
    snapshot = store.snapshot()
    judge = Detector(snapshot, device="cpu")
    heads = [f.name for f in snapshot.manifest.fitted if f.kind == "head"]
    answers = [
        (v.score, v.p_values, v.log10_lr, v.verdict, v.warnings, v.attribution)
        for method in ("density", "nearest", *heads)
        for v in (judge.judge(image, method=method) for image in ASKED)
    ]
    maps = {
        f.name: [(p.mean, p.matrix, p.weight) for p in read_fitted(snapshot, f.name).parts]
        for f in snapshot.manifest.fitted
        if f.kind == "projection"
    }
    thresholds = {
        c.method: {n: s.tobytes() for n, s in c.conformal.real.items()} for c in calibrations(snapshot)
    }
    return repr(answers), {n: repr([_bits(p) for p in parts]) for n, parts in maps.items()}, thresholds


def _bits(part):
    return [x.tobytes() if hasattr(x, "tobytes") else x for x in part]


HOMES = {"newgen": "fake", "sdxl": "fake", "drone": "real", "phone": "real"}
DELIVERIES = st.lists(
    st.tuples(st.sampled_from(sorted(HOMES)), st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=2
)
"""Name, how many images, and of how many images that are there already a near-duplicate comes along."""


def delivered(name, n, n_copies, *, number):
    """Images of one name: new ones, and near-duplicates of stored ones of the label."""
    fake = HOMES[name] == "fake"
    known = images("sdxl" if fake else "phone", n_copies, fake=fake, since=5)
    copies = [copy for i, of in enumerate(known) for copy in near_duplicates(of, 1, seed=10 * number + i)]
    return [*images(f"{name}-more{number}", n, fake=fake), *copies]


@SOME
@given(deliveries=DELIVERIES, at_once=st.booleans())
def test_adding_and_removing_gives_back_the_bits(built, deliveries, at_once):
    with tempfile.TemporaryDirectory() as folder:
        index = Index.open(shutil.copytree(built.folder, Path(folder) / "idx"))
        before, first = seen(index.store), index.snapshot().manifest.next_row_id
        review = Reviewer(device="cpu", budget=100)
        for number, (name, n, n_copies) in enumerate(deliveries):
            found = delivered(name, n, n_copies, number=number)
            known = {i for i, *_ in index.snapshot().find([image.content_id for image in found])}
            add(
                index.store,
                [x for i, x in enumerate(found) if i not in known],
                HOMES[name],
                name,
                review=review,
            )
        added = list(range(first, index.snapshot().manifest.next_row_id))
        for rows in [added] if at_once else [added[::2], added[1::2]]:
            if rows:
                index.remove(rows, device="cpu")
        assert seen(index.store) == before
        assert not index.snapshot().stale()
