"""``rd bank rename``: twins found and made one, names put right, and what rests on names fitted anew."""

from __future__ import annotations

import json
import unicodedata

import pytest

from retrieval_detect import Index
from retrieval_detect.ask.fitted import CALIBRATION, read
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import from_bytes
from retrieval_detect.store.manifest import GeneratorFacts, read_current
from retrieval_detect.store.store import Store
from retrieval_detect.store.verify import findings
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.types import Facts
from tests.factories import png

NFC = "g\u00e9n"
NFD = unicodedata.normalize("NFD", NFC)


def done(run_rd, *args):
    result = run_rd(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def as_it_was(facts: Facts) -> Facts:
    return facts


@pytest.fixture
def old(bare_folder, monkeypatch):
    """An index of before names had one spelling: a calibrated one with two generators that are one."""
    monkeypatch.setattr("retrieval_detect.teach.plans.named", as_it_was)
    (bare_folder / "index").mkdir()
    index = Index.create(bare_folder / "index" / "default", encoder=TinyEncoder())
    for label, name, first, n in (
        ("real", "camera", 0, 30),
        ("fake", NFC, 200, 30),
        ("fake", NFD, 300, 28),
        ("fake", "two\nlines", 400, 2),
    ):
        seeds = range(first, first + n)
        given = [from_bytes(png(seed, fake=label == "fake"), f"{seed}.png") for seed in seeds]
        named = {"generator" if label == "fake" else "source": name, "batch": f" {first}"}
        planned = index.plan_add(given, label=label, views=("jpeg",), **named)
        planned.generators.update({NFD: GeneratorFacts("", "2026-01-01"), NFC: GeneratorFacts("gan", "")})
        index.apply(planned, encoder=TinyEncoder())
    commit_calibration(index.store, fit_calibration(index.snapshot(), device="cpu"))
    monkeypatch.undo()
    monkeypatch.chdir(bare_folder)
    return index.folder


def test_twins_are_named_and_made_one(old, run_rd):
    found = done(run_rd, "index", "verify")
    assert found["names"]["generator"] == [[NFD, NFC], ["two\nlines"]]
    told = run_rd("index", "verify").stdout
    assert f"generator is spelt in 2 ways: {NFD!a}, {NFC!a}" in told and "rd bank rename" in told
    record = done(run_rd, "bank", "rename")
    assert record["references"] == 90 and record["stale"] == []
    manifest = read_current(old)
    assert manifest.counts("fake") == {NFC: 58, "two lines": 2}
    assert manifest.generators[NFC] == GeneratorFacts("gan", "2026-01-01")
    assert list(findings(Store(old).snapshot())) == []
    assert done(run_rd, "index", "verify")["names"] == {}
    assert done(run_rd, "bank", "remove", "--among", f"generator={NFD}", "--yes")["removed"] == 58


def test_what_rests_on_names_is_fitted_anew(old, run_rd):
    done(run_rd, "bank", "rename", "generator", NFC, "gan")
    snapshot = Store(old).snapshot()
    calibration = read(snapshot, CALIBRATION, "density")
    assert set(calibration.conformal.fake) == {"gan"} and snapshot.stale() == []
    rows = snapshot.scan(["generator", "label", "view", "group", "split", "batch"]).to_pylist()
    assert {row["generator"] for row in rows} == {"", "gan", "two\nlines"}
    before = Store(old).kept(snapshot.manifest.parent).manifest
    assert all(before.live_rows(label) == snapshot.manifest.live_rows(label) for label in ("real", "fake"))
    done(run_rd, "bank", "rollback", str(before.generation))
    assert read_current(old).counts("fake")[NFD] == 28


def test_a_renamed_reference_answers_by_its_new_name(index, pictures, run_rd):
    (before,) = json.loads(run_rd("query", "ask/0200.png", "--json").stdout)
    assert done(run_rd, "bank", "rename", "generator", "flux", "sdxl")["references"] == 5
    assert done(run_rd, "bank", "rename", "source", "phone", " the  phone")["references"] == 4
    (after,) = json.loads(run_rd("query", "ask/0200.png", "--json").stdout)
    assert {e["uri"] for e in after["evidence"]} == {e["uri"] for e in before["evidence"]}
    assert {a["generator"] for a in after["attribution"]} == {"sdxl"}
    assert read_current(index).counts("real") == {"camera": 8, "the phone": 4}
    assert run_rd("index", "verify").exit_code == 0
    assert done(run_rd, "bank", "add", "generated", "--label", "fake")["known"] == 11


def test_fakes_without_a_name_get_one_and_photographs_do_not(index, run_rd):
    done(run_rd, "bank", "add", "new", "--label", "fake")
    assert done(run_rd, "bank", "rename", "generator", "", "newgen")["references"] == 4
    assert read_current(index).counts("fake") == {"flux": 5, "newgen": 4, "sdxl": 6}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("generator", "nosuch", "x"), "no reference has generator 'nosuch'."),
        (("generator", "flux", "flux "), "generator 'flux' is called so already"),
        (("generator", "flux", "a\nb"), "invisible character"),
        (("generator", "flux"), "give the old name and the new one"),
        (("uri", "a", "b"), "'[COLUMN]': 'uri' is not one of"),
    ],
)
def test_what_cannot_be_meant(index, run_rd, contents, args, said):
    before = contents(index)
    result = run_rd("bank", "rename", *args)
    assert result.exit_code == 2 and said in result.stderr and contents(index) == before


def test_nothing_is_written_for_nothing(index, run_rd, contents):
    before = contents(index)
    assert "All names are spelt as rd spells them" in run_rd("bank", "rename").stdout
    told = run_rd("bank", "rename", "generator", "flux", "f", "--dry-run").stdout
    assert "Would call generator 'flux' → 'f'" in told
    assert contents(index) == before
