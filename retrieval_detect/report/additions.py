"""What an addition changes, in words: who is found and flagged, and of what no photograph shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import islice
from typing import TYPE_CHECKING

from retrieval_detect.report.words import counted, name_of, number

if TYPE_CHECKING:
    from retrieval_detect.teach.apart import Apart
    from retrieval_detect.teach.measure import Change, Regression

_MOST_NAMES = 4


def regression_lines(report: Regression, *, budget: float) -> list[str]:
    """What an addition changes at either threshold: who is found, still found, wrongly flagged."""
    coming = report.coming or report
    rows = [f"{'called fake-like':20}  {'before':<11}  {'after':<11}{'  recalibrated' * bool(report.coming)}"]
    for now, then in zip(report.newcomers, coming.newcomers, strict=True):
        counts = [f"{count:,} of {now.n:,}" for count in (now.before, now.after, then.after)]
        rows.append(_columns(name_of(now.name), counts, report))
    pairs: list[tuple[str, Change, Change]] = []
    if report.generators:
        pairs.append(("old generators", report.old_generators, coming.old_generators))
        worst = {report.worst_generator.name, coming.worst_generator.name}
        pairs += _named(worst, report.generators, coming.generators)
    pairs.append(("photographs flagged", report.photographs, coming.photographs))
    pairs += _named({report.worst_source.name, coming.worst_source.name}, report.sources, coming.sources)
    pairs.append(("  most like the new", report.nearest, coming.nearest))
    for name, now, then in pairs:
        shares = [f"{100 * count / now.n:.1f} %" for count in (now.before, now.after, then.after)]
        moves = [
            f"{change.points:+.1f} ({change.interval[0]:+.1f}…{change.interval[1]:+.1f})"
            for change in ((now, then) if report.coming else (now,))
        ]
        rows.append(f"{_columns(name, shares, report)}  {'; '.join(moves)}")
    photographs = number(report.photographs.n, "calibration photograph")
    thresholds = "after: at the same threshold" + "; recalibrated: at the new one" * bool(report.coming)
    return [
        *rows,
        "  new images are judged without near-duplicates; indented: the worst; in brackets: 95 % intervals, "
        "in points",
        f"  {thresholds}",
        f"  refused where photographs flagged rise by {budget:.1f} points more than chance explains",
        *[f"  {photographs} are too few to tell what it does to false alarms: nothing is refused"]
        * (not report.tells),
    ]


def apart_lines(found: Iterable[Apart]) -> Iterator[str]:
    """Generators without photographs of what they show, and what that does to such photographs."""
    for one in found:
        part = f"{one.images:,} of {one.of:,} images" if one.images < one.of else number(one.images, "image")
        such = f" (such as {', '.join(one.examples)})" * bool(one.examples)
        yield (
            f"{part} of {name_of(one.generator)}{such}: no photographs near them (nearest: "
            f"{counted(dict(islice(one.nearest.items(), _MOST_NAMES)))}); until the real bank has some, "
            "photographs of that subject will look like this generator"
        )


def _columns(name: str, cells: Sequence[str], report: Regression) -> str:
    shown = cells if report.coming else cells[:2]
    return f"{name:<20}  {'  '.join(f'{cell:<11}' for cell in shown)}".rstrip()


def _named(
    names: Set[str], now: Sequence[Change], then: Sequence[Change]
) -> Iterator[tuple[str, Change, Change]]:
    """Changes of some names, as both thresholds have them."""
    for change, coming in zip(now, then, strict=True):
        if change.name in names:
            yield f"  {name_of(change.name)}", change, coming
