"""The JSON Schema of verdicts: the shape other programs may rely on (``verdict-2.schema.json``)."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from retrieval_detect.types import SCHEMA


def verdict_schema(version: int = SCHEMA) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``Verdict.to_dict``, or of what an earlier rd wrote."""
    name = f"verdict-{version}.schema.json"
    text = files("retrieval_detect.report").joinpath(name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
