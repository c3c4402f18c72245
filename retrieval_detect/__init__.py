"""rd: tells photographs from AI-generated images by the references nearest to them.

The public names are loaded on first use, so that ``import retrieval_detect`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrieval_detect.version import __version__

_HOMES = {
    "Detector": "retrieval_detect.ask.detector",
    "Index": "retrieval_detect.teach.build",
    "load_encoder": "retrieval_detect.encoders.registry",
}

__all__ = ["Detector", "Index", "__version__", "load_encoder"]

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.encoders.registry import load_encoder
    from retrieval_detect.teach.build import Index


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
