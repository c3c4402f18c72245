"""A verdict → what a page shows of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import decode
from retrieval_detect.report import words
from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.map import flipped, map_view
from retrieval_detect.report.html.pictures import Pictures
from retrieval_detect.report.html.records import (
    Bar,
    Distribution,
    EvidenceView,
    Fact,
    Histogram,
    InfluenceRow,
    MapView,
    ReferenceView,
    RegionsView,
    StabilityView,
    ViewRow,
)
from retrieval_detect.report.words import POOLS, agreement, rarity
from retrieval_detect.review.map import draw
from retrieval_detect.store.manifest import tool_versions
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import Question
from retrieval_detect.version import __version__

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.review.map import Atlas
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.types import DecodedImage, Float64, Label, Provenance
    from retrieval_detect.verdicts import Evidence, Influence, Regions, Stability, Verdict

_MOST_DOTS = 1500
"""Of the map in a report: enough to see the banks by, and little to open."""


class Viewer:
    """Makes views of one detector's verdicts; keeps the small pictures it has made.

    ``thumbnails`` : whether pictures are shown at all; ``blur_faces`` : whether every picture is blurred
    beyond the recognition of a face, for pages that travel; ``with_map`` : whether views have a place on
    the map of the banks; ``decode`` : how the image's bytes become pixels, where not by ``images.decode``.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        thumbnails: bool = True,
        blur_faces: bool = False,
        with_map: bool = False,
        decode: Callable[[bytes], DecodedImage] = decode,
    ) -> None:
        self._detector = detector
        self._decode = decode
        self._pictures = Pictures(detector.snapshot, show=thumbnails, blur=blur_faces)
        self._with_map = with_map
        self._checked: dict[Question, Question] = {}

    def view(
        self, verdict: Verdict, picture: bytes | None = None, *, question: Question | None = None
    ) -> EvidenceView:
        """What is shown of ``verdict``.

        ``picture`` : the bytes of the image that was judged, for its own picture and facts; ``question`` :
        what was asked, default the usual one, for its score distribution and the command that repeats it.
        """
        asked = question or Question(verdict.method)
        checked = self._question(asked)
        image = self._decoded(picture)
        calibration = self._detector.calibration(asked) if verdict.calibration else None
        categories = self._subjects(verdict)
        return EvidenceView(
            name=verdict.input,
            anchor=f"image-{verdict.sha256[:12]}",
            picture=self._pictures.query(verdict, image),
            facts=tuple(facts(verdict, picture, image)),
            provenance=tuple(provenance(verdict.provenance)),
            provenance_note=provenance_note(verdict.provenance),
            verdict=verdict.verdict,
            headline=plain(words.fits(verdict)),
            strength=strength(verdict),
            sentences=tuple(sentences(verdict)),
            warnings=verdict.warnings,
            real=self._references(verdict, "real", categories),
            fake=self._references(verdict, "fake", categories),
            subjects=subjects(list(categories.values())),
            same_image=tuple(map(words.describe, verdict.same_image)),
            votes=votes(verdict),
            votes_sentence=votes_sentence(verdict),
            attribution=tuple(attribution(verdict)),
            attribution_sentence=attribution_sentence(verdict),
            nearest_fakes=nearest_fakes(verdict),
            score=verdict.score,
            distribution=distribution(verdict.score, calibration),
            stability=stability(verdict.stability),
            regions=self._regions(verdict.regions, image),
            influence=influence(verdict.influence),
            reproduce=tuple(reproduce(verdict, checked)),
            command=command(verdict, asked),
            limits=t.LIMITS_TEXT,
            alarm_rate=verdict.alpha["real"] if verdict.alpha and verdict.fdr is None else None,
            place=self._place(verdict) if self._with_map else None,
        )

    def bank_map(self) -> MapView:
        """The banks in two dimensions, a part of the references drawn."""
        return map_view(self._atlas, index=self._detector.reference.name, with_queries=self._with_map)

    @cached_property
    def _atlas(self) -> Atlas:
        return draw(self._detector.snapshot, at_most=_MOST_DOTS)

    def _place(self, verdict: Verdict) -> tuple[float, float] | None:
        shown = [e for label in LABELS for e in _shown(verdict, label)]
        pairs = [e.row_id for e in shown], [e.similarity for e in shown]
        place = self._atlas.place_among(self._detector.snapshot, *pairs)
        return None if place is None else flipped(place)

    def _question(self, asked: Question) -> Question:
        if asked not in self._checked:
            self._checked[asked] = self._detector.checked(asked)
        return self._checked[asked]

    def _subjects(self, verdict: Verdict) -> dict[int, str]:
        """Row id → category of the references shown, empty where it is not known."""
        row_ids = [e.row_id for label in LABELS for e in _shown(verdict, label)]
        rows = self._detector.snapshot.take(row_ids, ["category"])
        return {row_id: row["category"] for row_id, row in zip(row_ids, rows, strict=True)}

    def _references(
        self, verdict: Verdict, label: Label, subjects: dict[int, str]
    ) -> tuple[ReferenceView, ...]:
        return tuple(
            ReferenceView(
                rank=e.rank,
                row_id=e.row_id,
                label=label,
                similarity=e.similarity,
                name=words.name_of(e.generator if label == "fake" else e.source),
                subject=subjects[e.row_id],
                file=e.uri,
                added=e.added_at[:10],
                picture=self._pictures.reference(e),
            )
            for e in _shown(verdict, label)
        )

    def _decoded(self, picture: bytes | None) -> DecodedImage | None:
        if picture is None:
            return None
        try:
            return self._decode(picture)
        except ImageError:
            return None

    def _regions(self, found: Regions | None, image: DecodedImage | None) -> RegionsView | None:
        if found is None:
            return None
        return RegionsView(region_sentences(found), self._pictures.heat(found, image), crops(found))


def _shown(verdict: Verdict, label: Label) -> Sequence[Evidence]:
    """The nearest of one bank; of a verdict that does not carry them, those among its evidence."""
    return verdict.by_bank.get(label) or [e for e in verdict.evidence if e.label == label]


# ------------------- parts

_MOST_BARS = 6
_PEOPLE = 1000


def plain(line: words.Line) -> str:
    """A styled line as text."""
    return "".join(part if isinstance(part, str) else part[0] for part in line)


def signed(value: float) -> str:
    """``+1.45``; what rounds to zero has no sign."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


# ---------------------------------------------------------------- the image


def facts(verdict: Verdict, picture: bytes | None, image: DecodedImage | None) -> Iterator[Fact]:
    """Name, size and format, as far as the file was there to look at."""
    yield Fact(t.FILE, verdict.input)
    if image is not None and picture is not None:
        yield Fact(t.SIZE, t.PIXELS.format(width=image.width, height=image.height))
        yield Fact(t.FORMAT, image.format)
        yield Fact(t.BYTES, t.NUMBER_OF_BYTES.format(n=len(picture)))
    yield Fact(t.SHA256, verdict.sha256)


def provenance(found: Provenance | None) -> Iterator[Fact]:
    """What the file says of itself, as it says it."""
    if found is None:
        return
    for claim in found.claims:
        signed = t.SIGNED if claim.trusted else ""
        detail = f": {claim.detail}" if claim.detail else ""
        yield Fact(claim.kind, f"{claim.says}{detail}{signed}")
    for damaged in found.damaged:
        yield Fact(damaged, t.DAMAGED)


def provenance_note(found: Provenance | None) -> str:
    """What it is worth, or that there is none, or that nobody looked."""
    if found is None:
        return t.NOT_LOOKED_FOR
    return t.PROVENANCE_NOTE if found.claims or found.damaged else t.NO_PROVENANCE


# ---------------------------------------------------------------- the verdict


def strength(verdict: Verdict) -> str:
    """How far the score tells, in one phrase."""
    if verdict.log10_lr is None:
        return t.UNCALIBRATED.format(score=verdict.score)
    return t.LIKELIHOOD.format(lr=verdict.log10_lr)


def sentences(verdict: Verdict) -> Iterator[str]:
    """What the calibration says of the score, and what that does not mean."""
    found, alpha = verdict.calibration, verdict.alpha
    if found is None or alpha is None:
        yield t.UNCALIBRATED_NOTE
        return
    if verdict.log10_lr is not None:
        yield _times(verdict.log10_lr)
    compared = words.compared_with(found)
    yield t.AS_HIGH.format(as_high=found["as_high"], photographs=found["photographs"], sources=compared)
    yield t.NOT_ABOUT_OTHERS
    if verdict.fdr is None:
        rate = alpha["real"]
        of = _PEOPLE if rate >= 1 / _PEOPLE else 100 * _PEOPLE
        yield t.FALSE_ALARMS.format(percent=100 * rate, of=of, n=round(rate * of))
    else:
        yield t.FALSE_DISCOVERIES.format(percent=100 * verdict.fdr)
    if verdict.probability is None or verdict.prior is None:
        yield t.NO_PROBABILITY
    else:
        yield t.PROBABILITY.format(prior=100 * verdict.prior, chance=100 * verdict.probability)


def _times(log10_lr: float) -> str:
    times = float(f"{10 ** abs(log10_lr):.2g}")
    if times < 1.5:
        return t.TIMES_EQUAL
    return (t.TIMES_FAKE if log10_lr > 0 else t.TIMES_REAL).format(times=f"{times:,.3g}")


# ---------------------------------------------------------------- the evidence


def votes(verdict: Verdict) -> tuple[Bar, ...]:
    """The fakes' share of the nearest, beside their share of all."""
    found = verdict.votes
    near, everywhere = found.fake / max(found.of, 1), found.bank_share_fake
    return (
        Bar(t.VOTES_FAKE, near, t.VOTES_TEXT.format(share=100 * near), mark=everywhere),
        Bar(t.VOTES_ALL, everywhere, t.VOTES_TEXT.format(share=100 * everywhere)),
    )


def votes_sentence(verdict: Verdict) -> str:
    """The votes in words."""
    found, nearest = verdict.votes, verdict.nearest
    return t.VOTES_NOTE.format(
        fake=found.fake,
        of=found.of,
        share=100 * found.bank_share_fake,
        nearest_fake=nearest["fake"],
        nearest_real=nearest["real"],
    )


def attribution(verdict: Verdict) -> Iterator[Bar]:
    """The generators that the nearest fakes are of, the heaviest first."""
    for found in sorted(verdict.attribution, key=lambda a: -a.share)[:_MOST_BARS]:
        by = t.ATTRIBUTION_BAR_OF_HEAD if verdict.attributed_by else t.ATTRIBUTION_BAR
        text = by.format(n=found.of_nearest_fakes, share=100 * found.share, head=verdict.attributed_by)
        if found.p is not None:
            text += t.ATTRIBUTION_FIT.format(p=100 * found.p)
        yield Bar(words.name_of(found.generator), found.share, text)


def attribution_sentence(verdict: Verdict) -> str:
    """The generators in words, with what they do not say."""
    return t.ATTRIBUTION_NOTE.format(names=nearest_fakes(verdict), absence=words.absence(verdict))


def nearest_fakes(verdict: Verdict) -> str:
    """``5 sdxl, 2 flux``."""
    return words.attribution(verdict) or t.NO_FAKES_NEAR


def subjects(categories: Sequence[str]) -> str:
    """How many of the references shown are of one subject, where subjects are known."""
    known = Counter(category for category in categories if category)
    if not known:
        return t.NO_SUBJECTS
    subject, n = known.most_common(1)[0]
    return t.SAME_SUBJECT.format(of=known.total(), n=n, subject=subject)


# ---------------------------------------------------------------- what else was asked


def stability(found: Stability | None) -> StabilityView | None:
    """Each re-encoding as a bar from the middle: to the right is closer to the fake bank."""
    if found is None:
        return None
    sentence = t.STABILITY_NOTE.format(agreement=agreement(found))
    if not found.holds:
        name = t.SHORT[found.verdict]
        sentence += " " + t.STABILITY_FAILS.format(percent=100 * found.threshold, verdict=name)
    largest = max((abs(view.score) for view in found.views), default=0) or 1
    rows = tuple(
        ViewRow(
            name=view_name(view.view),
            verdict=view.verdict,
            words=t.SHORT[view.verdict],
            agrees=view.verdict == found.verdict,
            score=view.score,
            start=0.5 + min(view.score / largest, 0) / 2,
            width=abs(view.score / largest) / 2,
        )
        for view in found.views
    )
    return StabilityView(sentence, rows)


def view_name(view: str) -> str:
    """``JPEG, quality 72`` for ``jpeg-72``."""
    kind, *numbers = view.split("-")
    return t.VIEW_NAMES.get(kind, view).format(*numbers)


def region_sentences(found: Regions) -> tuple[str, ...]:
    """What the crops come to, and how rare that is among photographs."""
    x, y, width, height = found.highest.box
    parts = words.number(len(found.heat_map), "part")
    highest = t.REGIONS_HIGHEST.format(
        n=parts, pool=POOLS[found.pool], score=found.score, x=x, y=y, width=width, height=height
    )
    return t.REGIONS_NOTE, highest, f"{rarity(found)[:1].upper()}{rarity(found)[1:]}."


def crops(found: Regions) -> tuple[Fact, ...]:
    """Where each crop lies, and its score, the highest first."""
    ordered = sorted(found.heat_map, key=lambda region: -region.score)
    boxes = (dict(zip(("x", "y", "width", "height"), region.box, strict=True)) for region in ordered)
    return tuple(
        Fact(t.CROP.format(**box), signed(region.score)) for box, region in zip(boxes, ordered, strict=True)
    )


def influence(found: Sequence[Influence] | None) -> tuple[InfluenceRow, ...] | None:
    """What the score would be without whom."""
    return None if found is None else tuple(map(_influence, found))


def _influence(found: Influence) -> InfluenceRow:
    what = t.INFLUENCE_NAME if found.row_id is None else t.INFLUENCE_ROW
    without = what.format(
        name=words.name_of(found.name), label=found.label, row_id=found.row_id, n=f"{found.n_images:,}"
    )
    if found.score is None or found.change is None:
        return InfluenceRow(without, t.NOBODY_LEFT, t.NOTHING)
    return InfluenceRow(without, signed(found.score), signed(found.change))


# ---------------------------------------------------------------- asking again


def reproduce(verdict: Verdict, question: Question) -> Iterator[Fact]:
    """All that the answer depends on."""
    index = verdict.index
    generators = words.number(index.n_generators, "generator")
    yield Fact(t.INDEX, index.name)
    yield Fact(t.GENERATION, str(index.generation))
    yield Fact(t.FINGERPRINT, index.fingerprint)
    yield Fact(t.BANKS, t.BANKS_TEXT.format(n_real=index.n_real, n_fake=index.n_fake, generators=generators))
    yield Fact(t.ENCODER, verdict.encoder)
    yield Fact(t.ENGINE, verdict.engine)
    yield Fact(t.METHOD, t.METHOD_TEXT.format(method=verdict.method, k=verdict.k))
    yield Fact(t.PROJECTION, question.projection or t.NOTHING)
    yield Fact(t.EXACT_SCORE, repr(verdict.score))
    tools: Mapping[str, str] = {"retrieval-detect": __version__} | tool_versions()
    yield Fact(t.VERSION, ", ".join(f"{name} {version}" for name, version in tools.items()))


def command(verdict: Verdict, question: Question) -> str:
    """The command line that asks the same again."""
    parts = ["rd", "query", verdict.input, "--index", verdict.index.name, *_rates(question)]
    usual = Question(fpr=question.fpr, confidence=question.confidence, fdr=question.fdr)
    usual = replace(usual, source=question.source, within=question.within)
    for field in fields(Question):
        value = getattr(question, field.name)
        if field.name == "regions" and value:
            parts += ["--regions", *_set(usual, "pool", value)]
        elif field.name in ("k", "projection", "stable_at"):
            if field.name != "stable_at" or question.stability:
                parts += _set(usual, field.name, value)
        elif value is True:
            parts += ["--evidence", field.name]
        elif value != getattr(usual, field.name) and value is not None:
            parts += [f"--{field.name.replace('_', '-')}", f"{value}"]
    return shlex.join(parts)


def _set(usual: Question, name: str, value: Any) -> Iterator[str]:
    """What only experts set, where it is not what is set anyway."""
    if value != getattr(usual, name, "max") and value is not None:
        yield from ("--set", f"{name.replace('_', '-')}={value}")


def _rates(question: Question) -> Iterator[str]:
    """The rate that was kept to, and among which photographs."""
    confidence = "" if question.confidence is None else f",confidence={question.confidence}"
    if question.fdr is not None:
        yield from ("--fpr", f"fdr={question.fdr}")
    elif confidence or question.fpr != Question().fpr:
        yield from ("--fpr", f"{question.fpr}{confidence}")
    named = f"source={question.source}" if question.source is not None else ""
    if among := [*filter(None, (question.within, named))]:
        yield from ("--within", ",".join(among))


_BINS = 36
_TAIL = 0.5
"""Of the scores, in percent at either end, those beyond are drawn at the edge."""


def distribution(score: float, calibration: Calibration | None) -> Distribution | None:
    """The scores of photographs and fakes set aside, with this one among them; needs a calibration."""
    if calibration is None:
        return None
    known = {"real": _all(calibration.conformal.real), "fake": _all(calibration.conformal.fake)}
    if not all(map(len, known.values())):
        return None
    low, high = _ends(np.concatenate(list(known.values())), score)
    edges = np.linspace(low, high, _BINS + 1)
    return Distribution(
        low=low,
        high=high,
        score=score,
        at=(score - low) / (high - low),
        histograms=(_histogram("real", known["real"], edges), _histogram("fake", known["fake"], edges)),
        sentence=t.DISTRIBUTION_NOTE.format(
            n_real=len(known["real"]),
            real=int(np.count_nonzero(known["real"] >= score)),
            n_fake=len(known["fake"]),
            fake=int(np.count_nonzero(known["fake"] <= score)),
        ),
    )


def _all(scores: Mapping[str, Float64]) -> Float64:
    return np.sort(np.concatenate([np.empty(0), *scores.values()]))


def _ends(scores: Float64, score: float) -> tuple[float, float]:
    low, high = np.percentile(scores, [_TAIL, 100 - _TAIL])
    low, high = min(float(low), score), max(float(high), score)
    spread = (high - low) or 1.0
    return low - spread / 50, high + spread / 50


def _histogram(label: Label, scores: Float64, edges: Float64) -> Histogram:
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    heights = tuple(round(float(count / counts.max()), 3) for count in counts)
    return Histogram(label, len(scores), heights)
