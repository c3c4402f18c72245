"""Verdicts as flat rows, for spreadsheets: the few values people sort and filter by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval_detect.types import Failure
    from retrieval_detect.verdicts import Verdict

COLUMNS = (
    "input",
    "verdict",
    "score",
    "log10_lr",
    "p_real",
    "p_fake",
    "p_typical",
    "votes_fake",
    "votes_of",
    "best_fake",
    "best_real",
    "top_generator",
    "stable",
    "regions",
    "regions_p_max",
    "sha256",
    "index",
    "generation",
    "warnings",
    "error",
)


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """One image: all of ``COLUMNS``, ``error`` empty.

    ``top_generator`` : of the nearest fakes, by its share of the density, or of those that the head asked
    tells apart; the true tool may be absent.
    ``stable`` : the share of re-encodings that agree. ``regions`` : the crops' scores, pooled.
    """
    stability, regions = verdict.stability, verdict.regions
    return _row(
        input=verdict.input,
        verdict=verdict.verdict,
        score=round(verdict.score, 6),
        log10_lr=None if verdict.log10_lr is None else round(verdict.log10_lr, 4),
        **{f"p_{name}": round(p, 6) for name, p in (verdict.p_values or {}).items()},
        votes_fake=verdict.votes.fake,
        votes_of=verdict.votes.of,
        best_fake=round(verdict.nearest["fake"], 6),
        best_real=round(verdict.nearest["real"], 6),
        top_generator=verdict.attribution[0].generator,
        stable=None if stability is None else round(stability.agree / max(stability.of, 1), 4),
        regions=None if regions is None else round(regions.score, 6),
        regions_p_max=None if regions is None or regions.p_max is None else round(regions.p_max, 6),
        sha256=verdict.sha256,
        index=verdict.index.name,
        generation=verdict.index.generation,
        warnings="; ".join(verdict.warnings),
    )


def failure_row(failure: Failure) -> dict[str, Any]:
    """An input that could not be judged: ``error`` says why, nothing else is known."""
    return _row(input=failure.uri, error=f"{failure.reason}: {failure.message}")


def _row(**values: Any) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | values
