"""Adding references over HTTP: first a table of what would happen, then, by its id, the addition itself."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval_detect.build import Index
from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.images.content_id import content_id
from retrieval_detect.plans import UpdatePlan, plan
from retrieval_detect.regression import Reviewer
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.types import Facts, ImageItem
    from retrieval_detect.web.decoding import Decoders
    from retrieval_detect.web.generations import Generations

PLANS, KEPT_S = 4, 900.0
"""Plans that may wait for a yes, and how long each does."""


@dataclass(frozen=True, slots=True)
class _Plan:
    planned: UpdatePlan
    files: Path
    until: float


class Teacher:
    """Plans, additions and ways back, for one caller at a time.

    The files of a plan lie in a folder of its own and are deleted with it; the index keeps their vectors and
    names.
    """

    def __init__(self, generations: Generations, decoders: Decoders, *, device: str) -> None:
        self._generations, self._decoders, self._device = generations, decoders, device
        self._plans: dict[str, _Plan] = {}
        self._one_at_a_time = threading.Lock()

    def plan(self, given: Sequence[ImageItem], facts: Facts) -> dict[str, Any]:
        """What adding these images would do, image by image; every one of them is decoded once."""
        with self._one_at_a_time:
            self._sweep()
            if len(self._plans) >= PLANS:
                raise UsageError("too many additions wait to be confirmed", hint="Confirm one, or try later.")
            folder = Path(tempfile.mkdtemp(prefix="rd-plan-"))
            try:
                items = [self._kept(item, folder / str(i)) for i, item in enumerate(given)]
                good, bad = self._decoded(items)
                snapshot = self._generations.serving.detector.snapshot
                found = plan(((item, facts) for item in good), snapshot)
                planned = replace(found, failures=(*found.failures, *bad), command="serve")
            except BaseException:
                shutil.rmtree(folder)
                raise
            key = secrets.token_urlsafe(16)
            self._plans[key] = _Plan(planned, folder, time.monotonic() + KEPT_S)
            return {"plan": key, "summary": planned.summary(), "images": _rows(items, planned)}

    def apply(self, key: str) -> dict[str, Any]:
        """Do what a plan says; on a calibrated index it is measured first, and may be refused."""
        self._sweep()
        kept = self._plans.pop(key, None)
        if kept is None:
            raise UsageError("there is no such plan", hint="Plans are kept for 15 minutes: make it again.")
        try:
            index = Index.open(self._generations.folder)
            review = Reviewer(device=self._device)
            encoder = self._generations.serving.detector.encoder
            report = index.apply(kept.planned, encoder=encoder, review=review)
        finally:
            shutil.rmtree(kept.files)
        return {
            "generation": report.manifest.generation,
            "added": report.added,
            "purged": report.purged,
            "failures": [asdict(failure) for failure in report.failures],
            "measured": asdict(review.report) if review.report else None,
        }

    def rollback(self, generation: int) -> Manifest:
        """Go back to an older generation, as a new one."""
        store = Index.open(self._generations.folder).store
        with store.writer() as writer:
            return writer.rollback(generation)

    def close(self) -> None:
        """Delete the files of all plans."""
        self._sweep(now=float("inf"))

    def _sweep(self, now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        for key, kept in list(self._plans.items()):
            if kept.until < now and self._plans.pop(key, None) is kept:  # else another thread has it
                shutil.rmtree(kept.files)

    def _kept(self, item: ImageItem, path: Path) -> ImageItem:
        path.write_bytes(item.read())
        return self._decoders.item(item.uri, path.read_bytes)

    def _decoded(self, items: Sequence[ImageItem]) -> tuple[list[ImageItem], list[Failure]]:
        good, bad = [], []
        for item in items:
            try:
                self._decoders.read(item.read())
                good.append(item)
            except ImageError as error:
                bad.append(Failure(item.uri, error.reason, error.in_full))
        return good, bad


def _rows(items: Sequence[ImageItem], planned: UpdatePlan) -> list[dict[str, str]]:
    """A row an image: its name, and what would become of it."""
    new = {p.content_id for p in planned.new}
    failed = {f.uri: f.message for f in planned.failures}
    rows, seen = [], set()
    for item in items:
        identity = content_id(item.read())
        state = "new" if identity in new else failed.get(item.uri, "already known or refused")
        rows.append({"name": item.uri, "state": "given twice" if identity in seen else state})
        seen.add(identity)
    return rows
