"""images.lists: files that say row by row what an image is."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.lists import Columns, labelled
from retrieval_detect.images.sources import scan
from retrieval_detect.types import Facts

ROWS = [
    {"path": "a/1.png", "label": "real", "source": "camera", "category": "cat"},
    {"path": "/elsewhere/2.png", "label": " Fake ", "generator": "sdxl", "tags": "night"},
]
FOUND = [
    Facts("real", source="camera", category="cat"),
    Facts("fake", generator="sdxl", tags="night"),
]


def as_csv(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    path.with_suffix(".csv").write_text("\n".join(lines))
    return path.with_suffix(".csv")


def as_jsonl(path, rows):
    path.with_suffix(".jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    return path.with_suffix(".jsonl")


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def as_arrow(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    with pa.ipc.new_stream(path.with_suffix(".arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=1)
    return path.with_suffix(".arrow")


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_arrow])
def test_files_by_name(here, write):
    (here / "a").mkdir()
    (here / "a/1.png").write_bytes(b"one")
    found = list(labelled(write(here / "list", ROWS), Columns()))
    assert [facts for _, facts in found] == FOUND
    assert [item.uri for item, _ in found] == [str(here / "a/1.png"), "/elsewhere/2.png"]
    assert found[0][0].read() == b"one"
    with pytest.raises(OSError, match="No such file"):
        found[1][0].read()


@pytest.mark.parametrize("write", [as_parquet, as_arrow])
def test_images_in_rows_and_columns_by_other_names(here, write):
    rows = [
        {"jpg": b"1", "is_ai": 0, "model": "x", "site": "flickr", "tags": "t"},
        {"jpg": b"2", "is_ai": 1, "model": "flux", "site": "", "tags": None},
    ]
    path = write(here / "list", rows)
    columns = Columns("is_ai", real="0", fake="1", generator="model", source="site")
    found = list(labelled(path, columns))
    assert [facts for _, facts in found] == [
        Facts("real", source="flickr", tags="t"),
        Facts("fake", generator="flux"),
    ]
    assert [(item.uri, item.read()) for item, _ in found] == [(i.uri, i.read()) for i in scan([path])]


def test_names_that_hugging_face_keeps_of_numbers(here):
    features = {"label": {"names": ["FAKE", "REAL"], "_type": "ClassLabel"}, "x": "no feature"}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": [{"bytes": b"1"}, {"bytes": b"2"}], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata(about), "t.parquet")
    assert [facts.label for _, facts in labelled(here / "t.parquet", Columns())] == ["fake", "real"]


def test_a_name_with_half_a_pair_costs_its_own_row(here):
    (here / "1.png").write_bytes(b"one")
    rows = [{"path": "\ud800.png", "label": "real"}, {"path": "1.png", "label": "real"}]
    (first, _), (second, _) = labelled(as_jsonl(here / "l", rows), Columns())
    assert first.uri == str(here / "\\ud800.png") and second.read() == b"one"
    with pytest.raises(ImageError, match="no file can have this name"):
        first.read()


@pytest.mark.parametrize(
    ("name", "text", "columns", "said"),
    [
        ("l.csv", "path,label\n1.png,1\n", {}, r"l\.csv, row 2: label is '1', not real or fake"),
        ("l.jsonl", '{"path": "1.png"}', {}, "no column 'label'"),
        ("l.jsonl", '{"path": "1.png", "label": "real"}\n[1]', {}, "line 2: this is no JSON object"),
        ("l.jsonl", "path", {}, "line 1: this is no JSON"),
        ("l.csv", "path,label\n1.png,real\n", {"generator": "model"}, "no column 'model'"),
        ("l.csv", "label\nreal\n", {}, "no column 'path'"),
        ("l.csv", "path,label\n", {}, "lists no image"),
        ("l.jsonl", '{"path": "1.png", "label": "\\ud800"}', {}, r"label is '.*ud800', not real or fake"),
        ("l.jsonl", '{"path": "1.png", "\\ud800": ""}', {}, "no column 'label'"),
        ("l.txt", "1.png", {}, "is no list of images"),
        ("l.parquet", "PAR1", {}, "cannot be read as a table"),
    ],
)
def test_what_is_no_list(here, name, text, columns, said):
    (here / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        list(labelled(here / name, Columns(**columns)))
