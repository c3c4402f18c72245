"""References that disagree, kinds of images nobody has named, mistakes: as rows, as data and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from retrieval_detect.report.words import name_of, number

if TYPE_CHECKING:
    from retrieval_detect.review.disagreements import Check
    from retrieval_detect.review.mistakes import JudgedMistake, Tally
    from retrieval_detect.review.unknown import Candidate, Discovery

NO_PROOF = "Disagreeing is no proof of a wrong label: a photograph of a drawing disagrees too. Look first."
NO_EVIDENCE = (
    "Unknown is no evidence of being generated: a new camera or a kind of screenshot is as likely. "
    "Look at the images; what they are is yours to say."
)
MAX_SHOWN = 5

# ---------------------------------------------------------------- check


def check_rows(check: Check) -> list[dict[str, Any]]:
    """A row for each reference that disagrees, the strongest first."""
    rounded = ("score", "other_similarity")
    return [row | {key: round(row[key], 6) for key in rounded} for row in map(asdict, check.disagreements)]


def check_json(check: Check) -> dict[str, Any]:
    """All that was found, in plain JSON types."""
    return {
        "asked": {s.label: s.asked for s in check.spreads},
        "not_asked": check.alone,
        "labels": [asdict(spread) for spread in check.spreads],
        "disagreements": check_rows(check),
        "deliveries": [asdict(delivery) for delivery in check.deliveries],
        "note": NO_PROOF,
    }


def check_lines(check: Check) -> list[str]:
    """How many disagree, how many would anyway, and which deliveries stand out."""
    lines = []
    for spread in check.spreads:
        asked = number(spread.asked, f"{spread.label} reference")
        anyway = (
            f"; {spread.as_far:,} score as far to the other side as the least of these, and about "
            f"{spread.expected:,} would be expected to anyway"
        )
        lines.append(
            f"{spread.disagree:,} of {asked} disagree with their neighbours{anyway * bool(spread.disagree)}"
        )
    for found in check.deliveries:
        lines.append(
            f"{found.kind} {found.name}, {found.label}: {found.disagree:,} of {found.n:,} disagree, "
            f"{found.disagree_elsewhere:,} of {found.n_elsewhere:,} elsewhere (p {found.p:.2g})"
        )
    if check.alone:
        lines.append(f"{number(check.alone, 'reference')} could not be asked: all of a bank is of one group")
    return lines


# ---------------------------------------------------------------- discover


def listing(discovery: Discovery) -> list[dict[str, Any]]:
    """Every image that was to be clustered, with its candidate; those in one first, central ones first."""
    gathered = [(v, c.number, rank) for c in discovery.candidates for rank, v in enumerate(c.images, start=1)]
    inside = {id(verdict) for verdict, _, _ in gathered}
    apart = [(verdict, None, None) for verdict in discovery.unknown if id(verdict) not in inside]
    return [
        {
            "input": verdict.input,
            "cluster": cluster,
            "rank": rank,
            "verdict": verdict.verdict,
            "score": round(verdict.score, 6),
            "sha256": verdict.sha256,
        }
        for verdict, cluster, rank in (*gathered, *apart)
    ]


def discovery_json(discovery: Discovery) -> dict[str, Any]:
    """All that was found, in plain JSON types."""
    candidates = [
        {
            "cluster": candidate.number,
            "size": len(candidate.images),
            "similarity": round(candidate.similarity, 6),
            "known": [
                asdict(known) | {"share": round(known.share, 4), "similarity": round(known.similarity, 6)}
                for known in candidate.known
            ],
            "images": [verdict.input for verdict in candidate.images],
        }
        for candidate in discovery.candidates
    ]
    return {
        "counts": dict(discovery.counts),
        "clustered": len(discovery.unknown),
        "candidates": candidates,
        "failures": [failure.to_dict() for failure in discovery.failures],
        "note": NO_EVIDENCE,
    }


def candidate_lines(candidate: Candidate) -> Iterator[str]:
    """One candidate: its size, its most central images, what is known next to it."""
    yield (
        f"Candidate {candidate.number}: {number(len(candidate.images), 'image')}, "
        f"similarity {candidate.similarity:.3f} to one another"
    )
    names = ", ".join(
        f"{name_of(k.name)} ({k.label}) {100 * k.share:.0f} % at {k.similarity:.3f}" for k in candidate.known
    )
    yield f"  nearest known  {names}"
    yield from (f"  {verdict.input}" for verdict in candidate.images[:MAX_SHOWN])
    if len(candidate.images) > MAX_SHOWN:
        yield f"  and {len(candidate.images) - MAX_SHOWN:,} more; the most central are shown"


def discovery_lines(discovery: Discovery, *, min_size: int) -> list[str]:
    """What was judged, and how much of it goes together."""
    judged = sum(discovery.counts.values())
    n = len(discovery.unknown)
    gathered = sum(len(candidate.images) for candidate in discovery.candidates)
    what = " or ".join(sorted({v.verdict for v in discovery.unknown}, reverse=True)) or "unknown"
    head = f"{n:,} of {number(judged, 'image')} {'is' if n == 1 else 'are'} {what}"
    if n < min_size:
        return [f"{head}: too few to look for a kind among them, which takes {min_size}"]
    if not discovery.candidates:
        return [f"{head}; no {min_size} of them are more like one another than like what is known"]
    found = number(len(discovery.candidates), "candidate")
    return [f"{head}; {gathered:,} of them form {found}"]


# ---------------------------------------------------------------- mistakes


def mistake_lines(tally: Tally | None) -> Iterator[str]:
    """How many of the mistakes kept are right now, and those that were and are not any more."""
    if tally is None:
        return
    n, before = len(tally.now), tally.n_before
    kept = f"{number(n, 'mistake')} kept" + f" (before: {before:,})" * (before not in (n, None))
    if not n:
        yield f"  {kept}"
        return
    asked = [mistake for mistake in tally.now if mistake.right is not None]
    if not asked:
        yield f"  {kept}; none can be judged now, for one of the banks is empty"
        return
    moved = f", {tally.better:,} better, {len(tally.worse):,} worse" * bool(tally.before)
    how = "" if asked[0].calibrated else "; uncalibrated, by the sign of the score"
    yield f"  of {kept}, {tally.right:,} {_is(tally.right)} right now (own groups left out{how}){moved}"
    for mistake in tally.worse[:MAX_SHOWN]:
        yield f"    worse: {mistake_line(mistake)}"
    if len(tally.worse) > MAX_SHOWN:
        yield f"    and {len(tally.worse) - MAX_SHOWN:,} more: rd bank list --by mistake"


def mistake_line(mistake: JudgedMistake) -> str:
    """``3a7b12cd34ef is real (I took it); rd says fake-like, score +1.32``."""
    told = "cannot be asked" if mistake.score is None else f"{mistake.verdict}, score {mistake.score:+.2f}"
    return f"{mistake.content_id[:12]} is {mistake.label} ({mistake.because}); rd says {told}"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"
