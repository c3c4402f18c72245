"""``rd finetune``: the encoder itself, from images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    device_option,
    encoder_option,
    offline_option,
)
from retrieval_detect.cli.settable import WEIGHTS, WORKERS, Settable, set_option
from retrieval_detect.images.sources import scan
from retrieval_detect.report.words import number

_SETTABLE = (
    Settable("blocks", "How many last blocks --train blocks trains.", click.IntRange(1), 2),
    Settable("rank", "Rank of LoRA's updates.", click.IntRange(1), 8),
    Settable("augment", "Chance of blur and of JPEG.", click.FloatRange(0, 1), 0.1),
    Settable("epochs", "At most so many.", click.IntRange(1), 100),
    Settable("patience", "Epochs without gain.", click.IntRange(1), 5),
    Settable("lr", "Rate of learning.", click.FloatRange(0, min_open=True), 1e-4),
    Settable("batch", "Images a step.", click.IntRange(2), 32),
    Settable("seed", "Of all that is drawn.", click.IntRange(0), 0),
)


@click.command(
    "finetune",
    cls=Command,
    examples="""
        rd finetune --real photos/ --fake generated/ --encoder timm:resnet50 --out resnet50.safetensors
        rd build-index --encoder timm:resnet50 --set encoder-weights=resnet50.safetensors ...
        rd head import resnet50.head.safetensors --name cnndetection
    """,
    headings={
        "What it learns from": "--real --fake --out",
        "What it learns": "--train --objective --scratch --encoder",
    },
)
@click.option("--real", "real", multiple=True, required=True, metavar="DIR", help="Photographs, by source.")
@click.option("--fake", "fake", multiple=True, required=True, metavar="DIR", help="Fakes, by generator.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new .safetensors file.")
@click.option(
    "--train",
    type=click.Choice(["all", "blocks", "lora"]),
    default="all",
    help="How much of the encoder (default: all).",
)
@click.option(
    "--objective",
    type=click.Choice(["binary", "caption"]),
    default="binary",
    help="Tell labels apart, or match captions (default: binary).",
)
@click.option("--scratch", is_flag=True, help="Start at random, not from the encoder's weights.")
@encoder_option
@device_option
@offline_option
@set_option(*_SETTABLE, WEIGHTS, WORKERS)
@click.pass_obj
def command(
    run: Run, /, real: tuple[str, ...], fake: tuple[str, ...], out: Path, scratch: bool, **options: Any
) -> int | None:
    """Train an image encoder itself, from images.

    They are read again in every epoch. The result is a new encoder with its own fingerprint: indexes must be
    built with it anew. It serves the papers' baselines too: timm:resnet50 trained on photographs and fakes is
    CNNDetection.
    """
    from retrieval_detect.teach.finetune import FinetuneOptions, finetune

    settings = run.settings
    chosen = FinetuneOptions(**options, **run.running, pretrained=not scratch, workers=settings.workers)
    text = None
    if chosen.objective == "caption":
        from retrieval_detect.encoders.text import load_text_tower

        text = load_text_tower(settings.encoder, weights=settings.encoder_weights, offline=settings.offline)
    images = [*((item, False) for item in scan(real)), *((item, True) for item in scan(fake))]
    report = finetune(settings.encoder, images, options=chosen, out=out, text=text, progress=run.output.note)
    run.warn(report.failures)
    record = asdict(report) | {
        "weights": str(report.weights),
        "head": str(report.head),
        "losses": [round(loss, 6) for loss in report.losses],
        "failures": len(report.failures),
    }
    lines = [
        f"Trained {report.encoder} on {number(report.n_fit, 'image')}, {number(report.epochs_run, 'epoch')}; "
        f"epoch {report.epoch} is kept",
        f"  accuracy on {report.n_held_out:,} images held out, labels counted alike: "
        f"{100 * report.accuracy:.1f} % ({100 * report.accuracy_before:.1f} % before)",
        f"  {report.weights}: a new encoder, fingerprint {report.fingerprint[:16]}",
        f"  Use it: rd build-index --encoder {report.encoder} --set encoder-weights={report.weights}",
        f"  and, to ask its classifier: rd head import {report.head} --name finetuned; "
        "rd query --method finetuned",
    ]
    run.output.record(record, text=lines)
    return SOME_FAILED if report.failures else None
