"""Words about what was asked besides: re-encodings, regions, and what the score would be without whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from retrieval_detect.types import Claim, Provenance
    from retrieval_detect.verdicts import Influence, Region, Regions, Stability

Line: TypeAlias = Sequence[str | tuple[str, str]]

_SHADES = "░▒▓█"
POOLS = {"max": "highest", "mean": "mean", "top": "mean of the 3 highest"}


def agreement(found: Stability) -> str:
    """``14 of 16 re-encodings agree``."""
    return f"{found.agree} of {found.of} re-encodings agree"


def stability_lines(found: Stability | None) -> Iterator[Line]:
    """Whether the verdict outlives re-encoding, and what flips it."""
    if found is None:
        return
    said = agreement(found)
    if not found.holds:
        said += f": uncertain ({100 * found.threshold:.3g} % must); the image as it is: {found.verdict}"
    yield [f"  stable   {said}"]
    kinds = Counter(_kind(view.view) for view in found.views)
    flipped = Counter(_kind(view.view) for view in found.views if view.verdict != found.verdict)
    if flipped:
        yield [f"  flipped by  {', '.join(f'{n} of {kinds[kind]} {kind}' for kind, n in flipped.items())}"]


def _kind(view: str) -> str:
    return view.partition("-")[0]


def influence_lines(found: Sequence[Influence] | None, *, most: int = 6) -> Iterator[Line]:
    """What the score would be without some references; the largest changes, by name, then one by one."""
    if found is None:
        return
    yield ["  without  the score would be (a change of the score, no cause)"]
    names = [i for i in found if i.row_id is None][:most]
    single = [i for i in found if i.row_id is not None][: most // 2]
    for influence in (*names, *single):
        yield [f"           {_left_out(influence)}"]


def _left_out(influence: Influence) -> str:
    name = influence.name or "unnamed"
    n = influence.n_images
    several = f"{name}'s {n:,} reference{'s' * (n != 1)}"
    what = several if influence.row_id is None else f"row {influence.row_id}"
    if influence.score is None or influence.change is None:
        return f"{what} ({influence.label}): nobody would be left to vote"
    return f"{influence.score:+.2f} ({influence.change:+.2f}) without {what} ({influence.label}, {name})"


def region_lines(found: Regions | None) -> Iterator[Line]:
    """What the crops come to, how rare that is, and a map of them."""
    if found is None:
        return
    x, y, width, height = found.highest.box
    n = len(found.heat_map)
    yield [
        f"  regions  {n} crop{'s' * (n != 1)}, {POOLS[found.pool]} {found.score:+.2f}; the highest is at "
        f"{x},{y} ({width}×{height} pixels)"
    ]
    yield [f"           {rarity(found)}"]
    yield from ([f"           {row}"] for row in _grid(found))


def rarity(found: Regions) -> str:
    """How many photographs have a crop that scores as high."""
    if found.photographs is None:
        return "how many photographs have a crop as high is not known (rd fit calibration --regions)"
    if found.p_max is None:
        return f"no calibration photograph has {len(found.heat_map)} crops or more to compare with"
    as_high = round(found.p_max * (found.photographs + 1)) - 1
    return (
        f"{as_high:,} of {found.photographs:,} calibration photographs with as many crops or more "
        f"have one as high (p {found.p_max:.2g})"
    )


def _grid(found: Regions) -> Iterator[str]:
    """The crops where they lie in the image; darker is higher, a star marks the highest."""
    for _, row in groupby(found.heat_map, key=lambda region: region.box[1]):
        yield "  ".join(_cell(region, found) for region in row).rstrip()


def _cell(region: Region, found: Regions) -> str:
    scores = [other.score for other in found.heat_map]
    low, spread = min(scores), max(scores) - min(scores)
    shade = _SHADES[min(int(4 * (region.score - low) / spread), 3)] if spread else _SHADES[0]
    return f"{shade} {region.score:+.2f}{'*' if region is found.highest else ' '}"


def provenance_lines(found: Provenance | None, *, most: int = 4) -> Iterator[Line]:
    """What the file says of itself, which nothing above rests on."""
    if found is None:
        return
    said = [f"{claim.says} ({_where(claim)})" for claim in found.claims[:most]]
    if len(found.claims) > most:
        said.append(f"and {len(found.claims) - most} more")
    said += [f"damaged: {what}" for what in found.damaged[:most]]
    for text in said or ["none found; most images on the web carry none"]:
        yield [f"  provenance  {text}"]


def _where(claim: Claim) -> str:
    return "; ".join([_LANES[claim.kind], *([claim.detail] if claim.detail else [])])


_LANES = {"c2pa": "C2PA", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "text": "text in the file"}
