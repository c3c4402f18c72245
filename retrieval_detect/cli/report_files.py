"""``rd query --report``: the option, and the views that become one page when all images are judged."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.parts import WORD, option_with_parts
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.files import require_folder_of, sha256_bytes
from retrieval_detect.types import Failure, ImageItem

if TYPE_CHECKING:
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.report.html.records import EvidenceView
    from retrieval_detect.verdicts import Question, Verdict

report_option = option_with_parts(
    "--report",
    ("report", click.Path(path_type=Path)),
    {"no-thumbnails": ("no_thumbnails", WORD), "blur-faces": ("blur_faces", WORD)},
    metavar="FILE.html",
    help="Write the evidence as one page that opens anywhere. ,no-thumbnails leaves all pictures out; "
    ",blur-faces "
    "blurs every picture as a whole, too much to know a face.",
)


def check_report_file(path: Path) -> None:
    """Raise ``UsageError`` before any work is done if a page could not be written there afterwards."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file to write", hint="Name a file: report.html")
    require_folder_of(path)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"folder {path.parent} cannot be written to")


class Report:
    """A page to be: hears which images are read, and keeps a view of each verdict."""

    def __init__(self, path: Path, *, thumbnails: bool, blur_faces: bool, blind: bool) -> None:
        check_report_file(path)
        self.path = path
        self._blind = blind
        self._thumbnails, self._blur_faces = thumbnails, blur_faces
        self._asked: deque[ImageItem] = deque()
        self._views: list[EvidenceView] = []
        self._failures: list[Failure] = []

    def overheard(self, items: Iterable[ImageItem]) -> Iterator[ImageItem]:
        """The items as they are; each is remembered until its result comes."""
        for item in items:
            self._asked.append(item)
            yield item

    def written(
        self, results: Iterable[Verdict | Failure], detector: Detector, question: Question
    ) -> Iterator[Verdict | Failure]:
        """The results as they are; after the last the page is written."""
        from retrieval_detect.report.html.view import Viewer
        from retrieval_detect.report.html.write import write_html

        viewer = Viewer(detector, thumbnails=self._thumbnails, blur_faces=self._blur_faces, with_map=True)
        for result in results:
            item = self._asked.popleft()
            if isinstance(result, Failure):
                self._failures.append(result)
            else:
                self._views.append(viewer.view(result, _bytes(item, result), question=question))
            yield result
        if self._views:
            bank_map = viewer.bank_map()
            write_html(self.path, self._views, failures=self._failures, bank_map=bank_map, blind=self._blind)


def report_of(asked: dict[str, Any]) -> Report | None:
    """The report that options ask for, if they do; takes them out of ``asked``."""
    path = asked.pop("report")
    hidden, blurred = asked.pop("no_thumbnails"), asked.pop("blur_faces")
    if path is not None:
        return Report(path, thumbnails=not hidden, blur_faces=blurred, blind=asked["blind"])
    if hidden or blurred:
        raise UsageError("--report names no file", hint="Name one: --report FILE.html,no-thumbnails")
    return None


def _bytes(item: ImageItem, verdict: Verdict) -> bytes | None:
    """What was judged, if it is still there and still the same."""
    try:
        data = item.read()
    except (ImageError, OSError):
        return None
    return data if sha256_bytes(data) == verdict.sha256 else None
