"""Uses the public names as a caller would; checked by mypy, never run.

Where a line is marked as an error, mypy must find that error: an unused mark is an error of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import retrieval_detect
from retrieval_detect import (
    Detector,
    Embedded,
    Encoder,
    Evidence,
    Failure,
    ImageError,
    Index,
    Question,
    RdError,
    Verdict,
    Verdicts,
    load_encoder,
    scan,
)


def ask(path: Path) -> float:
    verdict: Verdict = Detector.load(path).query("photo.jpg", method="mean", k=5)
    evidence: Evidence = verdict.evidence[0]
    name: str = evidence.generator
    assert name is not None
    return verdict.score


def ask_many(name: str) -> list[str]:
    said: list[str] = []
    for result in Detector.load(name, device="cpu").query_many(scan(["inbox/"]), batch_size=8, fdr=0.1):
        said.append(result.message if isinstance(result, Failure) else result.to_json())
    return said


def ask_about_anything(detector: Detector, picture: Image.Image, pixels: NDArray[np.uint8]) -> list[float]:
    with Path("photo.jpg").open("rb") as opened:
        detector.query(opened, fpr=0.01)
    answers: Verdicts = detector.query_many([Path("a.jpg"), b"", picture, pixels], workers=2)
    detector.query(3)  # type: ignore[arg-type]
    columns: list[str] = answers.to_arrow().column_names
    assert columns
    return [answer.score for answer in detector.stream("inbox/") if isinstance(answer, Verdict)]


def ask_wrongly(detector: Detector, embedded: Embedded) -> None:
    detector.query("photo.jpg", methode="mean")  # type: ignore[call-arg]
    detector.query("photo.jpg", fpr="0.01")  # type: ignore[arg-type]
    detector.query("photo.jpg", regions="median")  # type: ignore[arg-type]
    detector.query_many(["photo.jpg"], stabilty=8)  # type: ignore[call-arg]
    detector.query_many(["photo.jpg"], k="5")  # type: ignore[arg-type]
    detector.judge(embedded, prior="half")  # type: ignore[arg-type]
    detector.judge(embedded, question=Question())  # type: ignore[call-arg]


def errors(detector: Detector) -> str:
    try:
        return detector.query(b"").verdict
    except ImageError as error:
        return error.reason
    except RdError as error:
        return error.in_full


def teach(path: Path) -> int:
    encoder: Encoder = load_encoder("efficientnet-lite0")
    index = Index.create(path, encoder=encoder, layers=["proj"])
    plan = index.plan_add(scan([path]), label="fake", generator="sdxl")
    index.plan_add(scan([path]), generator="sdxl")  # type: ignore[call-arg]
    index.plan_add(scan([path]), label="generated")  # type: ignore[arg-type]
    report = index.apply(plan, encoder=encoder)
    index.add(["a.jpg"], label="fake", generator="sdxl")
    index.add("new/", generator="sdxl")  # type: ignore[call-arg]
    Index.build("mine", real="photos/", fake=scan(["generated/"]), encoder="efficientnet-lite0")
    index.remove([0, 1], reason="licence withdrawn")
    vectors: NDArray[np.float32] = index.arrays(split="bank").X
    return report.added + len(vectors)


version: str = retrieval_detect.__version__
