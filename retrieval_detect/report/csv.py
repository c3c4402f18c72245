"""Verdicts as flat rows, for spreadsheets: the few values people sort and filter by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_detect.types import Failure
    from retrieval_detect.verdicts import Verdict

COLUMNS = (
    *("input", "verdict", "reason", "reach", "score", "log10_lr", "p_real", "p_new", "p_fake", "p_typical"),
    *("votes_fake", "votes_of", "best_fake", "best_real", "coverage", "top_generator"),
    *("stable", "regions", "regions_p_max"),
    *("sha256", "index", "generation", "warnings", "error"),
)


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """One image: all of ``COLUMNS``, ``error`` empty.

    ``top_generator`` : of the nearest fakes, by its share of the density, or of those that the head asked
    tells apart; the true tool may be absent.
    ``coverage`` : the mean similarity of the nearest photographs, see ``Verdict.coverage``.
    ``stable`` : the share of re-encodings that agree. ``regions`` : the crops' scores, pooled.
    """
    row = dict.fromkeys(COLUMNS) | {
        "input": verdict.input,
        "verdict": verdict.verdict,
        "score": round(verdict.score, 6),
        "reason": verdict.reason,
        "reach": verdict.reach,
        **{f"p_{name}": p if p is None else round(p, 6) for name, p in (verdict.p_values or {}).items()},
        "votes_fake": verdict.votes.fake,
        "votes_of": verdict.votes.of,
        "best_fake": round(verdict.nearest["fake"], 6),
        "best_real": round(verdict.nearest["real"], 6),
        "top_generator": verdict.attribution[0].generator,
        "sha256": verdict.sha256,
        "index": verdict.index.name,
        "generation": verdict.index.generation,
        "warnings": "; ".join(verdict.warnings),
    }
    if verdict.log10_lr is not None:
        row["log10_lr"] = round(verdict.log10_lr, 4)
    if verdict.coverage is not None:
        row["coverage"] = round(verdict.coverage["similarity"], 6)
    if stability := verdict.stability:
        row["stable"] = round(stability.agree / max(stability.of, 1), 4)
    if regions := verdict.regions:
        row["regions"] = round(regions.score, 6)
        row["regions_p_max"] = None if regions.p_max is None else round(regions.p_max, 6)
    return row


def failure_row(failure: Failure) -> dict[str, Any]:
    """An input that could not be judged: ``error`` says why, nothing else is known."""
    row = {"input": failure.uri, "error": f"{failure.reason}: {failure.message}"}
    return dict.fromkeys(COLUMNS) | row
