"""Mistakes: judged again after every change, taught to nobody, and gone where they must be."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect import Detector
from retrieval_detect.errors import EncoderMismatch, IndexCorrupt, LabelConflict, UsageError
from retrieval_detect.files import arrays_from_bytes, arrays_to_bytes, sha256_bytes
from retrieval_detect.report.findings import mistake_lines
from retrieval_detect.review.mistakes import judge_mistakes, tally
from retrieval_detect.review.whole import require_fitted, verify
from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.mistakes import read_mistakes
from retrieval_detect.store.sharing import HEAD, export_index, import_index
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.erasing import purge
from retrieval_detect.teach.mistakes import forget_mistakes, keep_mistakes
from retrieval_detect.vectors import normalise
from tests.factories import add, embedded, new_store, spec
from tests.kinds import kind

CAMERA, FAKES, SHOES = 1, 2, 3
"""Axes: photographs, fakes, and photographs of what only the fakes show."""


def shoes(n, prefix="shoes"):
    """Photographs that lie nearer to the fakes than to any photograph of the bank."""
    return [
        replace(image, vectors={"proj": image.vectors["proj"] + 3 * np.eye(32, dtype=np.float32)[FAKES]})
        for image in kind(prefix, n, axis=SHOES)
    ]


@pytest.fixture
def store(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, kind("camera", 40, axis=CAMERA), "real", "camera")
    add(store, kind("sdxl", 40, axis=FAKES), "fake", "sdxl")
    return store


def keep(store, images, label="real", because="I took it"):
    return keep_mistakes(store, images, spec(), label=label, because=because)


def counts(store):
    found = tally(store.folder, store.snapshot().manifest)
    return len(found.now), found.right, found.better, len(found.worse)


def texts_in(folder):
    return b"".join(path.read_bytes() + path.name.encode() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- what is kept


def test_vectors_and_a_reason_are_kept_and_no_name(store):
    images = [*kind("secret", 2, axis=SHOES), replace(embedded("other"), format="WEBP")]
    kept = keep(store, images, because="from my own camera")
    found = read_mistakes(store.snapshot())
    assert list(kept.states.values()) == ["new"] * 3 and len(found) == 3
    codes, norms = normalise(np.stack([image.vectors["proj"] for image in images]))
    assert (found.vectors["proj"] == codes).all() and (found.norms["proj"] == norms).all()
    assert found.because.tolist() == ["from my own camera"] * 3 and not found.fake.any()
    back = found.images()
    for was, now in zip(images, back, strict=True):
        same = ("content_id", "phash", "width", "height", "format")
        assert all(getattr(was, name) == getattr(now, name) for name in same)
        assert np.allclose(was.vectors["proj"], now.vectors["proj"], rtol=1e-3, atol=1e-2)
    assert b"secret" not in texts_in(store.folder)


def test_kept_again_means_replaced_or_nothing(store):
    first, second = shoes(2)
    keep(store, [first, second])
    generation = store.snapshot().manifest.generation
    again = keep(store, [first, first])
    assert again.states == {first.content_id: "known"} and again.manifest.generation == generation
    other = keep(store, [first, second], label="fake", because="made with sdxl")
    assert set(other.states.values()) == {"replaced"} and other.manifest.generation == generation + 1
    mixed = keep(store, [*shoes(1), *shoes(1, "boots")], label="fake", because="made with sdxl")
    assert list(mixed.states.values()) == ["known", "new"]
    found = read_mistakes(store.snapshot())
    assert found.fake.all() and set(found.because) == {"made with sdxl"} and len(found) == 3


def test_a_file_written_again_holds_the_same_bits(store):
    images = kind("a", 30, axis=SHOES)
    keep(store, images)
    before = read_mistakes(store.snapshot())
    for other in kind("b", 3, axis=CAMERA):
        keep(store, [other])
    after = read_mistakes(store.snapshot())
    assert (after.vectors["proj"][:30] == before.vectors["proj"]).all()
    assert (after.norms["proj"][:30] == before.norms["proj"]).all()


def test_nothing_is_taught(store):
    asked = [*shoes(3, "asked"), *kind("asked", 3, axis=CAMERA)]
    commit = store.snapshot().rows_digest()
    before = [Detector(store.snapshot()).judge(image).score for image in asked]
    keep(store, shoes(12))
    keep(store, kind("more", 12, axis=FAKES), label="fake")
    snapshot = store.snapshot()
    assert [Detector(snapshot).judge(image).score for image in asked] == before
    assert snapshot.rows_digest() == commit and snapshot.manifest.live_rows("real") == 40


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"because": "  "}, UsageError),
        ({"because": "two\nlines"}, UsageError),
        ({"because": "x" * 201}, UsageError),
        ({"label": "maybe"}, UsageError),
    ],
)
def test_what_cannot_be_meant_changes_nothing(store, how, error):
    with pytest.raises(error):
        keep(store, shoes(1), **how)
    assert store.snapshot().manifest.mistakes is None


def test_a_reference_of_the_other_label_is_no_mistake(store):
    reference = kind("camera", 1, axis=CAMERA)[0]
    with pytest.raises(LabelConflict, match=r"camera-0.png \(fake\) and a stored reference \(real\)"):
        keep(store, [*shoes(1), reference], label="fake")
    assert store.snapshot().manifest.mistakes is None
    kept = keep(store, [*shoes(1), reference])
    assert kept.references == {reference.content_id}


def test_vectors_of_another_encoder_are_refused(store):
    with pytest.raises(EncoderMismatch):
        keep_mistakes(store, shoes(1), spec(weights="01"), label="real", because="I took it")
    assert store.snapshot().manifest.mistakes is None


# ---------------------------------------------------------------- judged again


def test_references_of_the_kind_mend_it_and_their_removal_is_worse(store):
    keep(store, shoes(6))
    assert counts(store) == (6, 0, 0, 0)
    first = add(store, shoes(12, "boots"), "real", "shop").next_row_id - 12
    assert counts(store) == (6, 6, 6, 0)
    with store.writer() as writer:
        writer.remove(range(first, first + 12), reason="", detail={})
    found = tally(store.folder, store.snapshot().manifest)
    assert (found.right, found.better, len(found.worse)) == (0, 0, 6)
    head, *worse = mistake_lines(found)
    assert "of 6 mistakes kept, 0 are right now (own groups left out; uncalibrated" in head
    assert head.endswith("0 better, 6 worse") and len(worse) == 6 and "and 1 more" in worse[-1]
    assert found.to_json()["worse"][0]["because"] == "I took it"


def test_its_own_group_does_not_vote(store):
    mistake, *copies = shoes(1) * 4
    near = [replace(copy, content_id=bytes([i]) * 32) for i, copy in enumerate(copies)]
    keep(store, [mistake])
    (before,) = judge_mistakes(store.snapshot())
    add(store, [mistake, *near], "real", "mine")
    (after,) = judge_mistakes(store.snapshot())
    assert not before.right and not after.right  # learnt by heart is not mended
    add(store, shoes(12, "boots"), "real", "shop")
    assert judge_mistakes(store.snapshot())[0].right


def test_a_calibration_decides_where_there_is_one(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, kind("camera", 200, axis=CAMERA), "real", "camera")
    add(store, kind("sdxl", 200, axis=FAKES), "fake", "sdxl")
    plain = kind("plain", 1, axis=CAMERA)[0]
    keep(store, [*kind("taken", 2, axis=FAKES), plain])  # two photographs like fakes, one like photographs
    keep(store, [*kind("made", 2, axis=FAKES), *kind("odd", 1, axis=CAMERA)], label="fake")
    commit_calibration(store, fit_calibration(store.snapshot()))
    found = judge_mistakes(store.snapshot())
    assert all(mistake.calibrated for mistake in found)
    assert [mistake.right for mistake in found] == [False, False, True, True, True, False]
    assert [mistake.verdict for mistake in found[:2]] == ["fake-like"] * 2
    assert "uncalibrated" not in next(mistake_lines(tally(store.folder, store.snapshot().manifest)))


def test_with_an_empty_bank_none_is_judged(store):
    keep(store, shoes(2))
    with store.writer() as writer:
        writer.remove(range(40), reason="", detail={})
    found = tally(store.folder, store.snapshot().manifest)
    assert [mistake.right for mistake in found.now] == [None, None]
    assert "none can be judged now, for one of the banks is empty" in next(mistake_lines(found))


def test_without_mistakes_nothing_is_said(store):
    assert tally(store.folder, store.snapshot().manifest) is None and not list(mistake_lines(None))


# ---------------------------------------------------------------- over generations


def test_they_go_along_and_back(store):
    keep(store, shoes(1))
    one = store.snapshot().manifest
    keep(store, shoes(2))
    add(store, kind("more", 2, axis=CAMERA), "real", "camera")
    assert store.snapshot().manifest.mistakes.rows == 2
    with store.writer() as writer:
        writer.rollback(one.generation)
    assert store.snapshot().manifest.mistakes == one.mistakes
    assert next(mistake_lines(tally(store.folder, store.snapshot().manifest))).startswith(
        "  of 1 mistake kept (before: 2), 0 are right now"
    )
    assert len(list((store.folder / "mistakes").iterdir())) == 2
    for i in range(11):
        add(store, [embedded(f"later-{i}")], "real", "camera")
    assert len(list((store.folder / "mistakes").iterdir())) == 1


def test_forgotten_is_gone_with_the_next_purge(store):
    first, second = shoes(2)
    keep(store, [first], because="a reason that goes")
    keep(store, [second], because="a reason that stays")
    with pytest.raises(UsageError, match="no mistake is kept of"):
        forget_mistakes(store, [first.content_id, bytes(32)])
    forget_mistakes(store, [first.content_id])
    assert b"a reason that goes" in texts_in(store.folder)
    purge(store)
    there = texts_in(store.folder)
    assert b"a reason that goes" not in there and b"a reason that stays" in there
    forget_mistakes(store, [second.content_id])
    assert store.snapshot().manifest.mistakes is None
    keep(store, [first])  # forgotten, not purged


def test_a_purge_of_the_reference_takes_its_mistake(store):
    mine, other = shoes(2)
    first = add(store, [mine], "real", "shop").next_row_id - 1
    keep(store, [mine, other])
    with store.writer() as writer:
        writer.remove([first], reason="", detail={})
    assert store.snapshot().manifest.mistakes.rows == 2
    purge(store)
    assert read_mistakes(store.snapshot()).content_ids.tolist() == [other.content_id]
    assert list(findings(store.snapshot())) == []
    with pytest.raises(UsageError, match="was purged from this index"):
        keep(store, [mine])


# ---------------------------------------------------------------- damaged, handed on, forged


def test_verify_reads_them(store):
    keep(store, shoes(2))
    (path,) = (store.folder / "mistakes").iterdir()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert [
        problem
        for problem in verify(Snapshot(store.folder, read_current(store.folder))).problems
        if "mistakes" in problem
    ]
    with pytest.raises(IndexCorrupt, match="mistakes"):
        store.snapshot()


def test_they_are_handed_on_only_if_asked_for(store, tmp_path):
    keep(store, shoes(2), because="a private reason")
    export_index(store.snapshot(), tmp_path / "without.tar")
    assert b"a private reason" not in (tmp_path / "without.tar").read_bytes()
    assert import_index(tmp_path / "without.tar", tmp_path / "a", check=require_fitted).mistakes is None
    export_index(store.snapshot(), tmp_path / "with.tar", keep=("mistakes",))
    import_index(tmp_path / "with.tar", tmp_path / "b", check=require_fitted)
    theirs, ours = (judge_mistakes(Store(folder).snapshot()) for folder in (tmp_path / "b", store.folder))
    assert theirs == ours and len(theirs) == 2


def forged(export, out, change):
    """The export with other mistakes, and with a head that vouches for them."""
    with tarfile.open(export) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]
    (name, data) = next(pair for pair in members if pair[0].startswith("mistakes/"))
    arrays, about = arrays_from_bytes(data)
    change(arrays, about)
    made = arrays_to_bytes(arrays, about)
    digest = sha256_bytes(made)
    head = json.loads(members[0][1])
    head["manifest"]["mistakes"]["file"] = {"bytes": len(made), "sha256": digest}
    files = {n: d for n, d in members if n not in (HEAD, name)} | {
        f"mistakes/{digest[:16]}.safetensors": made
    }
    with tarfile.open(out, "w") as archive:
        for member, content in {HEAD: json.dumps(head).encode(), **files}.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out


FORGED = {
    "label": lambda a, _: a.update(fake=a["fake"] + 2),
    "zero vector": lambda a, _: a.update({"proj.unit": a["proj.unit"] * 0}),
    "not finite": lambda a, _: a.update({"proj.norm": a["proj.norm"] * np.float32("nan")}),
    "twice": lambda a, _: a.update(content_id=a["content_id"][[0, 0]]),
    "one less": lambda a, _: a.update({name: array[:1] for name, array in a.items()}),
    "dimension": lambda a, _: a.update({"proj.unit": a["proj.unit"][:, :31]}),
    "type": lambda a, _: a.update({"proj.unit": a["proj.unit"].astype(np.float32)}),
    "another layer": lambda a, _: a.update({"pre.norm": a["proj.norm"]}),
    "missing": lambda a, _: a.pop("phash"),
    "size": lambda a, _: a.update(size=a["size"] * 0),
    "hidden": lambda _, about: about.update(because=["\x1b[2J", "x"]),
    "long": lambda _, about: about.update(because=["x" * 201, "x"]),
    "no text": lambda _, about: about.update(formats=[1, 2]),
    "fewer texts": lambda _, about: about.update(kept_at=["2026-01-01T00:00:00Z"]),
    "version": lambda _, about: about.update(version=2),
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_forged_mistakes_are_refused(store, tmp_path, change):
    keep(store, shoes(2))
    export_index(store.snapshot(), tmp_path / "a.tar", keep=("mistakes",))
    forged(tmp_path / "a.tar", tmp_path / "same.tar", lambda *_: None)
    import_index(tmp_path / "same.tar", tmp_path / "same", check=require_fitted)
    file = forged(tmp_path / "a.tar", tmp_path / "forged.tar", change)
    with pytest.raises(IndexCorrupt):
        import_index(file, tmp_path / "new", check=require_fitted)
    assert not (tmp_path / "new").exists()
