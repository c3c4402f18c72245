"""Uses the public names as a caller would; checked by mypy, never run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import retrieval_detect
from retrieval_detect import Detector, Index, load_encoder
from retrieval_detect.encoders.base import Encoder
from retrieval_detect.images.sources import scan
from retrieval_detect.types import Failure
from retrieval_detect.verdicts import Verdict


def ask(path: Path) -> float:
    verdict: Verdict = Detector.load(path).query("photo.jpg", method="mean", k=5)
    name: str = verdict.evidence[0].generator
    assert name is not None
    return verdict.score


def ask_many(path: str) -> list[str]:
    said: list[str] = []
    for result in Detector.load(path, device="cpu").query_many(scan(["inbox/"])):
        said.append(result.message if isinstance(result, Failure) else result.verdict)
    return said


def teach(path: Path) -> int:
    encoder: Encoder = load_encoder("efficientnet-lite0")
    index = Index.create(path, encoder=encoder, layers=["proj"])
    plan = index.plan_add(scan([path]), label="fake", generator="sdxl")
    report = index.apply(plan, encoder=encoder)
    index.remove([0, 1], reason="licence withdrawn")
    vectors: NDArray[np.float32] = index.arrays(split="bank").X
    return report.added + len(vectors)


version: str = retrieval_detect.__version__
