"""What files say of where they come from: C2PA, EXIF, XMP, IPTC, texts of generator programs.

Shown beside a score and never mixed into it: every tag can be forged or stripped by anybody. See
docs/provenance.md.
"""

from __future__ import annotations

from typing import Any

from retrieval_detect.images.provenance.c2pa import read_manifest
from retrieval_detect.images.provenance.claims import (
    c2pa_claims,
    exif_claims,
    iptc_claims,
    names_generator,
    text_claims,
    xmp_claims,
)
from retrieval_detect.images.provenance.containers import Blocks, blocks_of
from retrieval_detect.images.provenance.exif import read_exif
from retrieval_detect.images.provenance.generators import read_generator
from retrieval_detect.images.provenance.iptc import read_iptc
from retrieval_detect.images.provenance.xmp import read_xmp
from retrieval_detect.types import Claim, Provenance

__all__ = ["names_generator", "read_provenance"]


def read_provenance(data: bytes) -> Provenance:
    """What one image file says of itself.

    Works offline, is bounded in time and memory, and raises nothing whatever the bytes are: what is there and
    cannot be read is named in ``damaged``.
    """
    blocks = blocks_of(data)
    exif = _exif_into(blocks)
    xmp = _known("XMP", read_xmp(blocks.xmp) if blocks.xmp else {}, blocks)
    iptc = _known("IPTC", read_iptc(blocks.iptc), blocks)
    texts = blocks.texts | ({"AIGC": xmp["aigc"]} if "aigc" in xmp else {})
    text = read_generator(texts)
    c2pa = read_manifest(data) if blocks.c2pa else None
    claims: list[Claim] = []
    claims += c2pa_claims(c2pa) if c2pa else ()
    claims += text_claims(text) if text else ()
    claims += xmp_claims(xmp)
    claims += iptc_claims(iptc)
    claims += exif_claims(exif)
    damaged = tuple(dict.fromkeys(blocks.damaged))
    return Provenance(c2pa, exif or None, xmp or None, text, tuple(claims), damaged, iptc or None)


def _exif_into(blocks: Blocks) -> dict[str, Any]:
    """Facts of EXIF; the texts and the packet it may hold are put with the others."""
    if not blocks.exif:
        return {}
    exif = read_exif(blocks.exif)
    if exif is None:
        return _known("EXIF", None, blocks)
    for keyword, text in exif.texts.items():
        blocks.add_text(keyword, text)
    blocks.xmp = blocks.xmp or blocks.keep("XMP", exif.xmp)
    blocks.iptc = blocks.iptc or blocks.keep("IPTC", exif.iptc)
    blocks.c2pa = blocks.c2pa or exif.c2pa
    return exif.facts


def _known(name: str, found: dict[str, str] | None, blocks: Blocks) -> dict[str, str]:
    if found is None:
        blocks.damaged.append(f"{name}: it cannot be read")
    return found or {}
