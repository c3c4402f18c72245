"""``rd query --beside``: photographs that are known to be authentic, laid beside one image or a few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.parts import option_with_parts
from retrieval_detect.errors import UsageError
from retrieval_detect.images.sources import scan
from retrieval_detect.types import quiet

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.cli.case import Examination
    from retrieval_detect.cli.params import Run
    from retrieval_detect.types import ImageItem
    from retrieval_detect.verdicts import Question

MOST_IMAGES = 16
"""Images that pictures are laid beside in one run: each is a question of its own, to be looked at."""

beside_option = option_with_parts(
    "--beside",
    ("beside", click.Path(exists=True, path_type=Path)),
    {"supplier": ("supplier", click.STRING), "date": ("date", click.STRING)},
    metavar="PATH[,supplier=NAME][,date=DATE]",
    help="Photographs known to be authentic (same camera, site, photographer or event), laid into the real "
    "bank for this question alone, for one image or a few. Both answers are shown, without and with them; a "
    "case keeps every attempt, with who gave them and when.",
)


@dataclass(frozen=True)
class LaidBeside:
    """What was given to be laid beside; no ``path``: nothing."""

    path: Path | None
    supplier: str | None
    date: str | None

    def of(
        self,
        run: Run,
        items: Iterable[ImageItem],
        detector: Detector,
        question: Question,
        examination: Examination | None,
    ) -> tuple[Iterator[ImageItem], Detector]:
        """The images, and a detector that judges them with the pictures; the case is told of these first."""
        rest = iter(items)
        if self.path is None:
            return rest, detector
        few = list(islice(rest, MOST_IMAGES + 1))
        if len(few) > MOST_IMAGES:
            raise UsageError(
                f"--beside is for one image or a few, {MOST_IMAGES} at most",
                hint="For more of a kind, add the photographs: rd bank add DIR --label real --source NAME",
            )
        with_them = detector.with_beside(
            scan([str(self.path)]),
            supplier=self.supplier,
            date=self.date,
            noted=examination.attempted if examination else quiet,
            **run.batches,
            **asdict(question),
        )
        return chain(few, rest), with_them


def laid_beside(asked: dict[str, Any]) -> LaidBeside:
    """What options say of pictures to lay beside; takes them out of ``asked``."""
    path, supplier, date = (asked.pop(name) for name in ("beside", "supplier", "date"))
    if path is None and (supplier or date):
        raise UsageError("--beside names no pictures", hint="Name a file or a folder: --beside DIR")
    return LaidBeside(path, supplier, date)
