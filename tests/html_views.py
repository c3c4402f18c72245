"""Views of made-up verdicts, for tests of pages: a detector that knows no image and no index."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from retrieval_detect.report.html.view import Viewer
from retrieval_detect.scoring.conformal import Conformal
from retrieval_detect.verdicts import Evidence, Influence, JudgedView, Region, Regions, Stability
from tests.verdicts import CALIBRATED, FAKE, REAL

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>.jpg"
STABILITY = Stability(
    1,
    2,
    "fake-like",
    (JudgedView("jpeg-72", "fake-like", 1.5), JudgedView("resize-63", "real-like", -0.5)),
)
REGIONS = Regions("max", 2.0, 5 / 101, 100, (Region((0, 0, 32, 32), -1.0), Region((32, 0, 32, 32), 2.0)))
INFLUENCE = (
    Influence("fake", "sdxl", None, 12, 0.5, -1.24),
    Influence("real", "camera", 7, 1, None, None),
)
FULL = replace(
    CALIBRATED,
    verdict="uncertain",
    reason="fits-both",
    reach=None,
    by_bank={"fake": (FAKE,), "real": (REAL,)},
    same_image=(REAL,),
    stability=STABILITY,
    regions=REGIONS,
    influence=INFLUENCE,
)


def detector(*, categories: dict[int, str] | None = None) -> SimpleNamespace:
    """As much of a ``Detector`` as a ``Viewer`` asks for."""
    known = categories or {}
    rng = np.random.default_rng(0)
    scores = {"camera": np.sort(rng.normal(-1, 1, 60))}, {"sdxl": np.sort(rng.normal(1, 1, 40))}
    calibration = SimpleNamespace(conformal=Conformal(*scores, np.zeros(1)))
    return SimpleNamespace(
        checked=lambda question: replace(question, k=200, projection="identity"),
        calibration=lambda _question: calibration,
        snapshot=SimpleNamespace(
            take=lambda row_ids, _names: [
                {"category": known.get(row_id, ""), "caption": None, "url": None} for row_id in row_ids
            ],
            find=lambda _content_ids: [],
        ),
    )


def viewer(**options) -> Viewer:
    categories = options.pop("categories", None)
    return Viewer(detector(categories=categories), **options)


def reference(n: int, uri: str = "gone.png", *, label: str = "fake", content_id: str = "") -> Evidence:
    """A reference; its picture is there if ``uri`` is."""
    names = (
        {"generator": f"g{n % 5}", "source": ""} if label == "fake" else {"generator": "", "source": "cam"}
    )
    return replace(FAKE, row_id=n, label=label, uri=uri, content_id=content_id or f"{n:064x}", **names)
