"""rd: tells photographs from AI-generated images by the references nearest to them.

Callers can build on ``__all__``, on ``retrieval_detect.sklearn`` and on ``retrieval_detect.testing``; all
else may move. Names are loaded on first use, so that ``import retrieval_detect`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from retrieval_detect.version import __version__

_HOMES = {
    "Attribution": "retrieval_detect.verdicts",
    "BadName": "retrieval_detect.errors",
    "CaseDamaged": "retrieval_detect.errors",
    "ConfigError": "retrieval_detect.errors",
    "Detector": "retrieval_detect.ask.detector",
    "Embedded": "retrieval_detect.types",
    "EmptyBank": "retrieval_detect.errors",
    "Encoder": "retrieval_detect.encoders.base",
    "EncoderError": "retrieval_detect.errors",
    "EncoderMismatch": "retrieval_detect.errors",
    "Evidence": "retrieval_detect.verdicts",
    "Failure": "retrieval_detect.types",
    "FaissUnavailable": "retrieval_detect.errors",
    "FormatUnsupported": "retrieval_detect.errors",
    "ImageError": "retrieval_detect.errors",
    "ImageItem": "retrieval_detect.types",
    "Index": "retrieval_detect.teach.build",
    "IndexCorrupt": "retrieval_detect.errors",
    "IndexLocked": "retrieval_detect.errors",
    "IndexNotFound": "retrieval_detect.errors",
    "IndexStateError": "retrieval_detect.errors",
    "LabelConflict": "retrieval_detect.errors",
    "Provenance": "retrieval_detect.types",
    "Question": "retrieval_detect.verdicts",
    "RdError": "retrieval_detect.errors",
    "SearchError": "retrieval_detect.errors",
    "UsageError": "retrieval_detect.errors",
    "VectorError": "retrieval_detect.errors",
    "Verdict": "retrieval_detect.verdicts",
    "Verdicts": "retrieval_detect.ask.table",
    "WeightsUnavailable": "retrieval_detect.errors",
    "load_encoder": "retrieval_detect.encoders.registry",
    "read_provenance": "retrieval_detect.images.provenance",
    "scan": "retrieval_detect.images.sources",
}

__all__ = [
    "Attribution",
    "BadName",
    "CaseDamaged",
    "ConfigError",
    "Detector",
    "Embedded",
    "EmptyBank",
    "Encoder",
    "EncoderError",
    "EncoderMismatch",
    "Evidence",
    "Failure",
    "FaissUnavailable",
    "FormatUnsupported",
    "ImageError",
    "ImageItem",
    "Index",
    "IndexCorrupt",
    "IndexLocked",
    "IndexNotFound",
    "IndexStateError",
    "LabelConflict",
    "Provenance",
    "Question",
    "RdError",
    "SearchError",
    "UsageError",
    "VectorError",
    "Verdict",
    "Verdicts",
    "WeightsUnavailable",
    "__version__",
    "load_encoder",
    "read_provenance",
    "scan",
]

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.ask.table import Verdicts
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.encoders.registry import load_encoder
    from retrieval_detect.errors import (
        BadName,
        CaseDamaged,
        ConfigError,
        EmptyBank,
        EncoderError,
        EncoderMismatch,
        FaissUnavailable,
        FormatUnsupported,
        ImageError,
        IndexCorrupt,
        IndexLocked,
        IndexNotFound,
        IndexStateError,
        LabelConflict,
        RdError,
        SearchError,
        UsageError,
        VectorError,
        WeightsUnavailable,
    )
    from retrieval_detect.images.provenance import read_provenance
    from retrieval_detect.images.sources import scan
    from retrieval_detect.teach.build import Index
    from retrieval_detect.types import Embedded, Failure, ImageItem, Provenance
    from retrieval_detect.verdicts import Attribution, Evidence, Question, Verdict


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("Detector", "Verdict"):
        import_module("retrieval_detect.report.notebook")  # tells verdicts how notebooks show them
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
