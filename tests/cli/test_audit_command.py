"""``rd audit``: words, data, exit codes, and the list of what to drop."""

from __future__ import annotations

import csv
import io
import json

import pytest
from PIL import Image

from tests.building import one_error
from tests.factories import picture, write_pictures


@pytest.fixture
def clean(bare_folder):
    for number, name in enumerate(["real/camera", "real/phone", "fake/sdxl", "fake/flux"]):
        write_pictures(bare_folder / "set" / name, range(100 * number, 100 * number + 25))
    return bare_folder / "set"


def as_jpeg(path):
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "JPEG", quality=80)
    path.write_bytes(buffer.getvalue())


def test_a_clean_folder_is_usable(clean, run_rd):
    result = run_rd("audit", "set")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert result.stdout.startswith("Usable as evidence: set")
    assert "files alone" in result.stdout and "What to do" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_a_leaking_folder_is_not(clean, run_rd):
    for path in (clean / "real").rglob("*.png"):
        as_jpeg(path)
    result = run_rd("audit", "set")
    assert result.exit_code == 5
    told = " ".join(result.stdout.split())
    assert told.startswith("Not usable as evidence: set") and "is JPEG 1.00" in told and "--unified" in told


def test_the_same_as_data(clean, run_rd):
    record = json.loads(run_rd("audit", "set", "--json").stdout)
    assert record["level"] == "usable" and record["findings"] == [] and record["drop"] == []
    auc = record["shortcuts"]["format"]["auc"]
    assert auc["low"] <= auc["value"] <= auc["high"] and auc["redrawn"] == {"real": "group", "fake": "group"}
    assert run_rd("audit", "set", "-q").stdout == "usable as evidence\n"


def test_a_small_index_is_usable_with_care(index, run_rd):
    result = run_rd("audit")
    assert result.exit_code == 4 and result.stdout.startswith("Usable with care: default")
    assert "too few" in result.stdout


def test_files_of_an_index_are_read_where_they_are_what_they_were(clean, run_rd):
    (clean.parent / "index").mkdir()
    run_rd("build-index", "--real", "set/real", "--fake", "set/fake", "--encoder", "tiny")
    as_jpeg(clean / "real" / "camera" / "0001.png")
    (clean / "fake" / "flux" / "0301.png").unlink()
    record = json.loads(run_rd("audit", "--json").stdout)
    assert record["looked"] == record["total"] == {"real": 50, "fake": 50}
    assert record["read"] == {"real": 49, "fake": 49} and record["failures"] == []
    images = {kind: shortcut["images"] for kind, shortcut in record["shortcuts"].items()}
    assert images == {"format": 98, "compression": 98, "pixels": 98, "content": 100}


def test_an_encoder_brings_content_into_a_folder_audit(clean, run_rd):
    record = json.loads(run_rd("audit", "set", "--encoder", "tiny", "--json").stdout)
    assert record["shortcuts"]["content"]["images"] == 100 and record["clusters"]["layer"] == "proj"


def test_what_leaks_is_listed(clean, bare_folder, run_rd):
    (bare_folder / "test").mkdir()
    picture(3).save(bare_folder / "test" / "held-out.png")
    result = run_rd("audit", "set", "--against", "test", "--out", "drop.csv")
    assert result.exit_code == 5 and "drop.csv: 1 image" in result.stderr
    (row,) = csv.DictReader((bare_folder / "drop.csv").read_text().splitlines())
    assert row["uri"].endswith("0003.png") and row["reason"] == "in the test set" and row["row_id"] == "-1"
    run_rd("audit", "set", "--against", "test", "--out", "drop.json")
    assert len(json.loads((bare_folder / "drop.json").read_text())) == 1


def test_unreadable_images_are_named(clean, run_rd):
    (clean / "real" / "camera" / "broken.png").write_bytes(b"nothing")
    result = run_rd("audit", "set")
    assert result.exit_code == 3 and "broken.png" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["work"], "does not exist"),
        (["set", "--index", "default"], "a folder and an index"),
        (["set", "--out", "drop.txt"], "neither .csv nor .json"),
        (["set", "--out", "nowhere/drop.csv"], "no folder"),
        (["set", "--rebalance"], "vectors"),
        (["set/real"], "no folder real/"),
        (["set", "--against", "nothing"], "does not exist"),
    ],
)
def test_what_cannot_be_meant(clean, run_rd, args, says):
    assert says in one_error(run_rd("audit", *args), 2)
