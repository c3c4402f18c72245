"""Verdicts as JSON, schema 1: the shape other programs may rely on (``verdict.schema.json``)."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrieval_detect.types import Failure, Provenance
    from retrieval_detect.verdicts import Regions, Stability, Verdict

SCHEMA = 1


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Plain JSON types. Scores: positive = fake; similarities are cosines; times in seconds."""
    data = asdict(verdict)
    del data["by_bank"]
    return {
        "schema": SCHEMA,
        **data,
        "score": round(verdict.score, 6),
        "votes": data["votes"] | {"bank_share_fake": round(verdict.votes.bank_share_fake, 4)},
        "nearest": {label: round(similarity, 6) for label, similarity in verdict.nearest.items()},
        "attribution": [
            a | {"share": round(a["share"], 4), "p": _short(a["p"])} for a in data["attribution"]
        ],
        "evidence": [_evidence(e) for e in data["evidence"]],
        "same_image": [_evidence(e) for e in data["same_image"]],
        "p_values": _rounded(verdict.p_values),
        "log10_lr": None if verdict.log10_lr is None else round(verdict.log10_lr, 4),
        "probability": None if verdict.probability is None else round(verdict.probability, 6),
        "fdr": verdict.fdr,
        "stability": None if verdict.stability is None else _stability(verdict.stability),
        "regions": None if verdict.regions is None else _regions(verdict.regions),
        "influence": None
        if verdict.influence is None
        else [asdict(i) | {"score": _short(i.score), "change": _short(i.change)} for i in verdict.influence],
        "provenance": {} if verdict.provenance is None else _provenance(verdict.provenance),
        "warnings": list(verdict.warnings),
        "elapsed_s": round(verdict.elapsed_s, 4),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _provenance(found: Provenance) -> dict[str, Any]:
    claims = [asdict(claim) for claim in found.claims]
    return asdict(found) | {"claims": claims, "damaged": list(found.damaged)}


def _stability(found: Stability) -> dict[str, Any]:
    views = [asdict(view) | {"score": round(view.score, 6)} for view in found.views]
    return asdict(found) | {"views": views}


def _regions(found: Regions) -> dict[str, Any]:
    return asdict(found) | {
        "score": round(found.score, 6),
        "p_max": _short(found.p_max),
        "heat_map": [{"box": list(r.box), "score": round(r.score, 6)} for r in found.heat_map],
    }


def _rounded(values: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {name: round(value, 6) for name, value in values.items()}


def _evidence(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"similarity": round(data["similarity"], 6)}


def failure_json(failure: Failure) -> dict[str, Any]:
    """An input that could not be judged, as it stands among verdicts."""
    return {"schema": SCHEMA, "input": failure.uri, "error": failure.reason, "message": failure.message}


def verdict_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``verdict_json``."""
    text = files("retrieval_detect.report").joinpath("verdict.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
