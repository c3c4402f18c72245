"""Generators one by one, in the order they came: what is learnt of the new, and kept of the old."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, rounded, tabled
from retrieval_detect.evaluate.cutoffs import training_cutoff
from retrieval_detect.evaluate.intervals import averaged, recall_change, thresholded
from retrieval_detect.evaluate.metrics import auroc
from retrieval_detect.evaluate.newcomers import (
    NUMBERS,
    RD,
    RETRAINED,
    asked_about,
    both_asked,
    drawn,
    judged,
    percent,
    regression,
    seeds_of,
    threshold_of,
    unstated,
    without,
)
from retrieval_detect.evaluate.rows import bounded, mean_of
from retrieval_detect.evaluate.states import State, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.intervals import Draws, Redrawn, Scored
    from retrieval_detect.types import Bool

    Float64: TypeAlias = NDArray[np.float64]

NEWEST = "LogisticRegression, newest only"


def incremental(context: Context) -> Plan:
    """Generators one by one in the order they came; what is learnt of the new and kept of the old."""
    order = _order(context)
    # The banks begin with one of them, if the index has no fakes besides.
    others = context.known.fake & ~np.isin(context.known.names, order)
    start = 0 if others.any() else 1
    steps = [(order[t], partial(_period, context, order, t)) for t in range(start, len(order))]
    encoder = context.snapshot.manifest.encoder.name
    begin = order[:start] or ["the index's other fakes"]

    def finish(found: dict[str, Json]) -> Result:
        rows = [row for rows in found.values() for row in rows]
        kept = [
            {k: row[k] for k in ("generator", "method", "n")} | old for row in rows for old in row.pop("kept")
        ]
        lines = [
            f"Order: {', '.join(order)}. The banks begin with the photographs and {', '.join(begin)}.",
            f"recall, past, fpr: at a threshold that flags {percent(context)} of the photographs set "
            "aside; fpr_frozen: at the threshold from before the first reference of the new generator.",
            "transfer: change of past since then; worst_old: which old generator lost most, in points; low, "
            "high: 95 % intervals over images, photographs set aside and draws; lost: how many old "
            "generators lost more than such an interval.",
            f"Encoder {encoder}: {training_cutoff(encoder)}; of older generators it may have seen images.",
            *unstated(rows),
        ]
        return tabled(context, "incremental", "Generators one by one", rows, lines, {"kept": kept})

    return Plan(steps, finish)


def _order(context: Context) -> list[str]:
    dates = {s.name: s.released_at for s in context.dataset.samples if s.label == "fake"}
    manifest = context.snapshot.manifest.generators
    dates = {n: d or (manifest[n].released_at if n in manifest else "") for n, d in dates.items()}
    order = list(context.options.order)
    if unknown := [name for name in order if name not in dates]:
        raise UsageError(
            f"the set has no generator {unknown[0]!r}", hint=f"It has: {', '.join(sorted(dates))}"
        )
    if not order:
        if undated := sorted(name for name, day in dates.items() if not day):
            raise UsageError(
                f"when {', '.join(undated[:3])} came is not known",
                hint="Give the order, oldest first: --order A,B,C, or released_at in a manifest.",
            )
        order = sorted(dates, key=lambda name: (dates[name], name))
    if len(order) < 2:
        raise UsageError("one generator has no order", hint="Give two or more: --order A,B")
    return order


def _period(context: Context, order: Sequence[str], t: int) -> Json:
    """Generator ``t`` taught to an index of the references of the time before it."""
    images, asked = context.images, asked_about(context)
    queries = images.take(asked & (~images.fake | np.isin(images.names, order))).once()
    pool = images.take(images.fake & ~asked & (images.names == order[t])).once()
    known = without(context.known, images.take(asked))
    known = known.take(~(known.fake & np.isin(known.names, order[t:])))
    known = known.joined(images.take(images.fake & ~asked & np.isin(images.names, order[:t])).once())
    with state_of(context, known) as base:
        return list(_Period(context, order, t, queries, base).rows(without(pool, known)))


@dataclass(slots=True, eq=False)
class _Period:
    """The time in which generator ``t`` is new.

    ``frozen`` : method → its threshold when the period began; ``began`` : method → how the images stood
    then.
    """

    context: Context
    order: Sequence[str]
    t: int
    queries: Images
    base: State
    frozen: dict[str, float | None] = field(default_factory=dict)
    began: dict[str, list[_Standing]] = field(default_factory=dict)

    def rows(self, pool: Images) -> Iterator[dict[str, Json]]:
        """A row a number of references and a method."""
        for n in [n for n in self.context.options.numbers or NUMBERS if n <= len(pool)]:
            trials = [self._lesson(drawn(pool, n, seed)) for seed in seeds_of(self.context, n)]
            for method in trials[0]:
                now = [trial[method] for trial in trials]
                # A head of the newest alone takes the place of one of them all.
                before = self.began.setdefault(RETRAINED if method == NEWEST else method, now)
                recall = thresholded(*self._draws(self.order[self.t], now), **self._sampling)
                redrawn = {"recall": None if recall is None else recall.plain()}
                row = bounded(mean_of([standing.row for standing in now]), redrawn)
                row |= self._kept(before, now)
                yield {"generator": self.order[self.t], "method": method, "n": n} | row

    def _lesson(self, lesson: Images) -> dict[str, _Standing]:
        """One lesson, learnt by everybody."""
        started_s = time.perf_counter()
        with self.base.taught(lesson) as state:
            seconds = (time.perf_counter() - started_s) / max(len(lesson), 1)
            said, bank, aside = both_asked(self.context, state, self.queries)
        if len(lesson):
            newest = bank.take(~bank.fake).joined(lesson)
            said[NEWEST] = regression(self.context, newest, self.queries, aside)
        found = {}
        for method, (scores, calib) in said.items():
            row = self._row(method, scores, threshold_of(self.context, calib, aside.fake))
            row["seconds_an_image"] = seconds if method == RD and len(lesson) else None
            found[method] = _Standing(row, scores, aside.scored(calib))
        return found

    def _row(self, method: str, scores: Float64, threshold: float | None) -> dict[str, Any]:
        """How generators of the past, the new one and the next stand at one moment."""
        fake, order, t = self.queries.fake, self.order, self.t
        current = ~fake | self._of(order[t])
        row: dict[str, Any] = judged(scores[current], fake[current], threshold)
        row |= dict.fromkeys(("past", "past_auroc", "next_auroc", "fpr_frozen"))
        if t + 1 < len(order) and self._of(order[t + 1]).any():
            following = ~fake | self._of(order[t + 1])
            row["next_auroc"] = auroc(scores[following], fake[following])
        frozen = self.frozen.setdefault(method, threshold)
        if frozen is not None:
            row["fpr_frozen"] = float((scores[~fake] > frozen).mean())
        if old := self._old():
            against = [~fake | self._of(name) for name in old]
            row["past_auroc"] = float(np.mean([auroc(scores[own], fake[own]) for own in against]))
        if threshold is not None and old:
            row["past"] = float(np.mean([(scores[self._of(name)] > threshold).mean() for name in old]))
        return row

    def _old(self) -> list[str]:
        return [name for name in self.order[: self.t] if self._of(name).any()]

    def _of(self, name: str) -> Bool:
        chosen: Bool = self.queries.fake & (self.queries.names == name)
        return chosen

    def _kept(self, before: Sequence[_Standing], now: Sequence[_Standing]) -> dict[str, Json]:
        """Recall of each old generator when the period began, and its change since, with 95 % intervals."""
        kept: list[dict[str, Json]] = []
        changes = []
        for name in self._old():
            then, since = (self._draws(name, standings) for standings in (before, now))
            recall = thresholded(*then, **self._sampling)
            change = recall_change(then, since, **self._sampling)
            if recall is not None and change is not None:
                changes.append(change)
                kept.append({"old": name, "recall": rounded(recall.value)} | _ends("change", "", change))
        transfer = _ends("transfer", "transfer_", averaged(changes)) if changes else {"transfer": None}
        lost = sum((old["high"] or 0.0) < 0 for old in kept) if kept else None
        return transfer | {"worst_old": _worst(kept), "lost": lost, "kept": kept}

    def _draws(self, name: str, standings: Sequence[_Standing]) -> Draws:
        """A generator's queries and the rows set aside, as scored in each draw."""
        own = self._of(name)
        images = self.queries.take(own)
        return [images.scored(s.scores[own]) for s in standings], [s.aside for s in standings]

    @property
    def _sampling(self) -> dict[str, Any]:
        return {"fpr": self.context.options.fpr, "resamples": self.context.options.resamples}


def _ends(name: str, prefix: str, number: Redrawn) -> dict[str, Json]:
    """A number and both ends of its 95 % interval."""
    value, low, high = map(rounded, (number.value, number.low, number.high))
    return {name: value, f"{prefix}low": low, f"{prefix}high": high}


@dataclass(frozen=True, slots=True, eq=False)
class _Standing:
    """``row`` : measures of one moment. ``scores`` : of the queries. ``aside`` : of calibration rows."""

    row: dict[str, Any]
    scores: Float64
    aside: Scored


def _worst(kept: Sequence[dict[str, Json]]) -> str | None:
    """The old generator that lost most since the period began, in points, with its 95 % interval."""
    if not kept:
        return None
    worst = min(kept, key=lambda old: old["change"])
    change, low, high = (100 * (worst[key] or 0.0) for key in ("change", "low", "high"))
    return f"{worst['old']} {change:+.1f} ({low:+.1f}…{high:+.1f})"
