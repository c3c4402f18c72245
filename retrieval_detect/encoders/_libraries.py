"""The one door to open_clip and timm: both load torchvision, which must be seen to first.

``from retrieval_detect.encoders._libraries import timm`` is as lazy as ``import timm`` in the same place.
"""

from __future__ import annotations

from typing import Any

from retrieval_detect.encoders._torchvision import ensure_torchvision


def __getattr__(name: str) -> Any:
    if name not in ("open_clip", "timm"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ensure_torchvision()
    if name == "timm":
        import timm

        return timm
    import open_clip

    return open_clip
