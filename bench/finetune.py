"""What training the encoder itself costs and gains, on a small scale: ``python -m bench.finetune``.

``rd finetune``'s own code trains on ``TRAINING`` images of each folder, one generator left out; the new
encoder and the one it began with then answer about the same other images.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._data import (
    ORDER,
    Embeddings,
    Listed,
    Sample,
    add_data,
    embedded,
    encoders_of,
    lay_out,
    listed,
    workplace,
)
from bench._frame import (
    Clock,
    about,
    beside,
    by_encoder,
    carry_out,
    command_of,
    markdown_table,
    origin,
    parser_of,
    rounded,
    told,
)
from bench._machine import commit
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.shortcuts import logistic
from retrieval_detect.images.sources import scan
from retrieval_detect.scoring.metrics import auc, recall_at_fpr
from retrieval_detect.teach.finetune import FinetuneOptions, finetune
from retrieval_detect.teach.projections import fit_default
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    import argparse

    from retrieval_detect.types import Float64, ImageItem

OUT = ORDER[1]
"""The generator left out: Stable Diffusion 1, which shows what the others do not."""
TRAINING = 24
"""Images of each folder that are trained on, and are the references; of the one left out none is."""
FEW = 5
"""References of the generator left out that the banks are then given."""
EPOCHS, BLOCKS, RANK = 4, 2, 8
WAYS: Mapping[str, Mapping[str, Any]] = {
    f"its last {BLOCKS} blocks": {"train": "blocks", "blocks": BLOCKS, "lr": 1e-5},
    f"LoRA of rank {RANK}": {"train": "lora", "rank": RANK, "lr": 1e-4},
}
AS_IT_IS = "as it is"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("finetune", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("finetune", options, lambda: rounded(measure(options)), table)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("finetune", command=command_of("finetune", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    every = listed(options.data, options.images)
    given = embedded(load_encoder(name), data=options.data, images=options.images, say=clock.say)
    known, few, asked = (_places(part) for part in chosen(every))
    parts = [[s for s in given.samples if s.path in part] for part in (known, few, asked)]
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        rows = [{"trained": AS_IT_IS, **row} for row in _asked(given, work / "as-it-is", *parts)]
        images = _labelled(lay_out([image for image in every if image.path in known], work / "training"))
        for number, (way, how) in enumerate(WAYS.items()):
            clock.say(f"{name}: trains {way}")
            weights, cost = _trained(name, images, work / f"{number}.safetensors", how)
            only = lay_out([i for i in every if i.path in known | few | asked], work / f"data-{number}")
            with workplace() as passing:  # nobody will ask for vectors of these weights again
                anew = embedded(load_encoder(name, weights=weights), data=only, say=clock.say)
                of = {sample.path.resolve(): sample for sample in anew.samples}
                own = [[of[sample.path.resolve()] for sample in part] for part in parts]
                rows += [{"trained": way, **cost, **row} for row in _asked(anew, passing / "index", *own)]
    return {"encoder": name, "trained_on": len(known), "asked": len(asked), "out": OUT, "rows": rows}


def chosen(images: Sequence[Listed]) -> tuple[list[Listed], list[Listed], list[Listed]]:
    """What is trained on and referred to; the few of the generator left out; what is asked about."""
    known, few, asked = [], [], []
    for name in sorted({image.name for image in images}):
        own = [image for image in images if image.name == name]
        references = [image for image in own if not image.held][:TRAINING]
        if name == OUT:
            few += references[:FEW]
        else:
            known += references
        asked += [image for image in own if image.held][:TRAINING]
    return known, few, asked


def _labelled(folder: Path) -> list[tuple[ImageItem, bool]]:
    return [(item, label == "fake") for label in ("real", "fake") for item in scan([folder / label])]


def _places(images: Sequence[Listed]) -> set[Path]:
    return {image.path for image in images}


def _trained(
    name: str, images: Sequence[tuple[ImageItem, bool]], out: Path, how: Mapping[str, Any]
) -> tuple[Path, dict[str, float]]:
    """The new weights, and what they cost: seconds, and images that went through a training step a second."""
    options = FinetuneOptions(epochs=EPOCHS, device="cpu", **how)
    started = time.perf_counter()
    report = finetune(name, images, options=options, out=out)
    seconds = time.perf_counter() - started
    return report.weights, {
        "seconds": seconds,
        "images_a_second": report.epochs_run * report.n_fit / seconds,
        "accuracy_before": report.accuracy_before,
        "accuracy": report.accuracy,
    }


def _asked(
    given: Embeddings, folder: Path, known: Sequence[Sample], few: Sequence[Sample], asked: Sequence[Sample]
) -> Iterator[dict[str, Any]]:
    """By rd and by logistic regression, without and with a few references of the generator left out."""
    fake = np.array([sample.fake for sample in asked])
    new = np.array([sample.name == OUT for sample in asked])
    for n, references in ((0, known), (len(few), [*known, *few])):
        store = given.index(folder / str(n), references)
        fit_default(store, calibrate=False, device="cpu")
        detector = Detector.load(store.folder, device="cpu")
        by_rd = np.array([_score(detector, sample) for sample in asked])
        proj = [np.stack([s.embedded.vectors["proj"] for s in part]) for part in (references, asked)]
        by_regression = logistic(proj[0], np.array([s.fake for s in references]), proj[1])
        for method, scores in (("rd", by_rd), ("logistic regression", by_regression)):
            yield {"references": n, "method": method, **_quality(scores, fake, new)}


def _score(detector: Detector, sample: Sample) -> float:
    found = detector.judge(sample.embedded)
    if isinstance(found, Failure):
        raise SystemExit(f"{found.uri}: {found.message}")
    return found.score


def _quality(scores: Float64, fake: Any, new: Any) -> dict[str, float]:
    photographs = scores[~fake]
    parts = {"known": scores[fake & ~new], "new": scores[new]}
    return {
        f"{what}_{name}": value
        for name, own in parts.items()
        for what, value in (
            ("auc", auc(own, photographs)),
            ("recall", recall_at_fpr(own, photographs, fpr=0.05)),
        )
    }


# ---------------------------------------------------------------- table


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    found = by_encoder(result)
    rows = beside(found, _rows)
    one = found[0]
    head = (
        f"{told(found)}; {one['trained_on']} images trained on and kept as references, {one['asked']} others "
        f"asked about, `{one['out']}` left out; {origin(result)}."
    )
    return f"{head}\n\n{markdown_table(list(rows[0]), [list(row.values()) for row in rows])}"


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for row in found["rows"]:
        yield {
            "trained": row["trained"],
            "seconds": f"{row['seconds']:,.0f}" if "seconds" in row else "–",
            "images/s": f"{row['images_a_second']:.2g}" if "seconds" in row else "–",
            "references of the one left out": str(row["references"]),
            "judged by": row["method"],
            "AUC, known generators": f"{row['auc_known']:.3f}",
            "AUC, left out": f"{row['auc_new']:.3f}",
            "recall, known": f"{row['recall_known']:.2f}",
            "recall, left out": f"{row['recall_new']:.2f}",
        }


if __name__ == "__main__":
    main()
