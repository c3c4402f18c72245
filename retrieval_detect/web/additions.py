"""Adding references over HTTP: first a table of what would happen, then, by its id, the addition itself."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from retrieval_detect.errors import LabelConflict, UsageError
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.items import attempted
from retrieval_detect.report.additions import apart_lines, regression_lines
from retrieval_detect.report.findings import mistake_lines
from retrieval_detect.review.mistakes import tally
from retrieval_detect.teach.apart import MENDED_BY, apart_in
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.measure import Reviewer
from retrieval_detect.teach.plans import UpdatePlan, plan
from retrieval_detect.types import Failure
from retrieval_detect.web.errors import Refused
from retrieval_detect.web.lanes import Lane

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.types import Facts, ImageItem
    from retrieval_detect.web.decoding import Decoders
    from retrieval_detect.web.generations import Generations

PLANS, KEPT_S = 4, 900.0
"""Plans that may wait for a yes, and how long each does."""
_STOP_S = 30.0
_REFUSED = (
    "Add photographs first, or leave out images that may be photographs. Whoever runs the server can allow "
    "more on the command line."
)
_GONE = "Those that can be gone back to are in the list of generations: GET /v1/banks"


class Teacher:
    """Plans, additions and ways back, for one caller at a time.

    The files of a plan are held in memory and go with it; the index keeps their vectors and names.
    """

    def __init__(self, generations: Generations, decoders: Decoders, *, device: str) -> None:
        self._generations, self._decoders, self._device = generations, decoders, device
        self._lane = Lane("add")
        # Known to the event loop alone; the lane is given what it works on.
        self._plans: dict[str, UpdatePlan] = {}
        self._making = 0
        self._applying: set[str] = set()

    def require_room(self) -> None:
        """Raise ``UsageError`` where no further plan can be kept."""
        if len(self._plans) + self._making >= PLANS:
            raise UsageError("too many additions wait to be confirmed", hint="Confirm one, or try later.")

    async def plan(self, given: Sequence[ImageItem], facts: Facts) -> dict[str, Any]:
        """What adding these images would do, image by image; every one of them is decoded once."""
        self.require_room()
        self._making += 1
        try:
            planned, rows = await self._lane.run(self._planned, given, facts)
        finally:
            self._making -= 1
        key = secrets.token_urlsafe(16)
        self._plans[key] = planned
        asyncio.get_running_loop().call_later(KEPT_S, self._plans.pop, key, None)
        return {"plan": key, "summary": planned.summary(), "images": rows}

    async def apply(self, key: str) -> dict[str, Any]:
        """Do what a plan says; on a calibrated index it is measured first, and may be refused.

        The plan stays, and can be tried again, unless it was carried out or refused for what it is.
        """
        planned = self._plans.get(key)
        if planned is None:
            raise UsageError("there is no such plan", hint="Plans are kept for 15 minutes: make it again.")
        if key in self._applying:
            raise Refused(409, "under-way", "this plan is being carried out", hint="Wait until it is.")
        self._applying.add(key)
        try:
            report = await self._lane.run(self._applied, planned)
        except (UsageError, LabelConflict):
            self._plans.pop(key, None)
            raise
        finally:
            self._applying.discard(key)
        self._plans.pop(key, None)
        return report

    async def rollback(self, generation: int) -> Manifest:
        """Go back to an older generation, as a new one."""
        return await self._lane.run(self._rolled_back, generation)

    def trouble(self, limit_s: float) -> str:
        """What is wrong with the thread, in words; empty if nothing is. An addition may take its time."""
        return "" if self._applying else self._lane.trouble(limit_s)

    async def close(self) -> None:
        """Forget all plans, and end the thread."""
        self._plans.clear()
        await asyncio.to_thread(self._lane.stop, _STOP_S)

    # ------------------------------------------------------------ in the lane

    def _planned(self, given: Sequence[ImageItem], facts: Facts) -> tuple[UpdatePlan, list[dict[str, str]]]:
        good, bad = [], []
        for item in given:
            decoded = attempted(item, self._decoders.read)
            if isinstance(decoded, Failure):
                bad.append(decoded)
            else:
                good.append(item)
            self._lane.beat()
        snapshot = self._generations.serving.detector.snapshot
        found = plan(((item, facts) for item in good), snapshot)
        planned = replace(found, failures=(*found.failures, *bad), command="serve")
        return planned, _rows(given, planned)

    def _applied(self, planned: UpdatePlan) -> dict[str, Any]:
        index = Index.open(self._generations.folder)
        review = Reviewer(device=self._device)
        encoder = self._generations.serving.detector.encoder
        with _hint(_REFUSED):
            report = index.apply(planned, encoder=encoder, review=review)
        mistakes = tally(index.folder, report.manifest, device=self._device) if report.changed else None
        apart = apart_in(index.snapshot(), planned.generators_named) if report.changed else []
        lines = regression_lines(review.report, budget=review.budget) if review.report else []
        if apart:
            mend = f"Some {MENDED_BY} such photographs, of any source, mend most of it."
            lines += [*apart_lines(apart), mend]
        return {
            "generation": report.manifest.generation,
            "added": report.added,
            "purged": report.purged,
            "failures": [asdict(failure) for failure in report.failures],
            "measured": review.report.to_json() if review.report else None,
            "mistakes": mistakes and mistakes.to_json(),
            "apart": [one.to_json() for one in apart],
            "report": [*lines, *mistake_lines(mistakes)],
        }

    def _rolled_back(self, generation: int) -> Manifest:
        store = Index.open(self._generations.folder).store
        with _hint(_GONE), store.writer() as writer:
            return writer.rollback(generation)


@contextmanager
def _hint(here: str) -> Iterator[None]:
    """A refusal's own hint names commands; this one, what can be done where it is read."""
    try:
        yield
    except UsageError as error:
        error.hint = here
        raise


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
