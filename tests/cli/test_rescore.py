"""``rd rescore``: stored embeddings in, verdicts out, no image opened."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.building import one_error
from tests.factories import write_pictures


@pytest.fixture
def vectors(index, pictures, run_rd):
    """``q.parquet``: the embeddings of ``ask/``, whose images are gone."""
    result = run_rd("embed", "ask", "photos/phone", "--out", "q.parquet", "--encoder", "tiny")
    assert result.exit_code == 0, result.stderr
    return pictures / "q.parquet"


def ask(run_rd, *args, exit_code=0, source="q.parquet"):
    result = run_rd("rescore", source, *args)
    assert result.exit_code == exit_code, result.stderr
    return result


def test_the_same_as_asking_about_the_images(vectors, run_rd, embedded):
    images = json.loads(run_rd("query", "ask", "photos/phone", "--json").stdout)
    embedded.clear()
    found = json.loads(ask(run_rd, "--json").stdout)
    assert embedded == []
    assert len(found) == len(images) == 7
    for row, image in zip(found, images, strict=True):
        same = ("input", "sha256", "verdict", "reason", "reach")
        assert {key: row[key] for key in same} == {key: image[key] for key in same}
        assert row["score"] == pytest.approx(image["score"], abs=2e-6)
        assert (row["nearest_fake"], row["nearest_real"]) == (
            image["nearest"]["fake"],
            image["nearest"]["real"],
        )
        assert row["top_generator"] == image["attribution"][0]["generator"]
        assert (row["verdict"], row["reason"]) == ("unknown", "uncalibrated")
        assert row["p_real"] is row["p_new"] is row["log10_lr"] is row["error"] is None


def test_what_a_mac_leaves_beside_files_is_no_file_of_a_folder(vectors, run_rd):
    (vectors.parent / "embedded").mkdir()
    vectors.rename(vectors.parent / "embedded" / "q.parquet")
    (vectors.parent / "embedded" / "._q.parquet").write_bytes(b"no table")
    assert len(json.loads(ask(run_rd, "--json", source="embedded").stdout)) == 7


def test_formats(vectors, run_rd):
    lines = [json.loads(line) for line in ask(run_rd, "--format", "jsonl").stdout.splitlines()]
    rows = list(csv.DictReader(io.StringIO(ask(run_rd, "--format", "csv").stdout)))
    assert [row["input"] for row in rows] == [line["input"] for line in lines] and len(rows) == 7
    assert [float(row["score"]) for row in rows] == [line["score"] for line in lines]
    people = ask(run_rd)
    first = f"UNKNOWN: uncalibrated     score {lines[0]['score']:+.2f}  best fake 0."
    assert people.stdout.splitlines()[0].startswith(first)
    assert "7 images: 7 unknown; " in people.stderr and "Scores are uncalibrated" in people.stderr
    assert ask(run_rd, "-q").stdout.splitlines()[0].split("\t")[2] == lines[0]["input"]


def test_a_folder_of_verdicts(vectors, run_rd):
    first = json.loads(ask(run_rd, "--out", "verdicts", "--json").stdout)
    assert (first["rows"], first["shown"], first["failed"], first["shards_kept"]) == (7, 7, 0, 0)
    assert sum(first["verdicts"].values()) == 7 and first["generation"] == 1
    table = pq.read_table("verdicts/q.00000.parquet")
    streamed = json.loads(ask(run_rd, "--json").stdout)
    assert table["uri"].to_pylist() == [row["input"] for row in streamed]
    assert [round(score, 6) for score in table["score"].to_pylist()] == [row["score"] for row in streamed]
    about = json.loads(table.schema.metadata[b"rescored"])
    assert about["index"]["generation"] == 1 and about["question"]["method"] == "density"
    again = json.loads(ask(run_rd, "--out", "verdicts", "--json").stdout)
    assert again == first | {"shards_kept": 1}


def test_only_what_changed_since(vectors, pictures, run_rd):
    write_pictures(pictures / "more", range(300, 306), fake=True)
    assert run_rd("bank", "add", "more", "--label", "fake", "--generator", "new").exit_code == 0
    before = {row["input"]: row for row in json.loads(ask(run_rd, "--json").stdout)}
    changed = [
        json.loads(line)
        for line in ask(run_rd, "--changed-since", "1", "--format", "jsonl").stdout.splitlines()
    ]
    assert changed  # uncalibrated, a row has changed whose nearer bank is another
    for row in changed:
        assert row["verdict"] == row["verdict_before"] == "unknown"
        assert row["score"] == before[row["input"]]["score"]
        assert (row["score"] > 0) != (row["score_before"] > 0)
    record = json.loads(ask(run_rd, "--changed-since", "1", "--out", "changes", "--json").stdout)
    assert (record["rows"], record["shown"], record["changed_since"]) == (7, len(changed), 1)
    said = ask(run_rd, "--changed-since", "1", "--out", "changes").stdout
    assert f"{len(changed)} of 7 changed from generation 1 to 2" in said


def test_bad_rows_fail_and_the_others_go_on(vectors, run_rd):
    table = pq.read_table(vectors)
    values, at = table["proj"].to_pylist(), table.schema.get_field_index("proj")
    values[2] = [float("nan")] * len(values[0])
    column = pa.array(values, table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), column), vectors)
    result = ask(run_rd, "--format", "jsonl", exit_code=3)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["error"] is not None for row in rows] == [i == 2 for i in range(7)]
    assert f"{rows[2]['input']}: bad-vector: a vector is zero or not finite" in result.stderr
    result = ask(run_rd, "--out", "verdicts", exit_code=3)
    assert "1 row could not be judged" in result.stderr
    assert ask(run_rd, "--out", "verdicts", exit_code=3).exit_code == 3


def foreign(path):
    pq.write_table(pa.table({"uri": ["a"]}), path)


def other_type(path):
    table = pq.read_table(path)
    at = table.schema.get_field_index("proj")
    pq.write_table(table.set_column(at, "proj", pa.array([b"xy"] * len(table), pa.binary(2))), path)


def other_encoder(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(dict(table.schema.metadata) | {b"fingerprint": b"00"}), path)


@pytest.mark.parametrize(
    ("spoil", "exit_code", "said"),
    [
        (lambda path: path.write_bytes(b"no parquet"), 2, "cannot be read as Parquet"),
        (foreign, 2, "does not say which encoder its vectors are of"),
        (other_type, 1, "column proj is fixed_size_binary[2], not fixed_size_list<item: halffloat"),
        (other_encoder, 1, "holds vectors of tiny, the index those of tiny, or of other weights"),
        (lambda path: pq.write_table(pq.read_table(path).drop(["proj"]), path), 2, "lacks column proj"),
        (lambda path: pq.write_table(pq.read_table(path).drop(["phash"]), path), 2, "lacks column phash"),
    ],
)
def test_files_that_hold_no_such_vectors(vectors, run_rd, spoil, exit_code, said):
    spoil(vectors)
    result = run_rd("rescore", "q.parquet", "--out", "verdicts")
    assert said in one_error(result, exit_code)
    assert not (vectors.parent / "verdicts").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("rescore", "q.parquet", "ask"), "does not know what 'ask' is meant to be"),
        (("rescore", "q.parquet", "--fpr", "fdr=0.1"), "give --fpr RATE"),
        (("rescore", "q.parquet", "--stability"), "has no option --stability"),
        (("rescore", "q.parquet", "--prior", "0.1"), "has no option --prior"),
        (("rescore", "q.parquet", "--fpr", "0.1"), "means nothing without a calibration"),
        (("rescore", "q.parquet", "--set", "prior=0.1"), "has nothing called prior to set"),
        (("rescore", "q.parquet", "--photographs", "old"), "'old' is not one of 'new', 'known'"),
        (("rescore", "q.parquet", "--changed-since", "1"), "1 is in force"),
        (("rescore", "q.parquet", "--out", "photos"), "photos holds other things than verdicts"),
        (("rescore", "photos"), "there is no .parquet file in photos"),
        (("rescore", "nothing"), "does not exist"),
        (("query", "--vectors", "q.parquet"), "rd query --vectors is now: rd rescore VECTORS"),
    ],
)
def test_what_does_not_go_together(vectors, run_rd, args, said):
    assert said in one_error(run_rd(*args), 2)
