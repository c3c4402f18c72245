"""The words people read about verdicts: which bank is nearer, and how near; never that an image is fake.

It is one file because what is said of a verdict, with all that was asked besides, is read as one text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from retrieval_detect.types import LABELS, METHODS, UNNAMED

if TYPE_CHECKING:
    from retrieval_detect.review.thresholds import Threshold
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.types import Provenance
    from retrieval_detect.verdicts import (
        Evidence,
        Influence,
        Reason,
        Region,
        Regions,
        Stability,
        Verdict,
        VerdictName,
        WithBeside,
    )

Part: TypeAlias = str | tuple[str, str]
Line: TypeAlias = Sequence[Part]

_SHADES = "░▒▓█"
POOLS = {"max": "highest", "mean": "mean", "top": "mean of the 3 highest"}
_LANES = {"c2pa": "C2PA", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "text": "text in the file"}
_MOST_NAMES = 4
_USUAL = 0.05
"""The rate of false alarms that is asked for unless another is."""
_FITTED = ("fitted", "fitted_anew", "dropped")
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


def plain(line: Line) -> str:
    """A styled line as text."""
    return "".join(part if isinstance(part, str) else part[0] for part in line)


def changes(found: Mapping[str, Any] | None, *, most: int = _MOST_NAMES) -> str:
    """``+4 newgen, -5 flux; fitted anew: calibration density`` of ``kept_history``."""
    if found is None:
        return ""
    moved = [(n, name_of(name)) for label in LABELS for name, n in found[label].items()]
    moved.sort(key=lambda pair: -abs(pair[0]))
    shown = [f"{n:+,} {name}" for n, name in moved[:most]]
    shown += [f"and {number(len(moved) - most, 'other')}"] * (len(moved) > most)
    parts = [", ".join(shown)] * bool(shown)
    parts += [f"{key.replace('_', ' ')}: {', '.join(found[key])}" for key in _FITTED if found[key]]
    parts += [f"mistakes kept {found['mistakes']:+,}"] * bool(found["mistakes"])
    parts += [f"searched through {found['projection']}"] * bool(found["projection"])
    return "; ".join(parts)


# ---------------------------------------------------------------- one verdict


FITS: Mapping[Reason, Line] = {
    "rare-among-photographs": [("FAKE-LIKE", "fake"), ": rare among photographs"],
    "fits-photographs": [("no sign of the known generators", "real")],
    "fits-both": [("UNCERTAIN", "warning"), ": fits photographs and known generators alike"],
    "fake-like-if-known-source": [("UNCERTAIN", "warning"), ": fake-like only if it is of a known source"],
    "untypical": [("UNKNOWN", "warning"), ": unlike all references"],
    "nothing-comparable": [("UNKNOWN", "warning"), ": no photographs of this kind among the references"],
    "fits-neither": [("UNKNOWN", "warning"), ": fits neither photographs nor known generators"],
    "uncalibrated": [("UNKNOWN", "warning"), ": uncalibrated"],
    "rare-beside": [("FAKE-LIKE", "fake"), ": rare among these photographs and those of known sources"],
    "fits-beside": [("UNCERTAIN", "warning"), ": with these photographs known, the score is not rare"],
    "clears-known-fakes": [("UNCERTAIN", "warning"), ": these photographs would clear known fakes as well"],
}
"""What a verdict says, by its reason; never that an image is authentic, or a fake."""
NEXT: Mapping[Reason, str] = {
    "rare-among-photographs": "Look at the references that say so: it is evidence to weigh, and no finding.",
    "fits-photographs": "That is no proof of an authentic image: a generator in no bank can score so.",
    "fits-both": "The score decides nothing here: look at the references, and at what the file says.",
    "fake-like-if-known-source": "If it is of one of these sources, say so (--photographs known); else lay "
    "{scenes} or more authentic photographs of its kind beside it (--beside DIR).",
    "untypical": "Nothing like it is among the references: add some of its kind (rd bank add).",
    "nothing-comparable": "No score says anything here. Add authentic photographs of its kind "
    "(rd bank add DIR --label real --source NAME), or lay enough of them beside it (--beside DIR).",
    "fits-neither": "It may be of a generator, or of a kind of photograph, that no bank holds: add some of "
    "each (rd bank add).",
    "uncalibrated": "The score says which bank is nearer, and not how often a photograph scores so.",
    "rare-beside": "Look at the references that say so: it is evidence to weigh, and no finding.",
    "fits-beside": "Nothing is held against it any more, and nothing shown for it.",
    "clears-known-fakes": "They tell photographs and fakes of this kind apart too little to say more.",
}
"""What to do next, by the reason of a verdict; what a terminal takes for it stands in
brackets, and ``next_step`` puts the number in."""


SHORT: Mapping[VerdictName, str] = {
    "fake-like": "fake-like",
    "real-like": "without a sign of the known generators",
    "uncertain": "uncertain",
    "unknown": "unknown",
}
"""Each verdict in a row of counts."""


def next_step(verdict: Verdict) -> str:
    """What to do next, in a sentence; where that takes photographs, how many at the rate asked for."""
    alpha = (verdict.alpha or {}).get("real", _USUAL)
    return NEXT[verdict.reason].format(scenes=_needed(alpha))


def _needed(alpha: float) -> int:
    from retrieval_detect.scoring.conformal import photographs_needed  # brings numpy, which no help needs

    return photographs_needed(alpha)


def headline(verdict: Verdict) -> Line:
    """``FAKE-LIKE: rarer than 99 % of the photographs of 6 sources     log10 likelihood ratio +1.1``."""
    return [*fits(verdict), f"     {strength(verdict)}"]


def strength(verdict: Verdict) -> str:
    """``log10 likelihood ratio +1.1``, or the score alone."""
    lr = verdict.log10_lr
    return f"score {verdict.score:+.2f}" if lr is None else f"log10 likelihood ratio {lr:+.1f}"


def propositions(verdict: Verdict) -> str:
    """What a likelihood ratio weighs against what, with its interval; empty where there is none."""
    interval = verdict.log10_lr_interval
    if verdict.log10_lr is None:
        return ""
    between = f", 95 % {interval[0]:+.1f} to {interval[1]:+.1f}" if interval else ""
    return (
        f"of a {verdict.photographs} generator's image over a photograph of a {verdict.photographs} source"
        f"{between}"
    )


def fits(verdict: Verdict) -> Line:
    """What may be concluded, in styled parts; where it rests on a rate, which that is."""
    return [*itself(verdict), *_concluded(verdict)]


def itself(verdict: Verdict) -> Line:
    """That an image is a reference byte for byte, and which; empty where it is none."""
    for copy in verdict.same_image:
        if copy.content_id == verdict.sha256:
            return [("A REFERENCE ITSELF", "warning"), f" ({copy.label}, {origin(copy)}); without itself "]
    return []


def _concluded(verdict: Verdict) -> Line:
    found = verdict.calibration
    if verdict.reason == "uncalibrated":
        side = "fake" if verdict.score > 0 else "real"
        leans = (
            f"nearer to the {side} bank" if verdict.method in METHODS else f"{verdict.method} leans to {side}"
        )
        return [("UNKNOWN", "warning"), f": uncalibrated; {leans}"]
    if found is None:
        return FITS[verdict.reason]
    if verdict.reason == "rare-among-photographs":
        elsewhere = ", and rare from elsewhere" * (verdict.reach == "new sources")
        return [("FAKE-LIKE", "fake"), f": {_rarer(found)}{elsewhere}"]
    if verdict.reason == "fake-like-if-known-source":
        return [("UNCERTAIN", "warning"), f": {_rarer(found)}; for one from elsewhere rd cannot say"]
    return FITS[verdict.reason]


def _rarer(found: Mapping[str, Any]) -> str:
    n, as_high, whose = found["photographs"], found["as_high"], compared_with(found, of=True)
    if as_high == 0:
        return f"higher than all {number(n, 'photograph')} {whose}"
    return f"rarer than {math.floor(100 * (n - as_high) / n)} % of the photographs {whose}"


def calibrated(verdict: Verdict) -> list[Line]:
    """How rare such a score is among photographs of known and of new sources, and what that does not say."""
    found, alpha, p = verdict.calibration, verdict.alpha, verdict.p_values
    if found is None or alpha is None or p is None:
        return []
    asked_by = "(--fpr)" if verdict.at is None else f"(the threshold {verdict.at:+.2f}, --fpr at=SCORE)"
    if verdict.fdr is not None:
        asked_by = f"({100 * verdict.fdr:.3g} % of those called fake-like, --fpr fdr=SHARE)"
    provisional = ", provisional" * bool(found["provisional"])
    compared = compared_with(found)
    said = [
        f"known sources  {found['as_high']:,} of {found['photographs']:,} calibration photographs ({compared}"
        f"{provisional}) score this high, p {p['real']:.2g}"
    ]
    said += _beside("new sources", new_sources(verdict))
    said.append(
        f"judged at {100 * alpha['real']:.3g} % false alarms among photographs of {verdict.photographs} "
        f"sources {asked_by}"
    )
    if weighed := propositions(verdict):
        said.append(f"log10 likelihood ratio {verdict.log10_lr:+.1f} {weighed}")
    if verdict.probability is not None and verdict.prior is not None:
        chance, prior = 100 * verdict.probability, 100 * verdict.prior
        said.append(
            f"with {prior:.3g} % fakes among such images, {chance:.3g} % of those that score so are fakes"
        )
    return [[f"  {line}"] for line in said]


def _beside(name: str, lines: Sequence[str]) -> list[str]:
    """``name`` with what is said of it: further lines stand below the first."""
    return [f"{name * (i == 0):<15}{line}" for i, line in enumerate(lines)]


def coverage_lines(verdict: Verdict) -> list[str]:
    """How near the nearest photographs are, and of whom, where that is too far to compare with."""
    found = verdict.coverage
    if found is None or found["similarity"] >= found["threshold"]:
        return []
    of = counted({near["source"]: near["photographs"] for near in found["nearest"]})
    said = [
        f"the nearest photographs ({of}) have similarity {found['similarity']:.2f} on average;",
        f"those nearest to a photograph of a new source mostly have {found['threshold']:.2f} or more",
    ]
    if verdict.photographs == "known":
        said.append("is it of a known source, as was said? No photograph there is of its kind")
    return said


def new_sources(verdict: Verdict) -> list[str]:
    """How rare such a score is where a photograph's own source has no part in the banks."""
    found, p = (verdict.calibration or {}).get("new"), (verdict.p_values or {}).get("new")
    if found is None or p is None:
        return ["how rare this is among photographs from elsewhere was not measured"]
    n, least, worst, nearest = found["sources"], 100 * found["smallest"], found["worst"], found["nearest"]
    alpha, too_few = (verdict.alpha or {}).get("real", _USUAL), []
    if verdict.photographs == "new" and found["smallest"] > alpha:
        asked = f"{100 * alpha:.3g} %, which takes {_needed(alpha)}"
        too_few = [f"too few for any image to be fake-like at {asked}"]
    if worst["share"] == 0:
        return [
            f"none of {number(n, 'source')} left out in turn scores this high; {n} cannot show less than "
            f"{least:.0f} %",
            *too_few,
        ]
    mean = 100 * max(0.0, (p * (n + 1) - 1) / n)
    which = f"{100 * worst['share']:.0f} % of {name_of(worst['source'])}, the worst"
    if nearest and nearest["source"] != worst["source"]:
        which += f"; {100 * nearest['share']:.0f} % of {name_of(nearest['source'])}, the nearest"
    return [
        f"each of {number(n, 'source')} left out in turn, {mean:.0f} % of its photographs score this high",
        f"on average ({which});",
        f"p {p:.2g}, and {n} sources cannot show less than {least / 100:.2g}",
        *too_few,
    ]


def compared_with(found: Mapping[str, Any], *, of: bool = False) -> str:
    """Whose photographs, or of what kind, ``Verdict.calibration`` speaks of; ``of`` : with that word."""
    if found["of"] or found["sources"] is None:
        said = str(found["of"]) or "the same kind"
        return f"of {said}" if of or not found["of"] else said
    return f"of {number(found['sources'], 'source')}" if of else number(found["sources"], "source")


def calibration_lines(calibration: Calibration) -> list[str]:
    """What a calibration rests on, and what photographs from elsewhere risk."""
    real, fake = calibration.conformal.real, calibration.conformal.fake
    n_real, n_fake = (sum(map(len, strata.values())) for strata in (real, fake))
    least, why = 100 / (n_real + 1), calibration.lacking(calibration.question)
    counting = f" (k {calibration.k})" if calibration.method in METHODS else ""
    provisional = ", provisional" * calibration.provisional
    lines = [
        f"Calibrated {calibration.method}{counting} on {number(n_real, 'photograph')} of "
        f"{number(len(real), 'source')} and {number(n_fake, 'fake')} of "
        f"{number(len(fake), 'generator')}{provisional}"
    ]
    if why:
        return [*lines, f"  scores stay uncalibrated at the usual rate: {why}"]
    low, high = calibration.rate_interval(_USUAL)
    lines += [
        f"  photographs of known sources: {100 * _USUAL:.0f} % false alarms asked for may turn out "
        f"{100 * low:.1f} to {100 * high:.1f} %; less than {least:.2g} % cannot be asked for",
        f"  cost of its likelihood ratios, cross-fitted: Cllr {calibration.quality['cllr']:.2f} bits "
        "(0 perfect, 1 useless)",
    ]
    return [*lines, *risk_lines(calibration)]


def risk_lines(calibration: Calibration, *, most: int = 6) -> list[str]:
    """What share of each source is flagged when it is known, and when it is left out; the worst first."""
    new = calibration.new
    if not new.sources:
        return [f"  photographs of new sources: not measured ({new.why})"] * bool(new.why)
    small, large = (calibration.shares_flagged(rate) for rate in (_USUAL, 2 * _USUAL))
    mean, least = calibration.risk(_USUAL) or 0.0, 100 * new.smallest
    lines = [
        f"  photographs of new sources: each of {number(len(new.sources), 'source')} left out in turn, "
        f"{100 * mean:.0f} % flagged on average where {100 * _USUAL:.0f} % were asked for;",
        f"    {number(len(new.sources), 'source')} cannot show less than {least:.2g} % for one that is new",
        f"    {'flagged if the source is':24} {'known':>7} {'left out':>9} {'at 10 %':>8}  as images of",
    ]
    for name in list(small)[:most]:
        known, left_out = small[name]
        if left_out is None:
            continue
        cells = ["–" if math.isnan(known) else f"{100 * known:.0f} %", f"{100 * left_out:.0f} %"]
        at_ten = large[name][1]
        cells.append(f"{100 * (at_ten or 0.0):.0f} %")
        taken_for = name_of(new.sources[name].taken_for)
        lines.append(f"    {name_of(name):24} {cells[0]:>7} {cells[1]:>9} {cells[2]:>8}  {taken_for}")
    if len(new.sources) > most:
        lines.append(f"    and {number(len(new.sources) - most, 'other')} below these")
    worst = max(new.generators.items(), key=lambda pair: pair[1].real_like, default=None)
    if worst and worst[1].real_like:
        name, share = name_of(worst[0]), 100 * worst[1].real_like
        lines.append(
            f"  images of new generators: each left out in turn, {share:.0f} % of {name}, the worst, "
            "would show no sign of the known ones"
        )
    return lines


def threshold_lines(before: Threshold | None, now: Threshold | None) -> list[str]:
    """That the score from which photographs are rare has moved, is there, or gone; nothing where it stays."""
    if before == now:
        return []
    if now is None:
        return ["  uncalibrated now: verdicts are unknown until rd fit calibration"]
    if before is None:
        return [f"  calibrated: rare among photographs {_at_rate(now)}"]
    return [f"  rare among photographs {_at_rate(before)} before, {_at_rate(now)} now"]


def _at_rate(found: Threshold) -> str:
    score = "at no score" if found.score is None else f"from score {found.score:+.2f} on"
    if found.risk is None:
        return score
    return f"{score} ({100 * found.risk:.0f} % of photographs of new sources score so)"


def training_lines(record: Mapping[str, Any]) -> list[str]:
    """What a head learnt from, and how well it tells known generators and sources apart."""
    layers = f", layer{'s' * (len(record['layers']) != 1)} {', '.join(record['layers'])}"
    lines = [
        f"Head {record['name']} ({record['kind']}): {number(record['photographs'], 'photograph')} and "
        f"{number(record['fakes'], 'fake')} to learn from{layers * bool(record['layers'])}"
    ]
    if record.get("auc_calib") is not None:
        lines.append(
            f"  AUC {record['auc_calib']:.3f} on the images set aside for calibration: of generators and "
            "sources it knows; new ones are harder"
        )
    return lines


def one_line(verdict: Verdict) -> Line:
    """One image among many."""
    counts = f"  {verdict.votes.fake:>2} of {verdict.votes.of} nearest are fake"
    said = [*itself(verdict), *FITS[verdict.reason]]
    return [*said, f"     {strength(verdict)}", counts, f"  {verdict.input}"]


def full(verdict: Verdict) -> list[Line]:
    """Everything about one image, a line each."""
    index, votes, nearest = verdict.index, verdict.votes, verdict.nearest
    lines: list[Line] = [
        [(verdict.input, "strong"), "  ", *(headline if verdict.log10_lr is None else fits)(verdict)],
        [f"  {next_step(verdict)}"],
        *calibrated(verdict),
        *([f"  {line}"] for line in _beside("comparable", coverage_lines(verdict))),
        [
            f"  nearest  {votes.fake} of {votes.of} are fake (fakes are {100 * votes.bank_share_fake:.0f} % "
            f"of the references)   best fake {nearest['fake']:.3f}   best real {nearest['real']:.3f}"
        ],
    ]
    if verdict.attribution:
        lines.append([f"  nearest fakes  {attribution(verdict)}; {absence(verdict)}"])
    if verdict.attributed_by:
        shares = (f"{name_of(a.generator)} {100 * a.share:.0f} %" for a in verdict.attribution[:_MOST_NAMES])
        lines.append(
            [f"  by {verdict.attributed_by}  {', '.join(shares)}; of those it knows, were it a fake"]
        )
    lines += beside_lines(verdict)
    lines += stability_lines(verdict.stability)
    lines += region_lines(verdict.regions)
    lines += influence_lines(verdict.influence)
    lines += [[f"  same image  {describe(copy)}"] for copy in verdict.same_image[:3]]
    if len(verdict.same_image) > 3:
        lines.append([f"  same image  and {len(verdict.same_image) - 3:,} more"])
    lines += _notes(verdict)
    lines.append(
        [
            f"  bank     {index.name}, generation {index.generation}: {index.n_real:,} real, "
            f"{index.n_fake:,} fake, {number(index.n_generators, 'generator')} · {verdict.encoder}"
        ]
    )
    return lines


def beside_lines(verdict: Verdict, *, most: int = 5) -> Iterator[Line]:
    """The answers without and with photographs laid beside an image, and what these do for known fakes."""
    found = verdict.beside
    if found is None:
        return
    told = [f"from {found.supplier}"] * bool(found.supplier) + [found.date or ""] * bool(found.date)
    yield [f"  {_laid(found)}{', '.join(['', *told])}; they are in no bank"]
    yield ["    without them  ", *fits(verdict), f" (score {verdict.score:+.2f})"]
    yield ["    with them     ", *FITS[found.reason], f" (score {found.score:+.2f})"]
    yield from ([f"    {line}"] for line in beside_said(found))
    refused = found.refused
    yield from ([f"    not laid: {one.input}: {one.why}"] for one in refused[:most])
    if len(refused) > most:
        yield [f"    not laid: {number(len(refused) - most, 'more picture')}"]


def _laid(found: WithBeside) -> str:
    return f"beside   {number(len(found.pictures), 'photograph')} of {number(found.scenes, 'scene')}"


def beside_said(found: WithBeside) -> Iterator[str]:
    """What an answer with photographs beside rests on, sentence by sentence."""
    if not found.pictures:
        yield "none of the pictures could be laid beside it: the answer is the one without"
        return
    alike = sum(picture.fake_like for picture in found.pictures)
    yield (
        f"{alike} of the {number(len(found.pictures), 'photograph')} would be fake-like themselves, "
        "were they of known sources"
    )
    p = found.p_values.get("scenes")
    if p is None:
        yield (
            f"{number(found.scenes, 'scene')} can withdraw an accusation and no more; from "
            f"{found.needed:,} on they are counted themselves"
        )
    else:
        yield (
            f"{round(p * (found.scenes + 1)) - 1:,} of the {number(found.scenes, 'scene')}, each without "
            f"itself, score as high (p {p:.2g})"
        )
    contrast = found.contrast
    if contrast is None or not contrast.flagged:
        yield "no known fake like it is flagged here: what they would do for fakes is not known"
        return
    name = name_of(contrast.generator)
    said = (
        f"of {contrast.flagged:,} known {name} images nearest to it, {contrast.turned:,} would not be "
        "fake-like any more with the same photographs"
    )
    clears = ": these pictures would clear known fakes as well, and say little" * contrast.clears
    yield said + clears


def blind_lines(verdict: Verdict, where: str) -> list[Line]:
    """What an examiner sees before the verdict: the references, and what the file says about itself.

    ``where`` : the sentence that says where the verdict is.
    """
    seen = evidence_lines(verdict, len(verdict.evidence))
    return [[(verdict.input, "strong"), f"  {where}"], *seen, *_notes(verdict)]


def _notes(verdict: Verdict) -> list[Line]:
    """What the file says of itself, and what may mislead."""
    notes: list[Line] = [[("  note     ", "weak"), warning] for warning in verdict.warnings]
    return [*provenance_lines(verdict.provenance), *notes]


def absence(verdict: Verdict) -> str:
    """That the true tool may be absent, or that no known one fits."""
    from retrieval_detect.scoring.conformal import BETA  # brings numpy, which no help needs

    known = [a.p for a in verdict.attribution if a.p is not None]
    if known and max(known) <= BETA and len(known) == len(verdict.attribution):
        return "none of these generators fits: the true tool, if there is one, is likely absent"
    return "the true tool may be absent"


def attribution(verdict: Verdict, *, most: int = _MOST_NAMES) -> str:
    """``5 sdxl, 2 flux``: generators of the nearest fakes, by how many they gave."""
    counts = [(a.of_nearest_fakes, a.generator) for a in verdict.attribution if a.of_nearest_fakes]
    counts.sort(key=lambda pair: -pair[0])
    shown = ", ".join(f"{n} {name_of(generator)}" for n, generator in counts[:most])
    rest = sum(n for n, _ in counts[most:])
    return shown + (f", {rest} from {number(len(counts) - most, 'other')}" if rest else "")


def origin(evidence: Evidence) -> str:
    """Its generator or its source, in words."""
    return name_of(evidence.generator if evidence.label == "fake" else evidence.source)


def describe(evidence: Evidence, *, file: str | None = None) -> str:
    """``0.912  fake  sdxl  references/fake/sdxl/17.png``; ``file`` : in the place of the whole path."""
    return f"{evidence.similarity:.3f}  {evidence.label}  {origin(evidence)}  {file or evidence.uri}"


def evidence_lines(verdict: Verdict, most: int) -> list[Line]:
    """The nearest references, with the sentence that says what they are not."""
    if not verdict.evidence or most < 1:
        return []
    rows: list[Line] = [[f"  {e.rank:>3}  ", describe(e)] for e in verdict.evidence[:most]]
    return [["  the nearest references"], *rows, [f"  {BECAUSE}"]]


# ---------------------------------------------------------------- what was asked besides


UNSTABLE = "The answer depends on how the file was saved: ask about the original file, if there is one."


def agreement(found: Stability) -> str:
    """``14 of 16 re-encodings agree``."""
    return f"{found.agree} of {found.of} re-encodings agree"


def stability_lines(found: Stability | None) -> Iterator[Line]:
    """Whether the verdict outlives re-encoding, and what flips it."""
    if found is None:
        return
    yield [f"  stable   {agreement(found)}"]
    of_kinds = [(view.view.partition("-")[0], view.verdict != found.verdict) for view in found.views]
    kinds, flipped = (
        Counter(kind for kind, _ in of_kinds),
        Counter(kind for kind, turned in of_kinds if turned),
    )
    if flipped:
        yield [f"  flipped by  {', '.join(f'{n} of {kinds[kind]} {kind}' for kind, n in flipped.items())}"]
        yield [f"           {UNSTABLE}"]


def influence_lines(found: Sequence[Influence] | None, *, most: int = 6) -> Iterator[Line]:
    """What the score would be without some references; the largest changes, by name, then one by one."""
    if found is None:
        return
    yield ["  without  the score would be (a change of the score, no cause)"]
    names = [i for i in found if i.row_id is None][:most]
    single = [i for i in found if i.row_id is not None][: most // 2]
    for influence in (*names, *single):
        name, score, change = influence.name or "unnamed", influence.score, influence.change
        what = f"row {influence.row_id}"
        if influence.row_id is None:
            what = f"{name}'s {number(influence.n_images, 'reference')}"
        if score is None or change is None:
            said = f"{what} ({influence.label}): nobody would be left to vote"
        else:
            said = f"{score:+.2f} ({change:+.2f}) without {what} ({influence.label}, {name})"
        yield [f"           {said}"]


def region_lines(found: Regions | None) -> Iterator[Line]:
    """What the crops come to, how rare that is, and a map of them."""
    if found is None:
        return
    x, y, width, height = found.highest.box
    yield [
        f"  regions  {number(len(found.heat_map), 'crop')}, {POOLS[found.pool]} {found.score:+.2f}; "
        f"the highest is at {x},{y} ({width}×{height} pixels)"
    ]
    yield [f"           {rarity(found)}"]
    scores = [region.score for region in found.heat_map]
    low, spread = min(scores), max(scores) - min(scores)

    def cell(region: Region) -> str:
        shade = _SHADES[min(int(4 * (region.score - low) / spread), 3)] if spread else _SHADES[0]
        return f"{shade} {region.score:+.2f}{'*' if region is found.highest else ' '}"

    # Where they lie in the image; darker is higher, a star marks the highest.
    for _, row in groupby(found.heat_map, key=lambda region: region.box[1]):
        yield [f"           {'  '.join(map(cell, row)).rstrip()}"]


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


def provenance_lines(found: Provenance | None, *, most: int = 4) -> Iterator[Line]:
    """What the file says of itself, which nothing above rests on."""
    if found is None:
        return
    said = [
        f"{claim.says} ({_LANES[claim.kind]}{f'; {claim.detail}' if claim.detail else ''})"
        for claim in found.claims[:most]
    ]
    if len(found.claims) > most:
        said.append(f"and {len(found.claims) - most} more")
    said += [f"damaged: {what}" for what in found.damaged[:most]]
    for text in said or ["none found; most images on the web carry none"]:
        yield [f"  provenance  {text}"]


# ---------------------------------------------------------------- many


def summary(
    counts: Counter[str],
    n_failed: int,
    *,
    rate: float,
    fpr: float | None,
    fdr: float | None = None,
    risk: float | None = None,
) -> list[str]:
    """What a batch came to, what it would come to were all photographs first.

    ``fpr`` : the rate of false alarms it was judged at, if calibrated; ``risk`` : the share of photographs of
    new sources that score so, on average, if that was measured. ``fdr`` : the share of false discoveries, if
    it was judged by that.
    """
    judged = sum(counts.values())
    could_not = f"{number(n_failed, 'input')} could not be used"
    if not judged:
        return [f"No image was judged: {could_not}."]
    parts = [f"{counts[name]:,} {said}" for name, said in SHORT.items() if counts[name]]
    parts += [could_not] * bool(n_failed)
    said = f"{number(judged, 'image')}: {', '.join(parts)}; {rate:,.1f} images/s"
    if fpr is None:
        return [said, "Scores are uncalibrated: how many photographs score this high by chance is not known."]
    if fdr is not None:
        promise = (
            f"Of those called fake-like, about {100 * fdr:.3g} % or fewer are photographs, if photographs "
            "here are like those of the calibration."
        )
        return [promise, said]
    elsewhere = "how many is not known" if risk is None else f"about {round(risk * judged):,}"
    known = f"of known sources, about {round(fpr * judged):,} of {judged:,} would score this high by chance"
    return [f"If all were photographs {known}; of new sources, {elsewhere}.", said]
