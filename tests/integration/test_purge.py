"""What a purge leaves: no text that no live reference has, in any file of an index, of whatever version."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect import Index
from retrieval_detect.ask.fitted import CALIBRATION, load_head, read
from retrieval_detect.ask.methods import Methods
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import IndexStateError, UsageError
from retrieval_detect.heads.caption import CaptionHead
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.images.thumbnails import thumbnail
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.failures import read_failures
from retrieval_detect.store.manifest import GeneratorFacts
from retrieval_detect.store.shards import rewrite
from retrieval_detect.store.store import Store
from retrieval_detect.store.sweep import pin
from retrieval_detect.store.verify import findings
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.erasing import purge
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.types import Facts, Failure
from retrieval_detect.verdicts import Question
from tests.factories import add, embedded, names, new_store, png
from tests.formats import as_format_1

OLD = Path(__file__).parents[1] / "data" / "index-v1"
MARK = "zqxw"


def marked(what: str) -> str:
    return f"{MARK}-{what}"


def facts(label: str, **named: str) -> Facts:
    """Every text that a reference can have, each with a mark of its own."""
    texts = {f.name: marked(f.name) for f in fields(Facts) if f.name != "label"}
    return Facts(label, **(texts | named))


def places(folder: Path, text: str = MARK) -> list[str]:
    """Where a text is: raw bytes of every file, and all that Parquet readers can see of a table."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        seen = path.read_bytes()
        if path.suffix == ".parquet":
            plain = io.BytesIO()
            table = pq.read_table(path)
            pq.write_table(table, plain, compression="none")
            seen += plain.getvalue() + repr(table.schema.metadata).encode()
            for column in table.columns:
                for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
                    seen += "\0".join(chunk.dictionary.to_pylist()).encode()
        if text.encode() in seen or text in path.name:
            found.append(str(path.relative_to(folder)))
    return found


def add_marked(store: Store, label: str, name: str) -> None:
    """One reference with every text marked, beside one of the other label, in one addition."""
    secret = replace(embedded(name), notes=(marked("note"),), format=marked("format"))
    secret = replace(secret, thumbnail=marked("picture").encode())
    other = embedded(f"other-{name}")
    rows = [
        NewRow(secret.content_id, marked("uri"), facts(label)),
        NewRow(other.content_id, "kept.png", Facts("fake" if label == "real" else "real")),
    ]
    known = {marked("generator"): GeneratorFacts(marked("family"), "2026-01-01")}
    with store.writer() as writer:
        staging = writer.staging()
        staging.add([secret, other])
        failed = [Failure(marked("failed"), "unreadable", marked("why"))]
        writer.add(Addition(rows, failed, known, detail={"command": marked("command")}), staging)


def row_of(store: Store, name: str) -> int:
    return store.snapshot().find([embedded(name).content_id])[0][1]


@pytest.mark.parametrize("label", ["real", "fake"])
@pytest.mark.parametrize("compacted", [False, True])
def test_no_text_outlives_its_last_reference(tmp_path, label, compacted):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 3), "fake", "g")
    add(store, names("b", 3), "real", "s")
    add_marked(store, label, "secret")
    pin(store.folder, store.snapshot().manifest.generation)
    with store.writer() as writer:
        writer.staging().add([replace(embedded("staged"), notes=(marked("staged"),))])
        writer.remove([row_of(store, "secret")], reason=marked("why"), detail={"batch": marked("batch")})
    if compacted:
        with store.writer() as writer:
            writer.compact()
    assert places(store.folder)
    purge(store)
    assert places(store.folder) == []
    assert read_failures(store.folder) == []
    snapshot = store.snapshot()
    assert list(findings(snapshot)) == []
    assert sorted(snapshot.scan(["uri"])["uri"].to_pylist()).count("kept.png") == 1
    assert snapshot.manifest.live_rows("fake") + snapshot.manifest.live_rows("real") == 7


def test_texts_that_another_reference_has_are_kept(tmp_path):
    store = new_store(tmp_path / "idx")
    add_marked(store, "fake", "one")
    add_marked(store, "fake", "two")
    with store.writer() as writer:
        writer.remove([row_of(store, "one")], reason="", detail={})
    purge(store)
    manifest = store.snapshot().manifest
    assert manifest.counts("fake") == {marked("generator"): 1}
    assert manifest.generators[marked("generator")].family == marked("family")
    wanted = facts("fake")
    (row,) = store.snapshot().take([row_of(store, "two")], [f.name for f in fields(Facts)])
    assert {name: row[name] for name in wanted.__slots__} == {n: getattr(wanted, n) for n in wanted.__slots__}


# ---------------------------------------------------------------- what was fitted


def pictures(seeds, *, fake):
    items = [from_bytes(png(seed, fake=fake), f"{seed}.png") for seed in seeds]
    return [replace(item, thumbnail=thumbnail) for item in items]


@pytest.fixture
def fitted(tmp_path):
    """A calibrated index of two generators and two sources, one of each to be erased, and a head."""
    index = Index.create(tmp_path / "idx", encoder=TinyEncoder())
    for label, name, first in (
        ("real", "camera", 0),
        ("real", marked("source"), 100),
        ("fake", "gan", 200),
        ("fake", marked("generator"), 300),
    ):
        given = pictures(range(first, first + 30), fake=label == "fake")
        named = {"generator" if label == "fake" else "source": name}
        index.apply(index.plan_add(given, label=label, views=("jpeg",), **named), encoder=TinyEncoder())
    head = PrototypeHead()
    commit_head(index.store, "kinds", head.fit(training_set(index.snapshot(), head)))
    for method in ("density", "kinds"):
        commit_calibration(index.store, fit_calibration(index.snapshot(), Question(method), device="cpu"))
    return index


def test_nothing_fitted_names_what_is_erased(fitted, monkeypatch):
    """Also where nothing could be fitted anew, and what was fitted on erased rows stays."""
    monkeypatch.setattr("retrieval_detect.teach.refit.refitted", lambda *_, **__: [])
    rows = fitted.snapshot().scan(["row_id", "source", "generator", "view"]).to_pylist()
    before = {
        name: read(fitted.snapshot(), CALIBRATION, name).conformal.real[marked("source")]
        for name in ("density", "kinds")
    }
    fitted.remove(
        [r["row_id"] for r in rows if MARK in r["source"] + r["generator"] and r["view"] == "original"]
    )
    assert any("heads/" in place for place in places(fitted.folder))
    purge(fitted.store)
    assert places(fitted.folder) == []
    snapshot = fitted.snapshot()
    assert {record.name for record in snapshot.stale()} == {"kinds", "density", "proj"}
    for name, scores in before.items():
        found, methods = read(snapshot, CALIBRATION, name), Methods(snapshot, device="cpu")
        assert found.conformal.real[""].tolist() == scores.tolist()
        assert found.holds_for(methods.checked(found.question), methods.scorer(found.question))
    assert sorted(set(load_head(snapshot, "kinds").facts()["names"])) == ["", "camera", "gan"]


def test_a_head_of_captions_forgets_them_too():
    from retrieval_detect.heads.base import unnamed

    document = {"kind": CaptionHead.kind, "facts": {"classes": ["gan", marked("generator")], "rows": 3}}
    bare = json.loads(unnamed(json.dumps(document).encode(), {"gan"}))
    assert bare["facts"] == {"classes": ["gan", ""], "rows": 3}
    prompt = json.dumps({"kind": "prompt", "facts": {"classes": ["fake"]}}).encode()
    assert unnamed(prompt, {"gan"}) == prompt


def test_what_was_fitted_on_references_purged_meanwhile_is_not_taken(tmp_path):
    index = Index.create(tmp_path / "idx", encoder=TinyEncoder())
    for label, name in (("real", "camera"), ("fake", "gan"), ("fake", marked("generator"))):
        given = pictures(range(3), fake=label == "fake") if MARK not in name else pictures([7], fake=True)
        named = {"generator" if label == "fake" else "source": name}
        index.apply(index.plan_add(given, label=label, **named), encoder=TinyEncoder())
    seen, head = index.snapshot(), PrototypeHead()
    head.fit(training_set(seen, head))
    index.remove([6])
    purge(index.store)
    with pytest.raises(UsageError, match="purged while this was fitted"):
        commit_head(index.store, "kinds", head, of=seen)
    assert places(index.folder) == []


# ---------------------------------------------------------------- made by earlier versions


def test_an_index_of_format_1(tmp_path):
    store = Store(Path(shutil.copytree(OLD, tmp_path / "old")))
    fakes = store.snapshot().scan(["row_id"], label="fake")["row_id"].to_pylist()
    with store.writer() as writer:
        writer.remove(fakes, reason="", detail={})
    gone = [f"made-up/{seed}.png" for seed in range(100, 135)]
    assert places(store.folder, "grid") and places(store.folder, gone[0])
    purge(store)
    assert [text for text in ("grid", *gone) if places(store.folder, text)] == []
    assert places(store.folder, "camera") and list(findings(store.snapshot())) == []


def tainted(store: Store) -> None:
    """Make every shard as format 1 had one that had lost a row."""

    def change(table: pa.Table) -> pa.Table:
        texts = pa.DictionaryArray.from_arrays(
            pa.array([0] * len(table), pa.int32()), ["", marked("contributor")]
        )
        at = table.schema.get_field_index("contributor")
        return table.set_column(at, table.schema.field(at), texts)

    as_format_1(store, change)


def test_texts_that_earlier_versions_left_go_with_the_next_purge(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 3), "fake", "g")
    tainted(store)
    assert places(store.folder)
    purge(store)
    assert places(store.folder) == []
    assert store.snapshot().manifest.live_rows("fake") == 3


def test_merging_leaves_such_texts_behind(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 3), "fake", "g")
    tainted(store)
    shards = store.snapshot().shards()
    record = rewrite(store.folder, shards, ("proj",), store.snapshot().dead)
    assert [place for place in places(store.folder) if place.endswith(tuple(record.files))] == []


# ---------------------------------------------------------------- trouble


def test_files_that_cannot_be_deleted_are_named(tmp_path, monkeypatch):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 3), "fake", "g")
    with store.writer() as writer:
        writer.remove([0], reason="", detail={})
    unlink = Path.unlink

    def held(path, missing_ok=False):
        if path.name.endswith(".proj.npy"):
            raise PermissionError(13, "another process reads it")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(IndexStateError, match=r"could not be deleted, the first is .*proj\.npy"):
        purge(store)
    monkeypatch.undo()
    purge(store)
    assert store.snapshot().manifest.live_rows("fake") == 2


def test_work_of_an_interrupted_addition_goes_before_the_commit(tmp_path, monkeypatch):
    """Whatever ends a purge: no index says that it was purged and still keeps what was staged."""
    index = Index.create(tmp_path / "idx", encoder=TinyEncoder())
    index.apply(index.plan_add(pictures(range(3), fake=False), label="real"), encoder=TinyEncoder())
    index.remove([0])
    (index.folder / "staging").mkdir()
    (index.folder / "staging" / "part.parquet").write_bytes(MARK.encode())

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("retrieval_detect.store.writer.commit", dies)
    with pytest.raises(KeyboardInterrupt):
        purge(index.store)
    assert places(index.folder) == []
