"""What an addition changes, measured before it is committed: who is found, who is flagged wrongly.

Everything is judged before and after on the same images, so that differences are paired: before, at the
threshold that the calibration in force sets; after, at that one and at the one that will be in force. New
images are judged without their own group, as if they were not there: three images can show "2 of 3".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_detect.ask.methods import Methods, calibrations
from retrieval_detect.ask.rows import Chosen, Said, ScoredRows, score_rows
from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.conformal import at_least
from retrieval_detect.scoring.paired import rise_interval, rise_p
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
    from retrieval_detect.verdicts import Question

    Flags = Callable[[ScoredRows], Bool]

FPR_BUDGET = 1.0
"""Points by which false alarms may rise."""
MIN_PHOTOGRAPHS = 100
"""Calibration photographs without which a rise of a point cannot be told from chance."""
SIGNIFICANT = 0.05
"""A rise beyond the budget counts where chance alone would show as much so seldom."""
_NEWCOMERS_AT_MOST = 500
_BLOCK = 4096
_NEAREST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """How many of ``n`` images, n >= 1, are flagged before, and of the same images after.

    ``gained`` : flagged after and not before; ``lost`` : before and not after.
    """

    name: str
    n: int
    before: int
    gained: int
    lost: int

    @property
    def after(self) -> int:
        """How many are flagged after."""
        return self.before + self.gained - self.lost

    @property
    def points(self) -> float:
        """Rise of the flagged share, in percentage points."""
        return 100 * (self.after - self.before) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of ``points``, -100…100; see ``paired.rise_interval``."""
        low, high = rise_interval(self.gained, self.lost, self.before, self.n)
        return 100 * low, 100 * high

    def exceeds(self, budget: float, *, looked_at: int = 1) -> bool:
        """Whether the share rises by more than ``budget`` points, and more than chance explains.

        ``looked_at`` : among how many changes this was looked for (Bonferroni); see ``paired.rise_p``.
        """
        return looked_at * rise_p(self.gained, self.lost, self.n, allowed=budget / 100) <= SIGNIFICANT

    def to_json(self) -> dict[str, Any]:
        """See docs/methods.md."""
        low, high = self.interval
        counts = {"before": self.before, "after": self.after, "gained": self.gained, "lost": self.lost}
        return {"name": self.name, "n": self.n, **counts, "points": self.points, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Regression:
    """The report, at a share ``alpha`` of photographs flagged by the calibration in force.

    ``newcomers`` : the new images by name. ``generators`` and ``sources`` : calibration images known
    before, by name. ``nearest`` : the 5 % of the photographs that are most like the new references.
    ``coming`` : the same with all that is flagged after by the threshold that will be in force; ``None``
    where none will.
    """

    alpha: float
    newcomers: tuple[Change, ...]
    generators: tuple[Change, ...]
    sources: tuple[Change, ...]
    nearest: Change
    coming: Regression | None = None

    @property
    def photographs(self) -> Change:
        """All calibration photographs together."""
        return pooled("photographs", self.sources)

    @property
    def tells(self) -> bool:
        """Whether photographs are enough to tell what an addition does to false alarms."""
        return self.photographs.n >= MIN_PHOTOGRAPHS

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
        """Why the addition should not be committed, in words: what rises beyond ``budget``.

        Both thresholds are looked at. At the one in force it shows that photographs came among the fakes,
        though a calibration fitted anew makes up for it; at the one to come, whose photographs would be
        flagged from then on. A rise counts only if it is more than chance would give: of fifteen
        photographs one alone is seven points.
        """
        yield from self._beyond(budget, "")
        if self.coming is not None:
            yield from self.coming._beyond(budget, " at the threshold to come")

    def _beyond(self, budget: float, when: str) -> Iterator[str]:
        suffering = [source for source in self.sources if source.exceeds(budget, looked_at=len(self.sources))]
        parts = [("", self.photographs)] * self.photographs.exceeds(budget)
        parts += [(f" from {source.name or 'no named source'}", source) for source in suffering]
        parts += [(" most like the new references", self.nearest)] * self.nearest.exceeds(budget)
        for which, part in parts:
            yield f"photographs{which} flagged rise by {part.points:.1f} points{when}"

    def to_json(self) -> dict[str, Any]:
        """See docs/methods.md."""
        lists = {"newcomers": self.newcomers, "generators": self.generators, "sources": self.sources}
        return {
            "alpha": self.alpha,
            **{key: [change.to_json() for change in changes] for key, changes in lists.items()},
            "photographs": self.photographs.to_json(),
            "nearest": self.nearest.to_json(),
            "coming": self.coming.to_json() if self.coming else None,
        }


def change(name: str, before: Bool, after: Bool) -> Change:
    """The change from one bool (n,) to another of the same images, n >= 1."""
    counts = (before, after & ~before, before & ~after)
    return Change(name, len(before), *(int(np.count_nonzero(flags)) for flags in counts))


def pooled(name: str, changes: Sequence[Change]) -> Change:
    """Several changes of different images as one."""
    n, before, gained, lost = (
        sum(getattr(c, key) for c in changes) for key in ("n", "before", "gained", "lost")
    )
    return Change(name, n, before, gained, lost)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """A generation before or after the addition, and what it has ``said`` of rows so far.

    ``calibration`` : the one that sets its threshold; ``None`` where there is none.
    """

    methods: Methods
    calibration: Calibration | None
    said: Said

    def of(self, rows: Snapshot, question: Question, chosen: Chosen) -> ScoredRows:
        """What it says of some rows; asked about are those alone of which it has said nothing yet."""
        known = self.said.get(self.methods.checked(question))
        return score_rows(rows, question, chosen=chosen, judge=self.methods, known=known)

    def threshold(self, alpha: float) -> Flags:
        """What it flags at a share ``alpha`` of its calibration photographs."""
        assert self.calibration is not None  # noqa: S101 - for the type checker; who asks has one
        photographs = self.calibration.conformal.photographs
        return lambda rows: at_least(photographs, rows.scores) <= alpha


def compare(old: Side, new: Side, question: Question, *, alpha: float) -> Regression:
    """Measure what ``new``, whose additions are not committed yet, changes against ``old``."""
    rows, first = new.methods.snapshot, old.methods.snapshot.manifest.next_row_id
    in_force = old.threshold(alpha)

    newcomers = Chosen(SPLITS, since=first, at_most=_NEWCOMERS_AT_MOST)
    known, fresh = (
        [side.of(rows, question, chosen) for side in (old, new)]
        for chosen in (Chosen(until=first), newcomers)
    )
    real = ~known[0].fake
    order = np.argsort(-_likeness(rows, known[0].row_ids[real], first), kind="stable")
    near = np.flatnonzero(real)[order[: max(1, round(_NEAREST_SHARE * real.sum()))]]

    def judged(flags: Flags) -> Regression:
        before, after = in_force(known[0]), flags(known[1])
        new_before, new_after = in_force(fresh[0]), flags(fresh[1])
        return Regression(
            alpha,
            _by_name(fresh[0], new_before, new_after, np.ones(len(new_before), bool)),
            _by_name(known[0], before, after, known[0].fake),
            _by_name(known[0], before, after, real),
            change("nearest", before[near], after[near]),
        )

    coming = judged(new.threshold(alpha)) if new.calibration else None
    return replace(judged(in_force), coming=coming)


def _by_name(rows: ScoredRows, before: Bool, after: Bool, chosen: Bool) -> tuple[Change, ...]:
    own = {name: chosen & (rows.names == name) for name in sorted(set(rows.names[chosen].tolist()))}
    return tuple(change(name, before[mine], after[mine]) for name, mine in own.items())


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
    in force, heads that are cheap, and (with ``calibrate``) every calibration. Of a calibrated index it
    measures what changes, and refuses what costs too much. ``report`` is what it measured.
    """

    alpha: float = 0.05
    budget: float = FPR_BUDGET
    calibrate: bool = True
    device: str = "auto"
    report: Regression | None = None

    def __call__(self, writer: Writer, new: Snapshot) -> list[FittedRecord]:
        """Raise ``UsageError`` to keep the old generation, or return what goes with the new one."""
        old = writer.snapshot
        said: Said = {}
        fitted = refitted(writer, new, device=self.device, calibrate=self.calibrate, said=said)
        known = calibrations(old)
        # Where removals left none to measure, the calibration is stale already and must not bar the way back.
        if known and measurable(old):
            self.report = self._measured(old, known[0], with_fitted(new, fitted), said)
            self._refuse(self.report)
        return fitted

    def _measured(self, old: Snapshot, known: Calibration, after: Snapshot, said: Said) -> Regression:
        """``said`` : what ``after`` has said of its calibration rows."""
        before = Methods(old, device=self.device)
        said_before: Said = {}
        calibration, question = known, known.question
        if known.scorer != before.scorer(question):  # another rd fitted it, of a vote defined otherwise
            likelihood = known.likelihood_method
            calibration = fit_calibration(
                old, question, likelihood=likelihood, device=self.device, said=said_before
            )
        then = Methods(after, device=self.device)
        return compare(
            Side(before, calibration, said_before),
            Side(then, then.fitted(then.checked(question)), said),
            question,
            alpha=self.alpha,
        )

    def _refuse(self, report: Regression) -> None:
        reasons = list(report.refusals(self.budget)) if report.tells else []
        if reasons:
            raise UsageError(
                f"{'; '.join(reasons)}; the budget is {self.budget:g}, so nothing was added",
                hint="Look at the new images: are some photographs? Or allow more: --fpr-budget POINTS",
            )
