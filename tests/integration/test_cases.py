"""An examiner's case: the log's chain, pinned generations, and whether verdicts stand when asked again."""

from __future__ import annotations

import json

import pytest

from retrieval_detect import Detector
from retrieval_detect.errors import CaseDamaged, UsageError
from retrieval_detect.files import sha256_bytes, sha256_file
from retrieval_detect.report.case import LOG, START, Case
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.report.recheck import case_entry, recheck
from retrieval_detect.store.store import Store
from retrieval_detect.store.sweep import pinned
from retrieval_detect.verdicts import Question
from tests.factories import png
from tests.integration.test_detector import add, index, taught, write_pictures  # noqa: F401 - a fixture


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path / "case")


def judged(index, path, case, **asked):  # noqa: F811
    detector = Detector.load(index.folder)
    verdict = detector.query(path, **asked)
    case.append({"who": "examiner", **case_entry(detector, verdict, Question(**asked))})
    return verdict


def compact(index, *, purge=False):  # noqa: F811
    with Store(index.folder).writer() as writer:
        writer.compact(purge=purge)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(207))
    return path


def only(case, **how):
    (finding,) = recheck(case.read().entries, **how)
    return finding


# ---------------------------------------------------------------- the log


def test_each_line_names_the_one_before(case):
    digests = [START, *(case.append({"who": name}) for name in "abc")]
    entries = case.read().entries
    assert [e["previous"] for e in entries] == digests[:-1]
    assert [e["number"] for e in entries] == [1, 2, 3] and case.read().digest == digests[-1]
    assert sha256_bytes((case.folder / LOG).read_bytes().splitlines()[-1]) == digests[-1]


@pytest.mark.parametrize(
    "harm",
    [
        lambda lines: [lines[0].replace(b'"a"', b'"x"'), *lines[1:]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [*lines[:2], b"{"],
        lambda lines: [*lines[:2], b"[]"],
    ],
    ids=["changed", "taken out", "first gone", "swapped", "twice", "no JSON", "no entry"],
)
def test_a_changed_log_is_noticed_and_not_written_to(case, harm):
    for name in "abc":
        case.append({"who": name})
    path = case.folder / LOG
    path.write_bytes(b"\n".join(harm(path.read_bytes().splitlines())) + b"\n")
    before = path.read_bytes()
    with pytest.raises(CaseDamaged, match="is not the one that was written"):
        case.append({"who": "d"})
    assert path.read_bytes() == before


def test_a_line_cut_short_by_a_crash_was_never_written(case):
    case.append({"who": "a"})
    path = case.folder / LOG
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"schema": 1, "numb')
    assert len(case.read().entries) == 1
    case.append({"who": "b"})
    assert path.read_bytes().startswith(whole) and [e["who"] for e in case.read().entries] == ["a", "b"]


def test_a_folder_without_a_log_is_no_case(case):
    with pytest.raises(UsageError, match="is no case"):
        case.read()


# ---------------------------------------------------------------- asking again


def test_a_verdict_stands_after_the_index_has_moved_on(index, photo, case, tmp_path):  # noqa: F811
    verdict = judged(index, photo, case, method="mean", k=3)
    write_pictures(tmp_path / "new", range(5000, 5040), fake=True)
    add(index, tmp_path / "new", "fake", "newgen")
    again = only(case)
    assert again.stands is True and again.notes == ()
    assert again.again.index.generation == verdict.index.generation
    assert again.again.score == pytest.approx(verdict.score, abs=1e-6)
    assert (again.again.method, again.again.k) == ("mean", 3)


def test_the_generation_that_judged_outlives_the_ten_and_compaction(index, photo, case, tmp_path):  # noqa: F811
    judged(index, photo, case)
    generation = Detector.load(index.folder).reference.generation
    for number in range(12):
        write_pictures(tmp_path / f"n{number}", range(6000 + number, 6001 + number), fake=True)
        add(index, tmp_path / f"n{number}", "fake", "newgen")
    index.remove([1], reason="wrong")
    compact(index)
    assert pinned(index.folder) == {generation}
    kept = sorted(path.name for path in (index.folder / "manifests").glob("*.json"))
    assert f"{generation:08d}.json" in kept and f"{generation + 1:08d}.json" not in kept
    assert only(case).stands is True


def test_a_purge_ends_a_pin(index, photo, case):  # noqa: F811
    judged(index, photo, case)
    compact(index, purge=True)
    finding = only(case)
    assert finding.stands is None and "there is no generation" in finding.notes[0]


def test_an_image_is_known_by_its_bytes(index, photo, case, tmp_path):  # noqa: F811
    judged(index, photo, case)
    moved = photo.rename(tmp_path / "moved.png")
    assert only(case).stands is None and "is not there any more" in only(case).notes[0]
    assert only(case, images=[moved]).stands is True
    photo.write_bytes(png(208))
    assert only(case).stands is None and "its bytes differ" in only(case).notes[0]


def test_another_verdict_and_another_generation_do_not_stand(index, photo, case):  # noqa: F811
    judged(index, photo, case)
    (entry,) = case.read().entries
    assert entry["verdict"]["verdict"] == "unknown"
    changed = entry | {"verdict": entry["verdict"] | {"verdict": "fake-like", "score": 9.0}}
    (finding,) = recheck([changed])
    assert finding.stands is False and len(finding.notes) == 2
    (finding,) = recheck([entry | {"index": entry["index"] | {"manifest_sha256": "0"}}])
    assert finding.stands is False and "is not the one that judged" in finding.notes[0]


def test_an_entry_of_an_earlier_definition_is_named_so(index, photo, case):  # noqa: F811
    """Uncalibrated, an earlier rd named the nearer bank: that stands for what it was, and is no error."""
    judged(index, photo, case)
    (entry,) = case.read().entries
    old = {name: entry["verdict"][name] for name in verdict_schema(1)["required"]}
    (finding,) = recheck([entry | {"verdict": old | {"schema": 1, "verdict": "fake-like"}}])
    assert finding.stands is None and finding.earlier and finding.notes == ()
    moved = entry | {"verdict": old | {"schema": 1, "score": 9.0}}
    assert "score 9.0 then" in next(recheck([moved])).notes[0]
    (lost,) = recheck([moved | {"index": entry["index"] | {"manifest_sha256": "0"}}])
    assert lost.stands is False


def test_a_report_that_was_changed_is_named(index, photo, case, tmp_path):  # noqa: F811
    report = tmp_path / "report.html"
    report.write_text("as written")
    judged(index, photo, case)
    (entry,) = case.read().entries
    entry = entry | {"report": {"path": str(report), "sha256": sha256_file(report)}}
    assert next(recheck([entry])).report_intact is True
    report.write_text("prettier")
    (finding,) = recheck([entry])
    assert finding.report_intact is False and finding.stands is True
    report.unlink()
    assert next(recheck([entry])).report_intact is None


def test_one_of_a_batch_is_not_asked_alone(index, photo, case):  # noqa: F811
    judged(index, photo, case)
    (entry,) = case.read().entries
    (finding,) = recheck([entry | {"asked": entry["asked"] | {"fdr": 0.1}}])
    assert finding.stands is None and "--fpr fdr=" in finding.notes[0]


def test_the_log_holds_no_picture_and_is_plain_json(index, photo, case):  # noqa: F811
    judged(index, photo, case)
    (line,) = (case.folder / LOG).read_bytes().splitlines()
    entry = json.loads(line)
    assert entry["image"] == {"path": str(photo), "sha256": sha256_file(photo)}
    assert entry["index"]["generation"] == entry["verdict"]["index"]["generation"]
    assert len(line) < 20_000
