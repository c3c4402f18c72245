"""A verdict → what a page shows of it where nothing else is at hand: neither its index nor what was asked."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import decode
from retrieval_detect.images.stored import stored_items
from retrieval_detect.report import words
from retrieval_detect.report.html.pictures import Pictures
from retrieval_detect.report.html.records import GlanceView, ReferenceView
from retrieval_detect.report.html.view import image_facts, misleading, nearest, sentences
from retrieval_detect.report.paths import shortened

if TYPE_CHECKING:
    from retrieval_detect.verdicts import Verdict


def glance(verdict: Verdict) -> GlanceView:
    """The verdict with its nearest references, and pictures of those files that are what they were."""
    (item,) = stored_items([(verdict.input, bytes.fromhex(verdict.sha256))])
    data = image = None
    with suppress(ImageError):
        data = item.read()
        image = decode(data)
    pictures = Pictures(None, show=True, blur=False)
    shown = nearest(verdict)
    files = shortened(e.uri for e in shown)
    references = [ReferenceView(e, "", pictures.reference(e), files[e.uri]) for e in shown]
    return GlanceView(
        name=verdict.input,
        judged=verdict,
        picture=pictures.query(verdict, image),
        facts=tuple(image_facts(verdict, data, image)),
        headline=words.plain(words.fits(verdict)),
        strength=words.strength(verdict),
        sentences=tuple(sentences(verdict)),
        warnings=misleading(verdict)[0],
        real=tuple(r for r in references if r.evidence.label == "real"),
        fake=tuple(r for r in references if r.evidence.label == "fake"),
    )
