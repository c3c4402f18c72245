"""What an addition changes, measured before it is committed: who is found, who is flagged wrongly.

Everything is judged at the threshold that the calibration in force sets, before and after, on the same
images, so that differences are paired. New images are judged without their own group, as if they were not
there: three images can show "2 of 3".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.methods import Methods, calibrations
from retrieval_detect.ask.rows import CalibrationScores, Chosen, score_rows
from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.teach.calibrate import fit_calibration, measurable
from retrieval_detect.teach.refit import refitted, with_fitted
from retrieval_detect.types import SPLITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.scoring.calibration import Calibration
    from retrieval_detect.store.manifest import FittedRecord
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.writer import Writer
    from retrieval_detect.types import Bool, Float32

FPR_BUDGET = 1.0
"""Points by which false alarms may rise."""
MIN_PHOTOGRAPHS = 100
"""Calibration photographs without which a rise of a point cannot be told from chance."""
_NEWCOMERS_AT_MOST = 500
_BLOCK = 4096
_NEAREST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """How many of ``n`` images are flagged before and after; ``low``…``high`` : 95 %, in points."""

    name: str
    n: int
    before: int
    after: int
    low: float
    high: float

    @property
    def points(self) -> float:
        """Rise of the flagged share, in percentage points."""
        return 100 * (self.after - self.before) / self.n


@dataclass(frozen=True, slots=True)
class Regression:
    """The report, at a share ``alpha`` of photographs flagged by the calibration in force.

    ``newcomers`` : the new images by name. ``generators`` and ``sources`` : calibration images known
    before, by name. ``nearest`` : the 5 % of the photographs that are most like the new references.
    """

    alpha: float
    newcomers: tuple[Change, ...]
    generators: tuple[Change, ...]
    sources: tuple[Change, ...]
    nearest: Change

    @property
    def photographs(self) -> Change:
        """All calibration photographs together."""
        return pooled("photographs", self.sources)

    @property
    def old_generators(self) -> Change:
        """All generators known before together."""
        return pooled("old generators", self.generators)

    @property
    def worst_generator(self) -> Change:
        """The generator of which the most are lost."""
        return min(self.generators, key=lambda change: change.points)

    @property
    def worst_source(self) -> Change:
        """The source whose photographs suffer most."""
        return max(self.sources, key=lambda change: change.points)

    def refusals(self, budget: float) -> Iterator[str]:
        """Why the addition should not be committed, in words.

        For a part of the photographs a rise counts only if it is more than chance would give: of fifteen
        photographs one alone is seven points.
        """
        if self.photographs.points > budget:
            yield f"photographs flagged rise by {self.photographs.points:.1f} points"
        worst = self.worst_source
        for part, what in ((worst, f"from {worst.name}"), (self.nearest, "most like the new references")):
            if part.points > budget and part.low > 0:
                yield f"photographs {what} flagged rise by {part.points:.1f} points"


def change(name: str, before: Bool, after: Bool) -> Change:
    """Paired difference of two bool (n,), n >= 1, with a normal interval; ±3/n where nothing moved."""
    moved = after.astype(float) - before.astype(float)
    n, middle = len(moved), float(100 * moved.mean())
    half = float(100 * 1.96 * moved.std() / np.sqrt(n)) if moved.any() else 300 / n
    return Change(name, n, int(before.sum()), int(after.sum()), middle - half, middle + half)


def pooled(name: str, changes: Sequence[Change]) -> Change:
    """Several changes as one; variances add up, images being different."""
    n = sum(c.n for c in changes)
    variance = sum((c.n * (c.high - c.low) / 2) ** 2 for c in changes)
    before, after = sum(c.before for c in changes), sum(c.after for c in changes)
    middle, half = 100 * (after - before) / n, float(np.sqrt(variance)) / n
    return Change(name, n, before, after, middle - half, middle + half)


def compare(
    old: Snapshot, new: Snapshot, calibration: Calibration, *, alpha: float, device: str
) -> Regression:
    """Measure what ``new``, whose additions are not committed yet, changes against ``old``."""
    question = calibration.question
    photographs = np.sort(np.concatenate(list(calibration.conformal.real.values())))
    first = old.manifest.next_row_id

    def judged(chosen: Chosen) -> tuple[CalibrationScores, Bool, Bool]:
        before, after = (score_rows(new, question, chosen=chosen, judge=s, device=device) for s in (old, new))
        flagged = [at_least(photographs, rows.scores) <= alpha for rows in (before, after)]
        return after, flagged[0], flagged[1]

    known, before, after = judged(Chosen(until=first))
    fresh, fresh_before, fresh_after = judged(Chosen(SPLITS, since=first, at_most=_NEWCOMERS_AT_MOST))
    real = ~known.fake
    order = np.argsort(-_likeness(new, known.row_ids[real], first), kind="stable")
    near = np.flatnonzero(real)[order[: max(1, round(_NEAREST_SHARE * real.sum()))]]
    return Regression(
        alpha,
        _by_name(fresh, fresh_before, fresh_after, np.ones(len(fresh.names), bool)),
        _by_name(known, before, after, known.fake),
        _by_name(known, before, after, real),
        change("nearest", before[near], after[near]),
    )


def _of_todays_scores(snapshot: Snapshot, found: Calibration, *, device: str) -> Calibration:
    """``found``, or one fitted now: what another version of rd fitted may be of a vote defined otherwise."""
    if found.scorer == Methods(snapshot, device=device).scorer(found.question):
        return found
    return fit_calibration(snapshot, found.question, likelihood=found.likelihood_method, device=device)


def _by_name(rows: CalibrationScores, before: Bool, after: Bool, chosen: Bool) -> tuple[Change, ...]:
    names = np.array(rows.names, dtype=object)
    found = sorted(set(names[chosen].tolist()))
    return tuple(
        change(name, before[chosen & (names == name)], after[chosen & (names == name)]) for name in found
    )


def _likeness(snapshot: Snapshot, row_ids: NDArray[np.int64], first: int) -> Float32:
    """Each row's largest cosine with a new reference, float32 (n,)."""
    layer = grouping_layer(snapshot.manifest.layers)
    new_ids = np.concatenate([shard.row_ids[shard.row_ids >= first] for shard in snapshot.shards()])
    stored, fresh = (snapshot.gather(ids.tolist(), layer) for ids in (row_ids, new_ids))
    blocks = [
        (stored @ fresh[start : start + _BLOCK].T).max(axis=1) for start in range(0, len(fresh), _BLOCK)
    ]
    nearest: Float32 = np.max(blocks, axis=0)
    return nearest


# ---------------------------------------------------------------- before the commit


@dataclass(slots=True)
class Reviewer:
    """Looks at an addition before it is committed.

    Called with the writer and the generation to be, it fits anew, to be committed along, the projection
    in force, heads that are cheap, and every calibration. Of a calibrated index it measures what changes,
    and refuses what costs too much. ``report`` is what it measured.
    """

    alpha: float = 0.05
    budget: float = FPR_BUDGET
    accept_unmeasured: bool = False
    device: str = "auto"
    report: Regression | None = None

    def __call__(self, writer: Writer, new: Snapshot) -> list[FittedRecord]:
        """Raise ``UsageError`` to keep the old generation, or return what goes with the new one."""
        old = writer.snapshot
        fitted = refitted(writer, new, device=self.device)
        after = with_fitted(new, fitted)
        known = calibrations(old)
        # Where removals left none to measure, the calibration is stale already and must not bar the way back.
        if known and measurable(old):
            calibration = _of_todays_scores(old, known[0], device=self.device)
            self.report = compare(old, after, calibration, alpha=self.alpha, device=self.device)
            self._refuse(self.report)
        return fitted

    def _refuse(self, report: Regression) -> None:
        n = report.photographs.n
        if n < MIN_PHOTOGRAPHS and not self.accept_unmeasured:
            raise UsageError(
                f"{n} calibration photographs are too few to tell what this addition does to false alarms; "
                "nothing was added",
                hint="Add photographs first, or go ahead unmeasured: --accept-unmeasured",
            )
        reasons = list(report.refusals(self.budget)) if n >= MIN_PHOTOGRAPHS else []
        if reasons:
            raise UsageError(
                f"{'; '.join(reasons)}; the budget is {self.budget:g}, so nothing was added",
                hint="Look at the new images: are some photographs? Or allow more: --fpr-budget POINTS",
            )
