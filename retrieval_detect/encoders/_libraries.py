"""The one door to open_clip and timm: both load torchvision, which must be seen to first.

``from retrieval_detect.encoders._libraries import timm`` is as lazy as ``import timm`` in the same place.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from retrieval_detect.errors import EncoderError

_declared: list[Any] = []
"""Operators declared here live as long as the library object does."""


def __getattr__(name: str) -> Any:
    if name not in ("open_clip", "timm"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ensure_torchvision()
    if name == "timm":
        import timm

        return timm
    import open_clip

    return open_clip


def ensure_torchvision() -> bool:
    """Import torchvision, mending the one way in which it is often installed broken.

    Returns whether it had to be mended.

    Beside a CPU build of torch, the CUDA build of torchvision cannot load its compiled operators and
    then fails on describing the first of them, ``nms`` (pytorch/vision issue 9077). Neither
    operator is used here, so declaring them is enough. On an installation that works nothing is
    touched: declaring an operator twice would break it.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise EncoderError(
                f"torchvision cannot be imported: {error}",
                hint="Install the torchvision release that belongs to the installed torch.",
            ) from error
        _declare_operators()
        import_module("torchvision")
    return bool(_declared)


def _declare_operators() -> None:
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
