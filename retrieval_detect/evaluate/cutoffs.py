"""Until when the images an encoder was trained on can be from, so far as that is public.

A generator that came before may have left images in the training data: what an encoder tells about it then
is no proof that it would tell a generator of tomorrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retrieval_detect.encoders.registry import OFFLINE_ENCODER, plain_name


@dataclass(frozen=True, slots=True)
class Cutoff:
    """``until`` : YYYY or YYYY-MM, no training image is younger; empty = unknown. ``data`` : what it was."""

    until: str
    data: str = ""
    source: str = ""

    def __str__(self) -> str:
        if not self.until:
            return "its training data are not known"
        return f"trained on {self.data}, images until {self.until} at the latest ({self.source})"


UNKNOWN = Cutoff("")
# Where a paper gives no date for its images, its own date stands: nothing younger can be in them.
_IMAGENET = Cutoff("2012", "ImageNet-1k", "Russakovsky et al. 2015, arXiv 1409.0575")
_OPENAI = Cutoff("2021-01", "400 million image and text pairs", "model card of CLIP")
_LAION_400M = Cutoff("2021-11", "LAION-400M", "arXiv 2111.02114")
_LAION_2B = Cutoff("2022-10", "LAION-2B", "arXiv 2210.08402")
_DATACOMP = Cutoff("2023-04", "CommonPool, filtered", "arXiv 2304.14108")
_DFN = Cutoff("2023-09", "images chosen by data filtering networks", "arXiv 2309.17425")
_METACLIP = Cutoff("2023-09", "MetaCLIP's pairs of Common Crawl", "arXiv 2309.16671")
_SIGLIP = Cutoff("2023-03", "WebLI", "arXiv 2303.15343")
_BY_TAG: Mapping[str, Cutoff] = {
    "openai": _OPENAI,
    "laion400m": _LAION_400M,
    "laion2b": _LAION_2B,
    "datacomp": _DATACOMP,
    "commonpool": _DATACOMP,
    "dfn": _DFN,
    "metaclip": _METACLIP,
    "webli": _SIGLIP,
}
"""How a tag of open_clip begins → what stands behind it."""


def training_cutoff(encoder: str) -> Cutoff:
    """Of an encoder by its name (``"ViT-L-14:openai"``, with or without ``@crop``); else ``UNKNOWN``."""
    model, _, tag = plain_name(encoder).partition(":")
    if model == OFFLINE_ENCODER:
        return _IMAGENET
    if "siglip2" in model.lower() or model == "timm":
        return UNKNOWN
    return next((found for start, found in _BY_TAG.items() if tag.startswith(start)), UNKNOWN)
