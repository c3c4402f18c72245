"""Verdicts as JSON, schema 2: the shape other programs may rely on (``verdict-2.schema.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_detect.types import Failure
    from retrieval_detect.verdicts import Verdict

SCHEMA = 2
"""Schema 1 had no reach, and is closed: its text stays for what was written by it."""
_DIGITS: Mapping[str, int] = {
    **dict.fromkeys(
        ("score", "similarity", "nearest", "p_values", "p", "p_max", "probability", "change", "smallest"), 6
    ),
    **dict.fromkeys(("share", "bank_share_fake", "log10_lr", "log10_lr_interval", "elapsed_s"), 4),
}
"""After the point, by the name of the field or of what it stands in; what is in neither is kept as it is."""


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Plain JSON types. Scores: positive = fake; similarities are cosines; times in seconds."""
    data = _plain(asdict(verdict))
    del data["by_bank"]
    return {"schema": SCHEMA, **data, "provenance": data["provenance"] or {}}


def _plain(value: Any, digits: int | None = None) -> Any:
    """Mappings, lists, texts and numbers alone, each number with its digits."""
    if isinstance(value, Mapping):
        return {name: _plain(inner, _DIGITS.get(name, digits)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, digits) for inner in value]
    return round(value, digits) if digits is not None and isinstance(value, float) else value


def failure_json(failure: Failure) -> dict[str, Any]:
    """An input that could not be judged, as it stands among verdicts."""
    return {"schema": SCHEMA, "input": failure.uri, "error": failure.reason, "message": failure.message}


def verdict_schema(version: int = SCHEMA) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``verdict_json``, or of what an earlier rd wrote."""
    name = f"verdict-{version}.schema.json"
    text = files("retrieval_detect.report").joinpath(name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
