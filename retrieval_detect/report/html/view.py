"""A verdict → what a page shows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import decode
from retrieval_detect.report import words
from retrieval_detect.report.html import parts
from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.charts import distribution
from retrieval_detect.report.html.map import flipped, map_view
from retrieval_detect.report.html.pictures import Pictures
from retrieval_detect.report.html.records import EvidenceView, MapView, ReferenceView, RegionsView
from retrieval_detect.review.map import draw
from retrieval_detect.types import LABELS
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.review.map import Atlas
    from retrieval_detect.types import DecodedImage, Label
    from retrieval_detect.verdicts import Evidence, Regions, Verdict

__all__ = ["EvidenceView", "Viewer"]

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
        subjects = self._subjects(verdict)
        provenance = tuple(parts.provenance(verdict.provenance))
        return EvidenceView(
            name=verdict.input,
            anchor=f"image-{verdict.sha256[:12]}",
            picture=self._pictures.query(verdict, image),
            facts=tuple(parts.facts(verdict, picture, image)),
            provenance=provenance,
            provenance_note=parts.provenance_note(verdict.provenance),
            verdict=verdict.verdict,
            headline=parts.plain(words.fits(verdict)),
            strength=parts.strength(verdict),
            sentences=tuple(parts.sentences(verdict)),
            warnings=verdict.warnings,
            real=self._references(verdict, "real", subjects),
            fake=self._references(verdict, "fake", subjects),
            subjects=parts.subjects(list(subjects.values())),
            same_image=tuple(map(words.describe, verdict.same_image)),
            votes=parts.votes(verdict),
            votes_sentence=parts.votes_sentence(verdict),
            attribution=tuple(parts.attribution(verdict)),
            attribution_sentence=parts.attribution_sentence(verdict),
            nearest_fakes=parts.nearest_fakes(verdict),
            score=verdict.score,
            distribution=distribution(verdict.score, calibration),
            stability=parts.stability(verdict.stability),
            regions=self._regions(verdict.regions, image),
            influence=parts.influence(verdict.influence),
            reproduce=tuple(parts.reproduce(verdict, checked)),
            command=parts.command(verdict, asked),
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
        return RegionsView(
            parts.region_sentences(found), self._pictures.heat(found, image), parts.crops(found)
        )


def _shown(verdict: Verdict, label: Label) -> Sequence[Evidence]:
    """The nearest of one bank; of a verdict that does not carry them, those among its evidence."""
    return verdict.by_bank.get(label) or [e for e in verdict.evidence if e.label == label]
