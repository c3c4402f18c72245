"""What every command that takes folders says of files that are no images, and of broken archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.report.json import verdict_schema
from tests.factories import png, write_set

SAID = "passed over 3 files that are no images: 2 .dng, 1 .txt; left out by name: 1 @eaDir/, 1 ._*\n"
COUNTS = {".dng": 2, ".txt": 1, "@eaDir/": 1, "._*": 1}
SHAPE = jsonschema.Draft202012Validator({"$ref": "#/$defs/passed_over", "$defs": verdict_schema()["$defs"]})


def litter(folder: Path) -> None:
    """What a camera, a NAS and a Mac leave beside pictures."""
    (folder / "@eaDir").mkdir()
    for name in ("1.dng", "2.DNG", "notes.txt", "@eaDir/small.jpg", "._0200.png"):
        (folder / name).write_bytes(b"no picture")


@pytest.fixture
def littered(index, pictures):
    litter(pictures / "ask")
    write_set(pictures / "set", photographs=12, of_each_generator=10)
    litter(pictures / "set" / "real")
    return pictures


FOLDERS = [
    ("build-index", "--real", "ask", "--index", "other", "--encoder", "tiny"),
    ("build-index", "--real", "ask", "--dry-run"),
    ("bank", "add", "ask", "--label", "real"),
    ("embed", "ask", "--out", "vectors.parquet", "--encoder", "tiny"),
    ("embed", "ask", "--out", "vectors.parquet", "--encoder", "tiny", "--dry-run"),
    ("launder", "ask", "--out", "copies", "--as", "jpeg-80"),
    ("audit", "set"),
    ("audit", "--against", "ask"),
    ("eval", "set"),
]


@pytest.mark.parametrize("command", FOLDERS, ids=" ".join)
def test_every_command_that_takes_folders_says_it_once(littered, run_rd, command):
    result = run_rd(*command, "--json")
    assert result.stderr.count("passed over") == 1 and SAID in result.stderr, result.stderr
    assert json.loads(result.stdout)["passed_over"] == COUNTS


@pytest.mark.parametrize("given", [("ask",), ("--from-file", "list"), ("ask/*",)])
def test_verdicts_say_it_behind_all_of_them(littered, run_rd, given):
    (littered / "list").write_text("ask\n")
    for form in ("json", "jsonl"):
        result = run_rd("query", *given, "--format", form)
        assert result.exit_code == 0 and result.stderr.endswith(SAID)
        answers = (
            json.loads(result.stdout) if form == "json" else [*map(json.loads, result.stdout.splitlines())]
        )
        assert [answer["verdict"] for answer in answers[:-1]] and len(answers) == 4
        assert answers[-1] == {"passed_over": COUNTS}
        SHAPE.validate(answers[-1])


def test_people_and_tables_hear_it_beside_their_answers(littered, run_rd):
    for form in ("human", "csv"):
        result = run_rd("query", "ask", "--format", form)
        assert result.stderr.endswith(SAID) and ".dng" not in result.stdout
    assert run_rd("query", "ask", "-q").stderr == ""


def test_where_nothing_is_passed_over_nothing_is_said(index, run_rd):
    result = run_rd("query", "ask", "--json")
    assert "passed" not in result.stderr and all("passed_over" not in a for a in json.loads(result.stdout))
    record = json.loads(run_rd("embed", "ask", "--out", "v.parquet", "--encoder", "tiny", "--json").stdout)
    assert "passed_over" not in record


def test_a_folder_without_images_says_it_in_its_error_alone(littered, run_rd):
    for path in (littered / "ask").glob("0*.png"):
        path.unlink()
    result = run_rd("query", "ask")
    assert result.exit_code == 2 and result.stderr.startswith(
        f"Error: folder 'ask' holds no image; {SAID[:-1]}"
    )
    assert result.stderr.count("passed over") == 1


def test_the_count_of_one_run_is_not_that_of_the_next(littered, run_rd):
    for _ in range(2):
        assert json.loads(run_rd("query", "ask", "--json").stdout)[-1] == {"passed_over": COUNTS}
    assert "passed over" not in run_rd("query", "ask/0200.png").stderr


# ---------------------------------------------------------------- archives


def test_a_broken_archive_is_exit_code_3_and_the_rest_is_judged(index, pictures, run_rd):
    with tarfile.open("a.tar", "w") as archive:
        for seed in range(200, 206):
            info = tarfile.TarInfo(f"{seed}.png")
            info.size = len(png(seed))
            archive.addfile(info, io.BytesIO(png(seed)))
    with tarfile.open("a.tar") as archive:
        third = archive.getmember("202.png").offset
    data = bytearray(Path("a.tar").read_bytes())
    data[third + 148] ^= 1
    Path("a.tar").write_bytes(bytes(data))
    result = run_rd("query", "a.tar", "--format", "jsonl")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 3 and [answer.get("error") for answer in answers] == [
        None, None, "unreadable", None, None, None,
    ]  # fmt: skip
    assert f"Warning: a.tar: the archive is damaged at byte {third:,}" in result.stderr
    assert run_rd("query", "a.tar::204.png").exit_code == 0  # behind the damage, by its name
    added = run_rd("bank", "add", "a.tar", "--label", "real", "--json")
    assert added.exit_code == 3 and json.loads(added.stdout)["added"] + json.loads(added.stdout)["known"] == 5


@pytest.mark.parametrize(
    "command",
    [
        ("query",),
        ("bank", "add", "--label", "real"),
        ("embed", "--out", "v.parquet", "--encoder", "tiny"),
        ("launder", "--out", "copies", "--as", "jpeg-80"),
    ],
    ids=" ".join,
)
def test_a_table_without_rows_is_a_usage_error(index, run_rd, command):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), "empty.parquet")
    result = run_rd(*command, "empty.parquet")
    assert result.exit_code == 2 and "empty.parquet' holds no image" in result.stderr
