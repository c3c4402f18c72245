"""``rd query`` as its users meet it: every way in, every format out, and what it says when it cannot."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import tarfile

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.table import COLUMNS, SCHEMA
from retrieval_detect.cli import out_files
from retrieval_detect.report.json import verdict_schema
from tests.building import one_error
from tests.factories import picture, png, write_pictures

VALID = jsonschema.Draft202012Validator(verdict_schema())
VALID_FAILURE = jsonschema.Draft202012Validator(
    {"$ref": "#/$defs/failure", "$defs": verdict_schema()["$defs"]}
)


def ask(run_rd, *args, exit_code=0):
    result = run_rd("query", *args)
    assert result.exit_code == exit_code, result.stderr
    return result


def verdict(run_rd, *args):
    (answer,) = json.loads(ask(run_rd, *args, "--json").stdout)
    VALID.validate(answer)
    return answer


def complaint(result, exit_code):
    assert result.exit_code == exit_code, result.stderr
    assert result.stdout == "" and result.stderr.count("Error: ") == 1 and "Traceback" not in result.stderr
    return result.stderr


# ---------------------------------------------------------------- formats


def test_one_image_for_people(index, run_rd):
    lines = ask(run_rd, "ask/0200.png").stdout.splitlines()
    answer = verdict(run_rd, "ask/0200.png")
    nearer = "fake" if answer["score"] > 0 else "real"
    assert lines[0] == (
        f"ask/0200.png  UNKNOWN: uncalibrated; nearer to the {nearer} bank     score {answer['score']:+.2f}"
    )
    assert lines[1] == ("  The score says which bank is nearer, and not how often a photograph scores so.")
    assert lines[2].startswith(f"  nearest  {answer['votes']['fake']} of 10 are fake ")
    assert "(fakes are 48 % of the references)" in lines[2]
    assert lines[3].endswith("; the true tool may be absent")
    assert any(
        "bank     default, generation 1: 12 real, 11 fake, 2 generators · tiny" in line for line in lines
    )
    assert lines[-1] == "  --report FILE.html shows the nearest references, --evidence 10 names them"
    for word in ("authentic", "is fake", "probab"):
        assert word not in "\n".join(lines).lower().replace("are fake", "")


def test_evidence_is_shown_with_what_it_is_not(index, run_rd):
    shown = ask(run_rd, "ask/0200.png", "--evidence", "3").stdout
    first = verdict(run_rd, "ask/0200.png")["evidence"][0]
    assert f"    1  {first['similarity']:.3f}  {first['label']}" in shown and "    4  " not in shown
    assert "neither a source nor proof" in shown and "--evidence" not in shown


def test_many_images_for_people(index, run_rd):
    result = ask(run_rd, "ask", "generated/flux")
    assert len(result.stdout.splitlines()) == 8
    answers = json.loads(ask(run_rd, "ask", "generated/flux", "--json").stdout)
    for line, answer in zip(result.stdout.splitlines(), answers, strict=True):
        assert f"UNKNOWN: uncalibrated     score {answer['score']:+.2f}  " in line
        assert line.startswith("A REFERENCE ITSELF (fake, flux)") == answer["input"].startswith("generated/")
        assert line.endswith(f"{answer['votes']['fake']} of 10 nearest are fake  {answer['input']}")
    assert "8 images: 8 unknown; " in result.stderr and "Scores are uncalibrated" in result.stderr


def test_what_an_answer_says(index, run_rd):
    answer = verdict(run_rd, "ask/0200.png")
    assert answer["input"] == "ask/0200.png" and answer["index"]["generation"] == 1
    assert (answer["schema"], answer["verdict"], answer["reason"]) == (2, "unknown", "uncalibrated")
    assert answer["reach"] is answer["p_values"] is answer["log10_lr"] is None
    assert answer["photographs"] == "new" and answer["score"] != 0 and len(answer["evidence"]) == 10


@pytest.mark.parametrize("how", ["ask/0200.png", "ask", "ask/*.png", "list"])
def test_json_is_an_array_however_an_image_is_named(index, pictures, run_rd, how):
    for name in ("0201.png", "0202.png"):
        (pictures / "ask" / name).unlink()
    (pictures / "list").write_text("ask/0200.png\n")
    given = ("--from-file", "list") if how == "list" else (how,)
    (answer,) = json.loads(ask(run_rd, *given, "--json").stdout)
    VALID.validate(answer)
    assert "nearest fakes" in ask(run_rd, *given).stdout  # and people get the whole answer


def test_jsonl_has_a_line_an_image_failures_among_them(index, pictures, run_rd):
    (pictures / "ask" / "0201.png").write_bytes(b"no picture")
    result = ask(run_rd, "ask", "--format", "jsonl", exit_code=3)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["input"] for answer in answers] == [f"ask/020{n}.png" for n in range(3)]
    VALID.validate(answers[0])
    VALID_FAILURE.validate(answers[1])
    assert answers[1]["error"] == "not-an-image" and "ask/0201.png" in result.stderr


def test_csv_is_flat(index, pictures, run_rd):
    (pictures / "ask" / "0201.png").write_bytes(b"no picture")
    result = ask(run_rd, "ask", "--format", "csv", exit_code=3)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 3
    whole = verdict(run_rd, "ask/0200.png")
    assert float(rows[0]["score"]) == whole["score"] and rows[0]["sha256"] == whole["sha256"]
    assert float(rows[0]["best_fake"]) == whole["nearest"]["fake"]
    assert (int(rows[0]["votes_fake"]), int(rows[0]["votes_of"])) == (whole["votes"]["fake"], 10)
    assert rows[0]["top_generator"] in {"sdxl", "flux"} and rows[0]["error"] == ""
    assert (rows[0]["verdict"], rows[0]["reason"], rows[0]["reach"]) == ("unknown", "uncalibrated", "")
    assert rows[1]["error"].startswith("not-an-image: ") and rows[1]["score"] == rows[1]["verdict"] == ""


def test_a_table_has_the_rows_of_csv_aligned_with_the_images(index, pictures, run_rd, monkeypatch):
    monkeypatch.setattr(out_files, "_ROWS_AT_ONCE", 2)
    (pictures / "ask" / "0201.png").write_bytes(b"no picture")
    result = ask(run_rd, "ask", "--out", "verdicts.parquet", "--format", "csv", exit_code=3)
    table = pq.read_table("verdicts.parquet")
    assert table.schema == SCHEMA
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(table) == len(rows) == 3
    for row, shown in zip(table.to_pylist(), rows, strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == shown


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--out", "verdicts.txt"), "verdicts.txt ends in neither .parquet nor .png"),
        (("--out", "nowhere/verdicts.parquet"), "there is no folder nowhere"),
        (("--out", "v.parquet", "--evidence", "blind", "--report", "a.html"), "do not go together"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_before_any_work(index, run_rd, embedded, args, said):
    assert said in one_error(run_rd("query", "ask", *args), 2) and not embedded


def test_an_image_that_cannot_be_judged_leaves_no_table(index, pictures, run_rd):
    (pictures / "broken.png").write_bytes(b"no picture")
    ask(run_rd, "broken.png", "--out", "verdicts.parquet", exit_code=1)
    assert not (pictures / "verdicts.parquet").exists()


def test_quiet_is_verdict_score_and_name(index, run_rd):
    result = ask(run_rd, "ask", "-q")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[2] for row in rows] == [f"ask/020{n}.png" for n in range(3)]
    scores = [answer["score"] for answer in json.loads(ask(run_rd, "ask", "--json").stdout)]
    assert [(row[0], float(row[1])) for row in rows] == [("unknown", score) for score in scores]
    assert result.stderr == ""


@pytest.mark.parametrize("format_", ["human", "json", "jsonl", "csv", "quiet"])
def test_answers_are_printed_as_they_come(index, run_rd, monkeypatch, capsys, format_):
    stream, printed = Detector.stream, []

    def watching(self, *args, **kwargs):
        for answer in stream(self, *args, **kwargs):
            printed.append(sys.stdout.getvalue() if hasattr(sys.stdout, "getvalue") else "")
            yield answer

    monkeypatch.setattr(Detector, "stream", watching)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    run_rd("query", "ask", "--format", format_)
    assert "ask/0200.png" in printed[1] and "ask/0201.png" not in printed[1]
    assert "ask/0201.png" in printed[2]


# ---------------------------------------------------------------- ways in


def feed(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_the_same_image_by_every_way_in(index, pictures, run_rd, monkeypatch):
    expected = verdict(run_rd, "ask/0200.png")["score"]
    with tarfile.open("ask.tar", "w") as archive:
        archive.add("ask/0200.png")
    pq.write_table(pa.table({"image": [{"bytes": png(200), "path": "x.png"}]}), "ask.parquet")
    (pictures / "list").write_text("ask/0200.png\n\n")
    ways = [("ask.tar",), ("ask.parquet",), ("ask/*0.png",), ("--from-file", "list"), ("./ask/0200.png",)]
    answers = [json.loads(ask(run_rd, *way, "--format", "jsonl").stdout) for way in ways]
    for data, way in [
        (png(200), ("-",)),
        (b"ask/0200.png\n", ("--from-file", "-")),
        (b"ask/0200.png\0", ("--from-file", "-,null")),
    ]:
        feed(monkeypatch, data)
        answers.append(json.loads(ask(run_rd, *way, "--format", "jsonl").stdout))
    assert [answer["score"] for answer in answers] == [expected] * 8
    assert answers[0]["input"] == "ask.tar::ask/0200.png" and answers[1]["input"] == "ask.parquet::row:0"


def test_a_name_with_a_new_line_can_be_asked_by_nul(index, pictures, run_rd, monkeypatch):
    name = os.fsdecode(b"a\n\x1b[31m\xff.png")
    (pictures / name).write_bytes(png(200))
    feed(monkeypatch, os.fsencode(name) + b"\0ask/0201.png\0")
    result = ask(run_rd, "--from-file", "-,null")
    assert len(result.stdout.splitlines()) == 2 and "\x1b" not in result.stdout
    assert "a\\n\\x1b[31m\\xff.png" in result.stdout.splitlines()[0]
    assert verdict(run_rd, name)["input"] == "a\n\x1b[31m\\xff.png"


@pytest.mark.parametrize("flags", ["", ",null"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_list_as_powershell_writes_it(index, pictures, run_rd, flags, encoding):
    """By its byte order mark, or refused: cut at each NUL it would begin with /, the whole disk."""
    text = f"{pictures / 'ask' / '0200.png'}\r\n" + "\r\n" * (not flags)
    (pictures / "list").write_bytes((text if not flags else text.strip()).encode(encoding))
    result = run_rd("query", "--from-file", f"list{flags}", "--format", "jsonl")
    if encoding == "utf-16":
        assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    else:
        assert result.exit_code == 2 and "UTF-16 without a byte order mark" in result.stderr
        assert "-0" not in result.stderr and not result.stdout


def test_a_path_of_a_list_that_is_not_there_fails_alone(index, pictures, run_rd):
    (pictures / "list").write_text("ask/0200.png\nask/nowhere.png\nask/0202.png\n")
    result = ask(run_rd, "--from-file", "list", "--format", "jsonl", exit_code=3)
    assert [("error" in json.loads(line)) for line in result.stdout.splitlines()] == [False, True, False]
    assert "'ask/nowhere.png' does not exist" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "there is nothing to judge"),
        (("ask", "--from-file", "list"), "images and --from-file are both given"),
        (("--from-file", "nowhere"), "nowhere"),
        (("--from-file", "empty"), "the list empty names no image"),
        (("-", "ask"), "- stands for one image on stdin"),
        (("ask/0200.png", "ask/nowhere.png"), "'ask/nowhere.png' does not exist"),
        (("nothing",), "folder 'nothing' holds no image"),
        (("ask", "--set", "k=0"), "k must be a whole number above 0, not '0'"),
        (("ask", "--set", "k=-3"), "k must be a whole number above 0"),
        (("ask", "--method", "oracle"), "Votes: density, nearest, mean, majority. Heads: none"),
        (("ask", "--method", "nearest", "--set", "k=5"), "the nearest vote counts one neighbour, not 5"),
        (("ask", "--evidence", "99"), "99 is not in the range"),
        (("ask", "--format", "xml"), "format must be one of human, json"),
        (("ask", "--photographs", "old"), "'old' is not one of 'new', 'known'"),
        (("ask", "--set", "prior=0.5"), "means nothing without a calibration"),
        (("ask", "--set", "prior=1"), "prior cannot be '1'"),
        (("ask", "--prior", "0.5"), "rd query --prior is now: --set prior=VALUE"),
    ],
)
def test_a_call_that_cannot_be_meant(index, pictures, run_rd, args, said):
    (pictures / "list").write_text("ask/0200.png\n")
    (pictures / "empty").write_text("\n")
    (pictures / "nothing").mkdir()
    assert said in complaint(run_rd("query", *args), 2)


# ---------------------------------------------------------------- exit codes


def test_uncalibrated_never_exits_10(index, pictures, run_rd):
    """Whichever bank is nearer: how often a photograph scores so is not known. Calibrated: test_fit.py."""
    nearer: dict[bool, list[str]] = {True: [], False: []}
    for seed in range(100, 110):
        path = pictures / f"{seed}.png"
        path.write_bytes(png(seed))
        nearer[verdict(run_rd, path.name)["score"] > 0].append(path.name)
    assert all(nearer.values())
    (pictures / "bad.png").write_bytes(b"no picture")
    for names in nearer.values():
        assert run_rd("query", *names).exit_code == 0
        for known in ((), ("--photographs", "known")):
            assert run_rd("query", *names, *known, "--exit-code").exit_code == 11
        assert run_rd("query", *names, "bad.png").exit_code == 3
        assert run_rd("query", *names, "bad.png", "--exit-code").exit_code == 11


def test_one_bad_image_is_an_error(index, pictures, run_rd):
    (pictures / "bad.png").write_bytes(png(1)[:150])
    assert "bad.png: the file is cut short" in complaint(run_rd("query", "bad.png"), 1)
    result = run_rd("query", "bad.png", "--json")
    (said,) = json.loads(result.stdout)
    assert (said["input"], said["error"], result.exit_code) == ("bad.png", "truncated", 1)


def test_all_bad_images(index, pictures, run_rd):
    write_pictures(pictures / "bad", range(2))
    for path in (pictures / "bad").iterdir():
        path.write_bytes(b"no picture")
    result = ask(run_rd, "bad", exit_code=3)
    assert "No image was judged: 2 inputs could not be used." in result.stderr


# ---------------------------------------------------------------- references that are the query


def test_a_reference_is_told_and_does_not_vote(index, run_rd):
    answer = verdict(run_rd, "photos/camera/0003.png")
    (own,) = answer["same_image"]
    assert own["content_id"] == answer["sha256"] and own["uri"].endswith("photos/camera/0003.png")
    assert own["row_id"] not in {e["row_id"] for e in answer["evidence"]}
    assert "this very image is a reference of the index; it did not vote" in answer["warnings"]
    assert answer["nearest"]["real"] < 0.99


def test_a_reference_votes_as_if_it_were_not_there(index, run_rd):
    with_it = verdict(run_rd, "photos/camera/0003.png", "--method", "mean")
    run_rd("bank", "remove", "--row", str(with_it["same_image"][0]["row_id"]), "--yes")
    without = verdict(run_rd, "photos/camera/0003.png", "--method", "mean")
    assert without["same_image"] == [] and without["score"] == with_it["score"]
    assert without["evidence"] == with_it["evidence"]


def test_a_copy_in_another_form_is_told_and_does_not_vote(index, run_rd):
    photograph = picture(3)
    photograph.save("copy.jpg", quality=80)
    photograph.resize((90, 90), Image.Resampling.BICUBIC).save("larger.webp", quality=90)
    for name in ("copy.jpg", "larger.webp"):
        answer = verdict(run_rd, name)
        (own,) = answer["same_image"]
        assert own["uri"].endswith("photos/camera/0003.png") and own["similarity"] > 0.95
        assert own["row_id"] not in {e["row_id"] for e in answer["evidence"]}
        assert (
            "near-duplicates of this image are references of the index; they did not vote"
            in answer["warnings"]
        )
    shown = ask(run_rd, "copy.jpg").stdout
    assert "  same image  " in shown and "they did not vote" in shown


def test_a_reference_set_aside_for_calibration_is_told(index, pictures, run_rd):
    write_pictures(pictures / "photos" / "large", range(300, 340))
    run_rd("bank", "add", "photos/large", "--label", "real", "--source", "large")
    rows = list(csv.DictReader(io.StringIO(run_rd("bank", "list", "--by", "row", "--format", "csv").stdout)))
    held = [row for row in rows if row["split"] == "calib"]
    assert held
    answer = verdict(run_rd, held[0]["uri"])
    assert [own["row_id"] for own in answer["same_image"]] == [int(held[0]["row_id"])]
    assert "it did not vote" in " ".join(answer["warnings"])
    assert answer["index"]["n_real"] == 12 + 40 - len(held)


# ---------------------------------------------------------------- few references


def test_k_larger_than_a_bank(index, run_rd):
    answer = verdict(run_rd, "ask/0200.png", "--method", "mean", "--set", "k=500")
    assert answer["k"] == 11
    assert "k is 500, but only 11 images of the fake bank can vote" in answer["warnings"]
    assert (
        verdict(run_rd, "ask/0200.png", "--set", "k=500")["score"] == verdict(run_rd, "ask/0200.png")["score"]
    )


def test_banks_of_one_image(pictures, run_rd):
    one = ("--real", "photos/phone/0010.png", "--fake", "generated/flux/0060.png", "--encoder", "tiny")
    assert run_rd("build-index", *one).exit_code == 0
    for method in ("density", "nearest", "mean", "majority"):
        answer = verdict(run_rd, "ask/0200.png", "--method", method)
        assert answer["votes"]["of"] == 2 and answer["attribution"][0]["share"] == 1.0
        gap = answer["nearest"]["fake"] - answer["nearest"]["real"]
        assert (answer["score"] > 0) == (gap > 0)
    alone = complaint(run_rd("query", "photos/phone/0010.png"), 1)
    assert "no reference of the real bank is left to vote" in alone


@pytest.mark.parametrize("label", ["real", "fake"])
def test_an_empty_bank(pictures, run_rd, label):
    folder = "photos" if label == "real" else "generated"
    run_rd("build-index", f"--{label}", folder, "--encoder", "tiny")
    other = "fake" if label == "real" else "real"
    said = complaint(run_rd("query", "ask"), 1)
    assert f"the {other} bank of index 'default' is empty" in said and f"--label {other}" in said


def test_no_index(pictures, run_rd):
    said = complaint(run_rd("query", "ask"), 1)
    assert "there is no index at" in said and "rd build-index --real DIR --fake DIR" in said
