"""A verdict → what a page shows of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.evidence import described
from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import decode
from retrieval_detect.names import WRITTEN
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
    MapView,
    ReferenceView,
)
from retrieval_detect.report.paths import shortened
from retrieval_detect.review.map import draw
from retrieval_detect.store.manifest import tool_versions
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import Question
from retrieval_detect.version import __version__

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.review.map import Atlas
    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.types import DecodedImage, Provenance
    from retrieval_detect.verdicts import Evidence, Verdict

_MOST_DOTS = 1500
"""Of the map in a report: enough to see the banks by, and little to open."""
_MOST_BARS = 6
_PEOPLE = 1000
_BINS = 36
_MOST_WRITTEN = 300
_TAIL = 0.5
"""Of the scores, in percent at either end, those beyond are drawn at the edge."""


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
        self._checked = cache(detector.checked)

    def view(
        self, verdict: Verdict, picture: bytes | None = None, *, question: Question | None = None
    ) -> EvidenceView:
        """What is shown of ``verdict``.

        ``picture`` : the bytes of the image that was judged, for its own picture and facts; ``question`` :
        what was asked, default the usual one, for its score distribution and the command that repeats it.
        """
        asked = question or Question(verdict.method)
        image = None
        with suppress(ImageError):
            image = None if picture is None else self._decode(picture)
        regions = verdict.regions
        references = self._references(verdict)
        return EvidenceView(
            name=verdict.input,
            short=shortened([verdict.input])[verdict.input],
            judged=verdict,
            picture=self._pictures.query(verdict, image),
            facts=tuple(image_facts(verdict, picture, image)),
            provenance=tuple(_provenance(verdict.provenance)),
            provenance_note=_provenance_note(verdict.provenance),
            headline=words.plain(words.fits(verdict)),
            strength=words.strength(verdict),
            sentences=tuple(sentences(verdict)),
            warnings=misleading(verdict)[0],
            real=tuple(r for r in references if r.evidence.label == "real"),
            fake=tuple(r for r in references if r.evidence.label == "fake"),
            subjects=_subjects([r.subject for r in references]),
            copies=tuple(_copies(verdict)),
            votes=_votes(verdict),
            attribution=tuple(_attribution(verdict)),
            distribution=_distribution(
                verdict.score, self._detector.calibration(asked) if verdict.calibration else None
            ),
            heat=None if regions is None else self._pictures.heat(regions, image),
            reproduce=tuple(_reproduce(verdict, self._checked(asked))),
            command=_command(verdict, asked),
            alarm_rate=verdict.alpha["real"] if verdict.alpha and verdict.fdr is None else None,
            place=self._place(references) if self._with_map else None,
        )

    def bank_map(self) -> MapView:
        """The banks in two dimensions, a part of the references drawn."""
        return map_view(self._atlas, index=self._detector.reference.name, with_queries=self._with_map)

    @cached_property
    def _atlas(self) -> Atlas:
        return draw(self._detector.snapshot, at_most=_MOST_DOTS)

    def _place(self, references: Sequence[ReferenceView]) -> tuple[float, float] | None:
        shown = [r.evidence for r in references]
        pairs = [e.row_id for e in shown], [e.similarity for e in shown]
        place = self._atlas.place_among(self._detector.snapshot, *pairs)
        return None if place is None else flipped(place)

    def _references(self, verdict: Verdict) -> list[ReferenceView]:
        shown = nearest(verdict)
        rows = self._detector.snapshot.take([e.row_id for e in shown], ["category", *WRITTEN])
        files = shortened(e.uri for e in shown)
        return [
            ReferenceView(
                e,
                row["category"],
                self._pictures.reference(e),
                files[e.uri],
                *((row[name] or "")[:_MOST_WRITTEN] for name in WRITTEN),
            )
            for e, row in zip(shown, rows, strict=True)
        ]


def nearest(verdict: Verdict) -> list[Evidence]:
    """The nearest of each bank, photographs first; of a verdict without them, those among its evidence."""
    return [
        e
        for label in LABELS
        for e in verdict.by_bank.get(label) or [e for e in verdict.evidence if e.label == label]
    ]


# ---------------------------------------------------------------- the image


def image_facts(verdict: Verdict, picture: bytes | None, image: DecodedImage | None) -> Iterator[Fact]:
    """Name, size and format, as far as the file was there to look at."""
    yield Fact(t.FILE, verdict.input)
    if image is not None and picture is not None:
        yield Fact(t.SIZE, t.PIXELS.format(width=image.width, height=image.height))
        yield Fact(t.FORMAT, image.format)
        yield Fact(t.BYTES, t.NUMBER_OF_BYTES.format(n=len(picture)))
    yield Fact(t.SHA256, verdict.sha256, folded=True)


def _provenance(found: Provenance | None) -> Iterator[Fact]:
    """What the file says of itself, as it says it."""
    if found is None:
        return
    for claim in found.claims:
        detail = f": {claim.detail}" if claim.detail else ""
        yield Fact(claim.kind, f"{claim.says}{detail}{t.SIGNED if claim.trusted else ''}")
    for damaged in found.damaged:
        yield Fact(damaged, t.DAMAGED)


def _provenance_note(found: Provenance | None) -> str:
    if found is None:
        return t.NOT_LOOKED_FOR
    return t.PROVENANCE_NOTE if found.claims or found.damaged else t.NO_PROVENANCE


# ---------------------------------------------------------------- the verdict


def misleading(verdict: Verdict) -> tuple[tuple[str, ...], str]:
    """What may mislead, and what is known of the encoder, which stands beside its name instead."""
    about = described(verdict.encoder, "")
    notes = [warning.removeprefix(about) for warning in verdict.warnings if warning.startswith(about)]
    return tuple(w for w in verdict.warnings if not w.startswith(about)), "; ".join(notes)


def sentences(verdict: Verdict) -> Iterator[str]:
    """What the calibration says of the score, and what that does not mean."""
    found, alpha, log10_lr = verdict.calibration, verdict.alpha, verdict.log10_lr
    if found is None or alpha is None:
        yield t.UNCALIBRATED_NOTE
        return
    if lines := words.coverage_lines(verdict):
        yield t.NOT_COMPARABLE.format(said=" ".join(lines))
    if log10_lr is not None:
        times = float(f"{10 ** abs(log10_lr):.2g}")
        ratio = t.TIMES_FAKE if log10_lr > 0 else t.TIMES_REAL
        ratio = t.TIMES_EQUAL if times < 1.5 else ratio
        yield ratio.format(times=f"{times:,.3g}", **t.PROPOSITIONS[verdict.photographs])
    compared = words.compared_with(found)
    yield t.AS_HIGH.format(as_high=found["as_high"], photographs=found["photographs"], sources=compared)
    elsewhere = " ".join(words.new_sources(verdict))
    yield t.NEW_SOURCES.format(said=elsewhere)
    yield t.NOT_ABOUT_OTHERS
    if verdict.fdr is None:
        rate = alpha["real"]
        of = _PEOPLE if rate >= 1 / _PEOPLE else 100 * _PEOPLE
        said = t.FALSE_ALARMS[verdict.photographs]
        yield said.format(percent=100 * rate, of=of, n=round(rate * of))
    else:
        yield t.FALSE_DISCOVERIES.format(percent=100 * verdict.fdr)
    if verdict.probability is None or verdict.prior is None:
        yield t.NO_PROBABILITY
    else:
        yield t.PROBABILITY.format(prior=100 * verdict.prior, chance=100 * verdict.probability)


def _distribution(score: float, calibration: Calibration | None) -> Distribution | None:
    """The scores of photographs and fakes set aside, with this one among them; needs a calibration."""
    if calibration is None:
        return None
    conformal = calibration.conformal
    real, fake = (np.concatenate([np.empty(0), *s.values()]) for s in (conformal.real, conformal.fake))
    if not (len(real) and len(fake)):
        return None
    ends = np.percentile(np.concatenate([real, fake]), [_TAIL, 100 - _TAIL])
    low, high = min(float(ends[0]), score), max(float(ends[1]), score)
    margin = ((high - low) or 1.0) / 50
    low, high = low - margin, high + margin
    edges = np.linspace(low, high, _BINS + 1)

    def heights(scores: np.ndarray) -> tuple[float, ...]:
        counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
        return tuple(round(float(count / counts.max()), 3) for count in counts)

    return Distribution(
        low=low,
        high=high,
        score=score,
        at=(score - low) / (high - low),
        histograms=(
            Histogram("real", len(real), heights(real)),
            Histogram("fake", len(fake), heights(fake)),
        ),
        sentence=t.DISTRIBUTION_NOTE.format(
            n_real=len(real),
            real=int(np.count_nonzero(real >= score)),
            n_fake=len(fake),
            fake=int(np.count_nonzero(fake <= score)),
        ),
    )


# ---------------------------------------------------------------- the evidence


def _votes(verdict: Verdict) -> tuple[Bar, ...]:
    """The fakes' share of the nearest, beside their share of all."""
    found = verdict.votes
    near, everywhere = found.fake / max(found.of, 1), found.bank_share_fake
    return (
        Bar(t.VOTES_FAKE, near, t.VOTES_TEXT.format(share=100 * near), mark=everywhere),
        Bar(t.VOTES_ALL, everywhere, t.VOTES_TEXT.format(share=100 * everywhere)),
    )


def _attribution(verdict: Verdict) -> Iterator[Bar]:
    """The generators that the nearest fakes are of, the heaviest first."""
    by = t.ATTRIBUTION_BAR_OF_HEAD if verdict.attributed_by else t.ATTRIBUTION_BAR
    for found in sorted(verdict.attribution, key=lambda a: -a.share)[:_MOST_BARS]:
        text = by.format(n=found.of_nearest_fakes, share=100 * found.share, head=verdict.attributed_by)
        fit = "" if found.p is None else t.ATTRIBUTION_FIT.format(p=100 * found.p)
        yield Bar(words.name_of(found.generator), found.share, text + fit)


def _subjects(categories: Sequence[str]) -> str:
    """How many of the references shown are of one subject, where subjects are known."""
    known = Counter(category for category in categories if category)
    if not known:
        return t.NO_SUBJECTS
    subject, n = known.most_common(1)[0]
    return t.SAME_SUBJECT.format(of=known.total(), n=n, subject=subject)


def _copies(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """The image's own references, in words, and the whole path of each."""
    files = shortened(copy.uri for copy in verdict.same_image)
    for copy in verdict.same_image:
        yield words.describe(copy, file=files[copy.uri]), copy.uri


# ---------------------------------------------------------------- asking again


def _reproduce(verdict: Verdict, question: Question) -> Iterator[Fact]:
    """All that the answer depends on."""
    index = verdict.index
    generators = words.number(index.n_generators, "generator")
    yield Fact(t.INDEX, index.name)
    yield Fact(t.GENERATION, str(index.generation))
    yield Fact(t.FINGERPRINT, index.fingerprint, folded=True)
    yield Fact(t.BANKS, t.BANKS_TEXT.format(n_real=index.n_real, n_fake=index.n_fake, generators=generators))
    about = misleading(verdict)[1]
    yield Fact(
        t.ENCODER, t.ENCODER_ABOUT.format(name=verdict.encoder, about=about) if about else verdict.encoder
    )
    yield Fact(t.ENGINE, verdict.engine)
    yield Fact(t.METHOD, t.METHOD_TEXT.format(method=verdict.method, k=verdict.k))
    yield Fact(t.PROJECTION, question.projection or t.NOTHING)
    yield Fact(t.EXACT_SCORE, repr(verdict.score))
    tools = {"retrieval-detect": __version__, **tool_versions()}
    yield Fact(t.VERSION, ", ".join(f"{name} {version}" for name, version in tools.items()))


_SAID_BY_RATES = ("fpr", "confidence", "fdr", "at", "source", "within")


def _command(verdict: Verdict, question: Question) -> str:
    """The command line that asks the same again: what differs from what is asked anyway."""
    parts = ["rd", "query", verdict.input, "--index", verdict.index.name, *_rates(question)]
    for name in (field.name for field in fields(Question) if field.name not in _SAID_BY_RATES):
        value = getattr(question, name)
        if value is None or value == getattr(Question(), name):
            continue
        if name == "regions":
            parts += ["--regions", *(("--set", f"pool={value}") if value != "max" else ())]
        elif name in ("k", "projection", "prior"):
            parts += ["--set", f"{name}={value}"]
        elif value is True:
            parts += ["--evidence", name]
        else:
            parts += [f"--{name}", f"{value}"]
    if laid := verdict.beside:
        said = {"supplier": laid.supplier, "date": laid.date}
        parts += [
            "--beside",
            ",".join(["DIR", *(f"{name}={value}" for name, value in said.items() if value)]),
        ]
    return shlex.join(parts)


def _rates(question: Question) -> Iterator[str]:
    """The rate that was kept to, and among which photographs."""
    confidence = "" if question.confidence is None else f",confidence={question.confidence}"
    instead = {"fdr": question.fdr, "at": question.at}
    if given := [f"{name}={value}" for name, value in instead.items() if value is not None]:
        yield from ("--fpr", given[0])
    elif confidence or question.fpr != Question().fpr:
        yield from ("--fpr", f"{question.fpr}{confidence}")
    named = f"source={question.source}" if question.source is not None else ""
    if among := [*filter(None, (question.within, named))]:
        yield from ("--within", ",".join(among))
