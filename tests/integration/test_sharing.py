"""An index handed on: equal answers, nothing private, and nothing of a tampered file taken in."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect import Detector
from retrieval_detect.errors import FormatUnsupported, IndexCorrupt, RdError, UsageError
from retrieval_detect.files import sha256_bytes
from retrieval_detect.review.whole import require_fitted
from retrieval_detect.store.sharing import HEAD, export_index, import_index
from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.verdicts import Question
from tests.factories import add, names, new_store
from tests.kinds import kind

SECRETS = (b"secret", b"Jane", b"removed-tag")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two labels, a calibration on them; some rows removed, with words that nothing else has."""
    store = new_store(tmp_path_factory.mktemp("sharing") / "idx")
    add(store, kind("secret-camera", 130, axis=1), "real", "camera", contributor="Jane")
    add(store, kind("secret-sdxl", 130, axis=2), "fake", "sdxl")
    manifest = add(store, names("secret-gone", 3), "fake", "sdxl", tags="removed-tag")
    with store.writer() as writer:
        writer.remove([manifest.next_row_id - 1 - i for i in range(3)], reason="", detail={"path": "secret"})
    commit_calibration(store, fit_calibration(store.snapshot(), Question()))
    return store


@pytest.fixture(scope="module")
def exported(store, tmp_path_factory):
    file = tmp_path_factory.mktemp("exports") / "banks.tar"
    export_index(store.snapshot(), file)
    return file


def take_in(file, folder):
    return import_index(file, folder, check=require_fitted)


def answers(folder):
    detector = Detector.load(folder)
    asked = [*kind("ask", 5, axis=2), *kind("ask", 5, axis=1), *kind("secret-camera", 2, axis=1)]
    found = [detector.judge(image).to_dict() for image in asked]
    for told in found:
        told.pop("elapsed_s")
        told["index"].pop("name")
        for evidence in (*told["evidence"], *told["same_image"]):
            evidence.pop("uri")
    return found


# ---------------------------------------------------------------- there and back


def test_what_comes_back_answers_as_it_did(store, exported, tmp_path):
    manifest = take_in(exported, tmp_path / "new" / "idx")
    answer = answers(tmp_path / "new" / "idx")
    assert answer == answers(store.folder) and answer[0]["p_values"] is not None
    snapshot = Store(tmp_path / "new" / "idx").snapshot()
    assert list(findings(snapshot)) == [] and snapshot.stale() == [] and snapshot.manifest == manifest
    assert manifest.operation.kind == "import" and manifest.operation.added == 260
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["idx"]


def test_it_can_be_taught_on(exported, tmp_path):
    take_in(exported, tmp_path / "idx")
    before = Store(tmp_path / "idx").snapshot().manifest
    after = add(Store(tmp_path / "idx"), names("more", 4), "fake", "flux")
    assert after.live_rows("fake") == before.live_rows("fake") + 4 == 134


def test_nothing_private_and_nothing_removed_is_in_it(exported):
    data = exported.read_bytes()
    assert not [secret for secret in SECRETS if secret in data]
    with tarfile.open(exported) as archive:
        members = archive.getmembers()
    assert (
        members[0].name == HEAD and {m.mtime for m in members} == {0} and {m.uname for m in members} == {""}
    )
    assert {m.name.split("/")[0] for m in members} == {HEAD, "shards", "canaries", "calibrations"}
    assert all(m.name.endswith((".json", ".rows.parquet", ".npy")) for m in members)


def test_names_of_an_earlier_version_get_their_one_spelling(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 3), "fake", "ge\u0301n", batch=" b")
    add(store, names("b", 3), "fake", "g\u00e9n")
    add(store, names("c", 3), "real", "camera")
    export_index(store.snapshot(), tmp_path / "a.tar")
    manifest = take_in(tmp_path / "a.tar", tmp_path / "new")
    snapshot = Store(tmp_path / "new").snapshot()
    assert snapshot.manifest == manifest and manifest.counts("fake") == {"g\u00e9n": 6}
    assert set(snapshot.scan(["batch"])["batch"].to_pylist()) == {"", "b"}
    assert list(findings(snapshot)) == []


def test_generators_that_were_removed_are_not_named(tmp_path):
    store = new_store(tmp_path / "idx")
    add(store, names("a", 3), "fake", "secret-generator")
    add(store, names("b", 3), "real", "camera")
    with store.writer() as writer:
        writer.remove([0, 1, 2], reason="", detail={})
    export_index(store.snapshot(), tmp_path / "a.tar")
    assert b"secret-generator" not in (tmp_path / "a.tar").read_bytes()


def test_what_is_asked_for_goes_along(store, tmp_path):
    export_index(store.snapshot(), tmp_path / "a.tar", keep=("uri", "contributor"))
    data = (tmp_path / "a.tar").read_bytes()
    assert b"secret-camera" in data and b"Jane" in data and b"removed-tag" not in data
    take_in(tmp_path / "a.tar", tmp_path / "idx")
    rows = Store(tmp_path / "idx").snapshot().scan(["uri"])["uri"].to_pylist()
    assert "secret-camera-0.png" in rows and "" not in rows


def test_equal_exports_are_equal_bytes(store, exported, tmp_path):
    export_index(store.snapshot(), tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()
    assert not list(tmp_path.glob(".*"))


# ---------------------------------------------------------------- refused


def members_of(file):
    with tarfile.open(file) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive.getmembers()]


def packed(path, members):
    with tarfile.open(path, "w") as archive:
        for info, data in members:
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return path


def refused(file, folder, error=IndexCorrupt):
    """It is refused, and nothing is left of it."""
    there = set(folder.parent.iterdir())
    with pytest.raises(error) as raised:
        take_in(file, folder)
    assert set(folder.parent.iterdir()) == there
    return raised.value.message


def test_one_flipped_byte_anywhere_is_refused(exported, tmp_path):
    whole = exported.read_bytes()
    with tarfile.open(exported) as archive:
        places = [m.offset_data + m.size // 2 for m in archive.getmembers()]
    for number, place in enumerate(places[1:]):
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / f"{number}.tar").write_bytes(data)
        assert "checksum differs" in refused(tmp_path / f"{number}.tar", tmp_path / "idx")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_cut_file_is_refused(exported, tmp_path, share):
    data = exported.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: int(share * len(data))])
    refused(tmp_path / "cut.tar", tmp_path / "idx")


def link(name, target, kind_):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind_, target
    return info


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "shards/../../evil", "banks/x.faiss", "CURRENT", HEAD]
)
def test_members_that_are_not_expected_are_refused(exported, tmp_path, name):
    evil = packed(tmp_path / "evil.tar", [*members_of(exported), (tarfile.TarInfo(name), b"x")])
    before = {p for p in tmp_path.parent.rglob("*") if p.is_file()}
    assert "should not be there" in refused(evil, tmp_path / "idx")
    assert {p for p in tmp_path.parent.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(exported, tmp_path, type_):
    first, second, *rest = members_of(exported)
    evil = [first, (link(second[0].name, "/etc/passwd", type_), b""), *rest]
    assert "should not be there" in refused(packed(tmp_path / "e.tar", evil), tmp_path / "idx")


def test_a_member_twice_missing_or_of_another_size_is_refused(exported, tmp_path):
    first, second, *rest = members_of(exported)
    refused(packed(tmp_path / "twice.tar", [first, second, second, *rest]), tmp_path / "idx")
    assert "is missing" in refused(packed(tmp_path / "missing.tar", [first, *rest]), tmp_path / "idx")
    longer = (second[0], second[1] + b"x")
    refused(packed(tmp_path / "longer.tar", [first, longer, *rest]), tmp_path / "idx")
    refused(packed(tmp_path / "headless.tar", [second, *rest]), tmp_path / "idx")


def changed_head(exported, path, change):
    (info, data), *rest = members_of(exported)
    head = json.loads(data)
    change(head)
    return packed(path, [(info, json.dumps(head).encode()), *rest])


HEADS = {
    "shard id": lambda h: h["manifest"]["shards"][0].update(id="../../../evil0000"),
    "suffix": lambda h: h["manifest"]["shards"][0]["files"].update(
        {"../x": {"bytes": 1, "sha256": "0" * 64}}
    ),
    "extra layer": lambda h: h["manifest"]["layers"].append("pre"),
    "fitted name": lambda h: h["manifest"]["fitted"][0].update(name="../evil"),
    "fitted kind": lambda h: h["manifest"]["fitted"][0].update(kind="plugin"),
    "digest": lambda h: h["manifest"]["fitted"][0]["files"]["json"].update(sha256="../../evil"),
    "size": lambda h: h["manifest"]["shards"][0]["files"]["proj.npy"].update(bytes="1"),
    "rows": lambda h: h["manifest"]["shards"][0].update(rows=10**9),
    "fewer rows": lambda h: h["manifest"]["shards"][0].update(rows=1),
    "label": lambda h: h["manifest"]["shards"][0].update(label="fake", split="calib"),
    "dimension": lambda h: h["manifest"]["encoder"]["layers"].update(proj=33),
    "counts": lambda h: h["manifest"]["strata"][0].update(bank=7),
    "count of text": lambda h: h["manifest"]["strata"][0].update(bank="7"),
    "next row": lambda h: h["manifest"].update(next_row_id=3),
    "no projection": lambda h: h["manifest"].update(projection="nowhere"),
    "removed": lambda h: h["manifest"]["tombstones"].append(
        {"id": "0" * 16, "rows": 1, "file": {"bytes": 1, "sha256": "0" * 64}}
    ),
    "hidden source": lambda h: h["manifest"]["strata"][0].update(name="came\nra"),
    "hidden family": lambda h: h["manifest"]["generators"].update(
        sdxl={"family": "\x1b[2J", "released_at": ""}
    ),
    "no manifest": lambda h: h.pop("manifest"),
    "nothing": lambda h: h.clear(),
}


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
def test_a_forged_head_is_refused(exported, tmp_path, change):
    refused(changed_head(exported, tmp_path / "forged.tar", change), tmp_path / "idx", RdError)


def test_a_later_format_is_named(exported, tmp_path):
    later = changed_head(exported, tmp_path / "later.tar", lambda h: h.update(version=2))
    assert "version 2" in refused(later, tmp_path / "idx", FormatUnsupported)


def forged(exported, path, suffix, forge):
    """The export with one file of its first shard made anew, and with a head that vouches for it."""
    members = members_of(exported)
    at = next(i for i, (info, _) in enumerate(members) if info.name.endswith(suffix))
    info, data = members[at]
    new = forge(data)
    members[at] = (info, new)
    head = json.loads(members[0][1])
    for shard in head["manifest"]["shards"]:
        if info.name == f"shards/{shard['id']}.{suffix}":
            shard["files"][suffix] = {"bytes": len(new), "sha256": sha256_bytes(new)}
    members[0] = (members[0][0], json.dumps(head).encode())
    return packed(path, members)


def array(change):
    def forge(data):
        out = io.BytesIO()
        np.save(out, change(np.load(io.BytesIO(data)).copy()), allow_pickle=True)
        return out.getvalue()

    return forge


def table(change, **how):
    def forge(data):
        out = io.BytesIO()
        pq.write_table(change(pq.read_table(io.BytesIO(data))), out, **({"compression": "none"} | how))
        return out.getvalue()

    return forge


def with_column(name, values):
    def change(rows):
        at = rows.schema.get_field_index(name)
        return rows.set_column(at, name, values(rows[name]))

    return table(change)


FORGERIES = {
    "nan": ("proj.npy", array(lambda a: a * np.float16("nan"))),
    "not unit": ("proj.npy", array(lambda a: a * np.float16(2))),
    "wider": ("proj.npy", array(lambda a: a.astype(np.float32))),
    "fewer": ("proj.npy", array(lambda a: a[1:])),
    "pickled": ("proj.npy", array(lambda a: np.array([{}], object))),
    "no array": ("proj.npy", lambda data: b"nonsense"),
    "promise": ("proj.npy", lambda data: data.replace(b"(", b"(9999999999, ", 1)),
    "no parquet": ("rows.parquet", lambda data: b"nonsense"),
    "compressed": ("rows.parquet", table(lambda rows: rows, compression="zstd")),
    "no column": ("rows.parquet", table(lambda rows: rows.drop_columns(["pair_id"]))),
    "less rows": ("rows.parquet", table(lambda rows: rows.slice(1))),
    "empty": ("rows.parquet", with_column("width", lambda c: pa.nulls(len(c), pa.int32()))),
    "other type": ("rows.parquet", with_column("phash", lambda c: pa.array(["x"] * len(c)))),
    "long text": ("rows.parquet", with_column("uri", lambda c: pa.array(["x" * 5000] * len(c)))),
    "hidden name": ("rows.parquet", with_column("batch", lambda c: pa.array(["a\nb"] * len(c)))),
    "hidden pair": ("rows.parquet", with_column("pair_id", lambda c: pa.array(["\x1b[2J"] * len(c)))),
    "other label": ("rows.parquet", with_column("label", lambda c: pa.array(["maybe"] * len(c)))),
    "norm": ("rows.parquet", with_column("norm_proj", lambda c: pa.array([0.0] * len(c), pa.float32()))),
    "one row id": ("rows.parquet", with_column("row_id", lambda c: pa.array([5] * len(c), pa.int64()))),
    "negative": (
        "rows.parquet",
        with_column("row_id", lambda c: pa.array(range(-len(c), 0), pa.int64())),
    ),
}


@pytest.mark.parametrize(("suffix", "forge"), FORGERIES.values(), ids=FORGERIES)
def test_forged_content_with_good_checksums_is_refused(exported, tmp_path, suffix, forge):
    file = forged(exported, tmp_path / "f.tar", suffix, forge)
    refused(file, tmp_path / "idx")


def test_a_forged_calibration_with_a_good_checksum_is_refused(exported, tmp_path):
    members = members_of(exported)
    at = next(i for i, (info, _) in enumerate(members) if info.name.startswith("calibrations/"))
    new = b'{"format": 1}'
    head = json.loads(members[0][1])
    (record,) = head["manifest"]["fitted"]
    record["files"]["json"] = {"bytes": len(new), "sha256": sha256_bytes(new)}
    members[at][0].name = f"calibrations/{record['name']}-{sha256_bytes(new)[:16]}.json"
    members[at] = (members[at][0], new)
    members[0] = (members[0][0], json.dumps(head).encode())
    refused(packed(tmp_path / "f.tar", members), tmp_path / "idx")


def test_what_exists_is_never_touched(store, exported, tmp_path, contents):
    (tmp_path / "idx").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = contents(store.folder)
    for folder in (tmp_path / "idx", tmp_path / "link", store.folder):
        refused(exported, folder, UsageError)
    assert contents(store.folder) == before
    with pytest.raises(UsageError, match="exists already"):
        export_index(store.snapshot(), exported)
    with pytest.raises(UsageError, match="no folder"):
        export_index(store.snapshot(), tmp_path / "nowhere" / "x.tar")
    refused(tmp_path / "absent.tar", tmp_path / "other", UsageError)


@pytest.fixture
def contents():
    def read(folder):
        return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"}

    return read


def test_a_crash_before_the_end_leaves_no_index(exported, tmp_path, monkeypatch):
    def crash(_snapshot):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_index(exported, tmp_path / "home" / "idx", check=crash)
    assert list((tmp_path / "home").iterdir()) == []
