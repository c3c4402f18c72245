"""Where the parts of an index lie within its folder."""

from __future__ import annotations

CURRENT = "CURRENT"
MANIFESTS = "manifests"
SHARDS = "shards"
TOMBSTONES = "tombstones"
CANARIES = "canaries"
STAGING = "staging"
BANKS = "banks"
FAILURES = "failures.jsonl"
FITTED = {"projection": "projections", "head": "heads", "calibration": "calibrations", "regions": "regions"}
LOCK = ".lock"
