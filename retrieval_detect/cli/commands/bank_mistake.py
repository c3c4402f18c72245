"""``rd bank mistake``: what was judged wrongly, kept to see whether that mends or comes back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.params import SOME_FAILED, Command, Run, computing_options
from retrieval_detect.cli.progress import progress
from retrieval_detect.errors import UsageError
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.items import attempted
from retrieval_detect.images.sources import scan
from retrieval_detect.report.words import number
from retrieval_detect.types import Embedded, Failure, Label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retrieval_detect.review.mistakes import Tally
    from retrieval_detect.teach.mistakes import Kept

_STATES = {"new": "kept", "replaced": "kept before, label and reason replaced", "known": "kept so already"}


@click.command(
    "mistake",
    cls=Command,
    examples="""
        rd bank mistake portrait.jpg --label real --because "mine, the raw file is kept"
        rd bank list --by mistake
        rd bank mistake portrait.jpg --forget
    """,
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--label", type=click.Choice(["real", "fake"]), help="What it is, whatever rd said.")
@click.option("--because", default="", metavar="TEXT", help="How you know; kept beside it.")
@click.option("--forget", is_flag=True, help="Keep it no longer; its sha256 can stand for IMAGE.")
@computing_options()
@click.pass_obj
def mistake(run: Run, images: tuple[str, ...], label: Label | None, because: str, forget: bool) -> int | None:
    """Keep an image that was judged wrongly, to have it judged again after every change.

    Kept are its vectors, its sha256 and your reason; never its pixels, name or path. It votes on nothing,
    and no calibration or threshold knows it: rd bank add, remove and fit say how many of those kept are
    right now. To mend a mistake, add references of its kind.
    """
    if forget:
        if label or because:
            raise UsageError("--label and --because mean nothing with --forget")
        return _forget(run, images)
    if label is None:
        raise UsageError("a mistake is kept with what it is", hint="Say it: --label real|fake")
    return _keep(run, images, label, because)


def _keep(run: Run, images: Sequence[str], label: Label, because: str) -> int | None:
    from retrieval_detect.encoders.pipeline import embed
    from retrieval_detect.teach.mistakes import checked_reason, keep_mistakes

    reason, items = checked_reason(because), list(scan(images))
    detector = run.detector()
    results = []
    with progress(len(items), "Embedding", run.output) as meter:
        layers = detector.snapshot.manifest.layers
        for result in embed(items, detector.encoder, layers=layers, **run.batches):
            results.append(result)
            meter.advance(1)
    failures = [result for result in results if isinstance(result, Failure)]
    usable = [result for result in results if isinstance(result, Embedded)]
    run.warn(failures)
    if usable:
        kept = keep_mistakes(run.store(), usable, detector.encoder.spec, label=label, because=reason)
        _show(run, usable, kept, before=detector.snapshot.manifest.generation)
    else:
        run.output.note("None could be used: nothing was kept.")
    return SOME_FAILED if failures else None


def _show(run: Run, images: Sequence[Embedded], kept: Kept, *, before: int) -> None:
    """What became of each image, and what rd says of it now."""
    from retrieval_detect.report.findings import mistake_lines
    from retrieval_detect.review.mistakes import tally

    manifest, states = kept.manifest, [*map(str, kept.states.values())]
    found = tally(run.folder, manifest, device=run.settings.device)
    lines = [*_one_by_one(images, kept, found), *mistake_lines(found)]
    if manifest.generation != before:
        lines.append(run.committed(manifest))
    record = {
        **{state: states.count(state) for state in _STATES},
        "references": len(kept.references),
        "mistakes": found and found.to_json(),
        "generation": manifest.generation,
    }
    run.output.record(record, text=lines)


def _one_by_one(images: Sequence[Embedded], kept: Kept, found: Tally | None) -> Iterator[str]:
    from retrieval_detect.report.findings import mistake_line

    judged = {bytes.fromhex(m.content_id): m for m in found.now} if found else {}
    for image in {image.content_id: image for image in images}.values():
        known = judged[image.content_id]
        told = f"{_STATES[kept.states[image.content_id]]}: {mistake_line(known)}"
        told += ", which is right by now" * bool(known.right)
        yield f"{image.item.uri} {told}"
        if image.content_id in kept.references:
            yield "  It is a reference itself: whatever is said of it here, its own group does not vote."


def _forget(run: Run, images: Sequence[str]) -> int | None:
    from retrieval_detect.teach.mistakes import forget_mistakes

    ids = [image for image in images if re.fullmatch("[0-9a-fA-F]{64}", image) and not Path(image).exists()]
    files = [image for image in images if image not in ids]
    read = [attempted(item, content_id) for item in scan(files)] if files else []
    failures = [result for result in read if isinstance(result, Failure)]
    run.warn(failures)
    wanted = {*map(bytes.fromhex, ids), *(result for result in read if isinstance(result, bytes))}
    if wanted:
        manifest = forget_mistakes(run.store(), sorted(wanted))
        record = {"forgotten": len(wanted), "kept": manifest.n_mistakes, "generation": manifest.generation}
        text = f"Forgot {number(len(wanted), 'mistake')}; {manifest.n_mistakes:,} left."
        until = "  Older generations keep it until they go: rd bank compact --purge"
        run.output.record(record, text=[text, until, run.committed(manifest)])
    return SOME_FAILED if failures else None
