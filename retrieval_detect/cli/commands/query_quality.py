"""``rd query --method`` of a quality head: how good images look, beside no verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.params import EVERYWHERE, SOME_FAILED
from retrieval_detect.cli.settable import ENCODING, set_names

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.cli.params import Run
    from retrieval_detect.types import ImageItem

_MEANT = frozenset(
    {"images", "from_file", "null", "method", "offline", "device", "settings"}
    | {str(option.name) for option in EVERYWHERE}
)
NO_VERDICT = "Predicted quality says nothing about fakes; low quality is where false alarms are."
_COLUMNS = ("input", "quality", "sha256", "index", "generation", "warnings", "error")


def rate_images(run: Run, detector: Detector, items: Iterator[ImageItem], *, single: bool) -> int | None:
    """Show the quality that the head asked for predicts of each image; returns the exit code."""
    from retrieval_detect.ask.ratings import rate
    from retrieval_detect.errors import ImageError
    from retrieval_detect.report.json import failure_json
    from retrieval_detect.types import Failure

    settings, output = run.settings, run.output
    _refuse_others(settings.method)
    show, failed = output.record if single else output.stream, 0
    ratings = rate(detector, items, settings.method, batch_size=settings.batch_size, workers=settings.workers)
    for rating in ratings:
        if isinstance(rating, Failure):
            if single:
                raise ImageError(f"{rating.uri}: {rating.message}", reason=rating.reason, uri=rating.uri)
            failed += 1
            if output.format == "csv":
                show(_row(input=rating.uri, error=f"{rating.reason}: {rating.message}"))
            elif output.format in ("json", "jsonl"):
                show(failure_json(rating))
            output.warning(f"{rating.uri}: {rating.message}")
            continue
        record = rating.to_json()
        if output.format == "csv":
            index = {"index": rating.index.name, "generation": rating.index.generation}
            told = {key: record[key] for key in ("input", "quality", "sha256")}
            record = _row(**told, **index, warnings="; ".join(rating.warnings))
        text = f"quality {rating.quality:8.3f}  {rating.input}"
        show(record, text=[text], essential=("quality", "input"))
    output.note(NO_VERDICT)
    return SOME_FAILED if failed else None


def _row(**values: object) -> dict[str, object]:
    return dict.fromkeys(_COLUMNS) | values


def _refuse_others(method: str) -> None:
    """What is asked of a verdict means nothing here."""
    from retrieval_detect.errors import UsageError

    context = click.get_current_context()
    given = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name not in _MEANT
        and context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    given += sorted(set_names(context) - {settable.name for settable in ENCODING})
    if given:
        raise UsageError(
            f"{given[0]} means nothing for {method}, which tells how good an image looks",
            hint="Leave it out, or ask another method.",
        )
