"""The shape other programs rely on: the schema is strict, real, and kept."""

from __future__ import annotations

import copy
import json
from dataclasses import fields, replace
from importlib.util import find_spec

import jsonschema
import pytest

from retrieval_detect.ask.table import COLUMNS, Verdicts, row_of
from retrieval_detect.ask.table import SCHEMA as TABLE
from retrieval_detect.errors import UsageError
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.types import SCHEMA, Claim, Failure, Provenance
from retrieval_detect.verdicts import Verdict
from tests.verdicts import CALIBRATED as JUDGED
from tests.verdicts import REAL, VERDICT

SCHEMA_OF_VERDICTS = verdict_schema()
VALID = jsonschema.Draft202012Validator(SCHEMA_OF_VERDICTS)
MANIFEST = {
    "state": "Valid",
    "problems": ["signingCredential.untrusted"],
    "claim_generator": "A tool 1.0",
    "signer": "Somebody",
    "signed_at": "",
    "actions": [{"action": "c2pa.created"}],
    "ingredients": 0,
}
CLAIM = Claim("exif", "camera: Canon EOS R5", "easily forged")
PROVENANCE = Provenance(
    MANIFEST, {"make": "Canon", "gps": True}, None, {"tool": "ComfyUI"}, (CLAIM,), ("XMP",)
)
CALIBRATED = replace(JUDGED, provenance=PROVENANCE)


def test_a_verdict_in_json():
    data = VERDICT.to_dict()
    assert data["schema"] == SCHEMA == 2 and next(iter(data)) == "schema"
    assert data["score"] == 1.741235 and data["elapsed_s"] == 0.3123
    assert data["nearest"] == {"fake": 0.912346, "real": 0.8}
    assert data["votes"] == {"fake": 1, "real": 1, "of": 2, "bank_share_fake": 0.4877}
    assert data["attribution"][1] == {"generator": "", "of_nearest_fakes": 2, "share": 0.2857, "p": None}
    assert data["evidence"][0]["similarity"] == 0.912346 and data["evidence"][1]["source"] == "camera"
    assert data["index"]["n_real"] == 1495 and data["p_values"] is None


@pytest.mark.parametrize(
    "verdict",
    [
        VERDICT,
        CALIBRATED,
        replace(VERDICT, provenance=Provenance()),
        replace(VERDICT, same_image=(REAL,), warnings=()),
    ],
)
def test_verdicts_are_valid_before_and_after_json(verdict):
    VALID.validate(json.loads(json.dumps(verdict.to_dict(), allow_nan=False)))


def test_every_field_is_in_the_schema_and_no_other():
    shown = {f.name for f in fields(Verdict)} - {"by_bank"}  # for pages alone
    assert set(SCHEMA_OF_VERDICTS["properties"]) == {"schema", *shown}
    assert set(SCHEMA_OF_VERDICTS["required"]) == set(SCHEMA_OF_VERDICTS["properties"])


def nodes(schema, path="verdict"):
    yield path, schema
    for name, below in (schema.get("properties", {}) | schema.get("$defs", {})).items():
        yield from nodes(below, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


NODES = dict(nodes(SCHEMA_OF_VERDICTS))


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA_OF_VERDICTS)
    assert SCHEMA_OF_VERDICTS["$schema"].endswith("2020-12/schema") and len(NODES) > 50


@pytest.mark.parametrize("path", NODES)
def test_objects_are_closed_and_complete(path):
    node = NODES[path]
    kind = node.get("type")
    if ("object" in kind if kind else False) and path not in ("verdict.facts", "verdict.kinds"):
        assert node["additionalProperties"] is False
        assert sorted(node["required"]) == sorted(node["properties"])


@pytest.mark.parametrize("name", SCHEMA_OF_VERDICTS["properties"])
def test_every_field_is_explained_or_refers_to_what_explains(name):
    node = SCHEMA_OF_VERDICTS["properties"][name]
    assert node.get("description") or node.get("$ref") or name in ("verdict", "warnings")


def changed(path, value):
    data = copy.deepcopy(CALIBRATED.to_dict())
    target = data
    for key in path[:-1]:
        target = target[key]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 1),
        (("extra",), 1),
        (("sha256",), "ABCD"),
        (("verdict",), "fake"),
        (("score",), "1.7"),
        (("score",), None),
        (("method",), 3),
        (("k",), 0),
        (("k",), 1.5),
        (("votes", "of"), 0),
        (("votes", "fake"), -1),
        (("votes", "share"), 0.5),
        (("nearest", "fake"), None),
        (("attribution", 0, "share"), 1.2),
        (("attribution",), []),
        (("evidence", 0, "label"), "maybe"),
        (("evidence", 0, "rank"), 0),
        (("evidence", 0, "added_at"), "yesterday"),
        (("same_image",), [{}]),
        (("warnings",), "none"),
        (("index", "fingerprint"), ""),
        (("index", "n_fake"), 0),
        (("p_values", "real"), -0.1),
        (("p_values", "maybe"), 0.1),
        (("calibration", "sources"), None),
        (("probability",), 1.1),
        (("elapsed_s",), -1),
        (("provenance", "exif", "lens"), 3),
        (("provenance", "c2pa", "state"), None),
        (("provenance", "claims", 0, "trusted"), "yes"),
    ],
)
def test_the_schema_refuses(path, value):
    assert not VALID.is_valid(changed(path, value))


def test_a_failure_is_no_verdict_and_has_a_shape_of_its_own():
    failure = Failure("a.png", "truncated", "the file is cut short").to_dict()
    shape = jsonschema.Draft202012Validator({"$ref": "#/$defs/failure", "$defs": SCHEMA_OF_VERDICTS["$defs"]})
    shape.validate(failure)
    assert not VALID.is_valid(failure) and not shape.is_valid(VERDICT.to_dict())
    assert not shape.is_valid(failure | {"error": "Not A Code"})


# ---------------------------------------------------------------- rows


def test_a_row_holds_plain_values_in_a_fixed_order():
    row = row_of(VERDICT)
    assert tuple(row) == COLUMNS
    assert row == {
        "input": "photo.jpg",
        "verdict": "unknown",
        "reason": "uncalibrated",
        "reach": None,
        "score": 1.741235,
        "log10_lr": None,
        "p_real": None,
        "p_new": None,
        "p_fake": None,
        "p_typical": None,
        "votes_fake": 1,
        "votes_of": 2,
        "best_fake": 0.912346,
        "best_real": 0.8,
        "coverage": None,
        "top_generator": "sdxl",
        "stable": None,
        "regions": None,
        "regions_p_max": None,
        "verdict_beside": None,
        "sha256": "ef" * 32,
        "index": "default",
        "generation": 7,
        "warnings": "96×96 is smaller than the encoder's 224×224; second",
        "error": None,
    }


def test_a_calibrated_row_has_its_p_values():
    row = row_of(CALIBRATED)
    assert tuple(row) == COLUMNS
    assert row["coverage"] == 0.612346
    assert (row["log10_lr"], row["p_real"], row["p_fake"], row["p_typical"]) == (1.1, 0.003997, 0.61, 0.33)


def test_a_failure_is_a_row_with_the_same_columns():
    row = row_of(Failure("a.png", "truncated", "the file is cut short"))
    assert tuple(row) == COLUMNS
    assert {k: v for k, v in row.items() if v is not None} == {
        "input": "a.png",
        "error": "truncated: the file is cut short",
    }


def test_schema_1_is_closed_and_shipped():
    first = verdict_schema(1)
    jsonschema.Draft202012Validator.check_schema(first)
    assert first["properties"]["schema"] == {**first["properties"]["schema"], "const": 1}
    assert "reach" not in first["properties"]
    assert not jsonschema.Draft202012Validator(first).is_valid(CALIBRATED.to_dict())


# ---------------------------------------------------------------- a table

FAILED = Failure("a.png", "truncated", "the file is cut short")


def test_a_table_has_a_row_an_image_failures_among_them():
    table = Verdicts([VERDICT, FAILED, CALIBRATED]).to_arrow()
    assert table.schema == TABLE and tuple(table.column_names) == COLUMNS
    assert table.to_pylist() == [row_of(VERDICT), row_of(FAILED), row_of(CALIBRATED)]
    assert Verdicts([FAILED]).to_arrow().schema == Verdicts([]).to_arrow().schema == TABLE


def test_a_batch_is_a_sequence():
    batch = Verdicts(iter([VERDICT, FAILED, CALIBRATED]))
    assert len(batch) == 3 and batch[1] is FAILED and batch[-1] is CALIBRATED
    assert repr(batch[:0]) == "<0 images>"
    assert isinstance(batch[1:], Verdicts) and [*batch[1:]] == [FAILED, CALIBRATED]
    assert (
        repr(batch) == "<3 images: 1 unknown, 1 failed, 1 fake-like>"
        and repr(batch[:1]) == "<1 image: 1 unknown>"
    )


def test_a_data_frame_takes_pandas():
    batch = Verdicts([VERDICT, FAILED])
    if find_spec("pandas"):
        frame = batch.to_pandas()
        assert list(frame.columns) == list(COLUMNS) and frame["error"].notna().tolist() == [False, True]
    else:
        with pytest.raises(UsageError, match="pandas is not installed") as caught:
            batch.to_pandas()
        assert "to_arrow()" in caught.value.hint


def test_json_text_is_the_same():
    assert json.loads(CALIBRATED.to_json()) == CALIBRATED.to_dict()
    assert CALIBRATED.to_json().isascii() and CALIBRATED.to_json(indent=2).startswith('{\n  "schema": 2')
