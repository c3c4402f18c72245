"""Where the parts of an index lie within its folder."""

from __future__ import annotations

import hashlib
import json

CURRENT = "CURRENT"
MANIFESTS = "manifests"
SHARDS = "shards"
TOMBSTONES = "tombstones"
CANARIES = "canaries"
MISTAKES = "mistakes"
STAGING = "staging"
BANKS = "banks"
PINS = "pins"
FAILURES = "failures.jsonl"
FITTED = {
    "projection": "projections",
    "head": "heads",
    "calibration": "calibrations",
    "regions": "regions",
    "coverage": "coverage",
}
LOCK = ".lock"
PROJECTION_ID = 12
"""Digits of a projection's digest in names of derived files."""


def plain_id(layer: str) -> str:
    """What derived files of a stored layer, searched as it is, are named by."""
    text = json.dumps({"kind": "identity", "layer": layer}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:PROJECTION_ID]
