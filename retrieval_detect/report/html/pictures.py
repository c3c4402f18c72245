"""Small pictures for pages: of the image that was judged, and of references where their files still are."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retrieval_detect.errors import ImageError
from retrieval_detect.images.decode import Limits, decode
from retrieval_detect.images.stored import CHANGED, GONE, stored_items
from retrieval_detect.images.thumbnails import encoded as small
from retrieval_detect.report.heatmap import heat_map
from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.records import Picture
from retrieval_detect.report.words import origin
from retrieval_detect.store.originals import stored_thumbnail

if TYPE_CHECKING:
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import DecodedImage, UInt8
    from retrieval_detect.verdicts import Evidence, Regions, Verdict

REFERENCE_SIDE, QUERY_SIDE, HEAT_SIDE = 96, 280, 480
_BLURRED_SIDE = 8
"""Of a blurred picture's longer side, so many pixels are left: no face can be told from another by them."""
_KEPT = 20_000
_WHY = {GONE: t.GONE, CHANGED: t.CHANGED}
_ANY_SHAPE = Limits(min_side=1, max_aspect=1000)


class Pictures:
    """Makes pictures as a page may show them, each reference's once.

    ``snapshot`` : where small pictures may be kept, if it is at hand; ``show`` : whether any is shown;
    ``blur`` : whether each is blurred as a whole. A face detector would overlook some faces, and one is
    enough.
    """

    def __init__(self, snapshot: Snapshot | None, *, show: bool, blur: bool) -> None:
        self._snapshot = snapshot
        self._show, self._blur = show, blur
        self._made: dict[int, Picture] = {}

    def query(self, verdict: Verdict, image: DecodedImage | None) -> Picture:
        """The image that was judged."""
        alt, key = t.ALT_QUERY.format(name=verdict.input), f"q{verdict.sha256[:16]}"
        if not self._show:
            return Picture("", alt, t.NOT_SHOWN)
        if image is None:
            return Picture("", alt, t.NO_PICTURE)
        return self._picture(image.rgb, QUERY_SIDE, alt=alt, key=key)

    def heat(self, regions: Regions, image: DecodedImage | None) -> Picture:
        """The scores of an image's crops over it; over plain grey where it is not shown."""
        if self._show and image is not None:
            canvas = _coarse(image.rgb) if self._blur else image.rgb
        else:
            width, height = (max(r.box[i] + r.box[i + 2] for r in regions.heat_map) for i in (0, 1))
            canvas = np.full((height, width, 3), 200, np.uint8)
        return encoded(heat_map(canvas, regions), HEAT_SIDE, Picture("", t.ALT_HEAT))

    def reference(self, evidence: Evidence) -> Picture:
        """A reference, from its file; where that is gone, the picture that the index keeps, if it does."""
        if evidence.row_id not in self._made:
            if len(self._made) >= _KEPT:
                self._made.clear()
            self._made[evidence.row_id] = self._reference(evidence)
        return self._made[evidence.row_id]

    def _reference(self, evidence: Evidence) -> Picture:
        alt = t.ALT_REFERENCE.format(label=evidence.label, row_id=evidence.row_id, name=origin(evidence))
        if not self._show:
            return Picture("", alt, t.NOT_SHOWN)
        identity = bytes.fromhex(evidence.content_id)
        (item,) = stored_items([(evidence.uri, identity)])
        try:
            rgb = decode(item.read()).rgb
        except ImageError as error:
            kept = stored_thumbnail(self._snapshot, identity) if self._snapshot else None
            if kept is None:
                return Picture("", alt, _WHY.get(error.reason, t.NOT_READ))
            rgb = decode(kept, limits=_ANY_SHAPE).rgb
        return self._picture(rgb, REFERENCE_SIDE, alt=alt, key=f"r{evidence.content_id[:16]}")

    def _picture(self, rgb: UInt8, side: int, *, alt: str, key: str) -> Picture:
        shown = Picture("", alt, t.BLURRED if self._blur else "", key)
        return encoded(Image.fromarray(_coarse(rgb) if self._blur else rgb), side, shown)


def _coarse(rgb: UInt8) -> UInt8:
    """The same size, with the detail of a few pixels: uint8 (height, width, 3)."""
    image = Image.fromarray(rgb)
    scale = _BLURRED_SIDE / max(image.size)
    few = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    return np.asarray(few.resize(image.size, Image.Resampling.BICUBIC))


def encoded(image: Image.Image, side: int, shown: Picture) -> Picture:
    """A picture with its pixels: WebP, at most ``side`` pixels long, without metadata."""
    data, width, height = small(image, side)
    uri = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(uri, shown.alt, shown.note, shown.key, width, height)
