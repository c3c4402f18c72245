"""The words people read about verdicts: which bank is nearer, and how near; never that an image is fake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from retrieval_detect.types import UNNAMED

if TYPE_CHECKING:
    from retrieval_detect.types import Evidence, Verdict

Part: TypeAlias = str | tuple[str, str]
Line: TypeAlias = Sequence[Part]

ABSENT = "the true tool may be absent"
BECAUSE = "Shown because the encoder finds them similar, mostly in subject: neither a source nor proof."


def number(n: int, noun: str) -> str:
    """``1 image``, ``1,495 images``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def counted(counts: Mapping[str, int]) -> str:
    """``flux 8, sdxl 10``: names with how many there are of each; ``-`` for none."""
    return ", ".join(f"{name_of(name)} {n:,}" for name, n in counts.items()) or "-"


def name_of(name: str) -> str:
    """A generator's or source's name, or that it has none."""
    return name if name != UNNAMED else "unnamed"


# ---------------------------------------------------------------- one verdict


def headline(verdict: Verdict) -> Line:
    """``closer to the FAKE bank     uncalibrated score +1.74``, in styled parts."""
    bank = "fake" if verdict.verdict == "fake-like" else "real"
    return ["closer to the ", (bank.upper(), bank), " bank", f"     uncalibrated score {verdict.score:+.2f}"]


def one_line(verdict: Verdict) -> Line:
    """One image among many."""
    return [*headline(verdict), f"  {nearest_counts(verdict)}", f"  {verdict.input}"]


def nearest_counts(verdict: Verdict) -> str:
    """``8 of 10 nearest are fake``."""
    return f"{verdict.votes.fake:>2} of {verdict.votes.of} nearest are fake"


def full(verdict: Verdict) -> list[Line]:
    """Everything about one image, a line each."""
    index = verdict.index
    lines: list[Line] = [[(verdict.input, "strong"), "  ", *headline(verdict)]]
    lines.append([f"  nearest  {_nearest(verdict)}"])
    if verdict.attribution:
        lines.append([f"  nearest fakes  {attribution(verdict)}; {ABSENT}"])
    lines += [[f"  same image  {describe(copy)}"] for copy in verdict.same_image[:3]]
    if len(verdict.same_image) > 3:
        lines.append([f"  same image  and {len(verdict.same_image) - 3:,} more"])
    lines += [[("  note     ", "weak"), warning] for warning in verdict.warnings]
    lines.append(
        [
            f"  bank     {index.name}, generation {index.generation}: {index.n_real:,} real, "
            f"{index.n_fake:,} fake, {number(index.n_generators, 'generator')} · {verdict.encoder}"
        ]
    )
    return lines


def _nearest(verdict: Verdict) -> str:
    votes, share = verdict.votes, 100 * verdict.votes.bank_share_fake
    return (
        f"{votes.fake} of {votes.of} are fake (fakes are {share:.0f} % of the references)"
        f"   best fake {verdict.nearest['fake']:.3f}   best real {verdict.nearest['real']:.3f}"
    )


def attribution(verdict: Verdict, *, most: int = 4) -> str:
    """``5 sdxl, 2 flux``: generators of the nearest fakes, by how many they gave."""
    counts = [(a.of_nearest_fakes, a.generator) for a in verdict.attribution if a.of_nearest_fakes]
    counts.sort(key=lambda pair: -pair[0])
    shown = ", ".join(f"{n} {name_of(generator)}" for n, generator in counts[:most])
    rest = sum(n for n, _ in counts[most:])
    return shown + (f", {rest} from {number(len(counts) - most, 'other')}" if rest else "")


def describe(evidence: Evidence) -> str:
    """``0.912  fake  sdxl  references/fake/sdxl/17.png``."""
    name = name_of(evidence.generator if evidence.label == "fake" else evidence.source)
    return f"{evidence.similarity:.3f}  {evidence.label}  {name}  {evidence.uri}"


def evidence_lines(verdict: Verdict, most: int) -> list[Line]:
    """The nearest references, with the sentence that says what they are not."""
    if not verdict.evidence or most < 1:
        return []
    rows: list[Line] = [[f"  {e.rank:>3}  ", describe(e)] for e in verdict.evidence[:most]]
    return [["  the nearest references"], *rows, [f"  {BECAUSE}"]]


# ---------------------------------------------------------------- many


def summary(counts: Counter[str], n_failed: int, *, rate: float) -> list[str]:
    """What a batch came to."""
    judged = sum(counts.values())
    could_not = f"{number(n_failed, 'input')} could not be used"
    if not judged:
        return [f"No image was judged: {could_not}."]
    parts = [f"{counts['fake-like']:,} closer to the fake bank", f"{counts['real-like']:,} to the real bank"]
    parts += [could_not] * bool(n_failed)
    return [
        f"{number(judged, 'image')}: {', '.join(parts)}; {rate:,.1f} images/s",
        "Scores are uncalibrated: how many photographs score this high by chance is not known.",
    ]
