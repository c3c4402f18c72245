"""Generators one by one, in the order they came: what is learnt of the new, and kept of the old."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.context import Context, Images, Json, Plan, Result, references, tabled
from retrieval_detect.evaluate.intervals import difference
from retrieval_detect.evaluate.metrics import auroc
from retrieval_detect.evaluate.states import State, state_of
from retrieval_detect.evaluate.teaching import (
    NUMBERS,
    RD,
    RETRAINED,
    asked_about,
    drawn,
    judged,
    mean_of,
    percent,
    regression,
    seeds_of,
    threshold_of,
    unstated,
    without,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Bool

    Float64: TypeAlias = NDArray[np.float64]

NEWEST = "LogisticRegression, newest only"


def incremental(context: Context) -> Plan:
    """Generators one by one in the order they came; what is learnt of the new and kept of the old."""
    order = _order(context)
    start = _start(context, order)
    steps = [(order[t], partial(_period, context, order, t)) for t in range(start, len(order))]
    encoder = context.snapshot.manifest.encoder.name
    begin = order[:start] or ["the index's other fakes"]

    def finish(found: dict[str, Json]) -> Result:
        rows = [row for rows in found.values() for row in rows]
        lines = [
            f"Order: {', '.join(order)}. The banks begin with the photographs and {', '.join(begin)}.",
            f"recall, past, fpr: at a threshold that flags {percent(context)} of the photographs set "
            "aside; fpr_frozen: at the threshold from before the first reference of the new generator.",
            "transfer: change of past since then; worst_old: which old generator lost most, in points.",
            f"Encoder {encoder}: it may have seen images of any generator older than its own training.",
            *unstated(rows),
        ]
        return tabled(context, "incremental", "Generators one by one", rows, lines)

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


def _start(context: Context, order: Sequence[str]) -> int:
    """How many of the generators the banks begin with: one, if the index has no fakes besides."""
    known = context.known
    return 0 if (known.fake & ~np.isin(known.names, order)).any() else 1


def _before(context: Context, order: Sequence[str], t: int, asked: Bool) -> Images:
    """References of the time before generator ``t``."""
    images, queries = context.images, context.images.take(asked)
    later = order[t:]
    known = without(context.known, queries)
    known = known.take(~(known.fake & np.isin(known.names, later)))
    pools = images.take(images.fake & ~asked & np.isin(images.names, order[:t])).once()
    return known.joined(pools)


def _period(context: Context, order: Sequence[str], t: int) -> Json:
    images, asked = context.images, asked_about(context)
    queries = images.take(asked & (~images.fake | np.isin(images.names, order))).once()
    pool = images.take(images.fake & ~asked & (images.names == order[t])).once()
    known = _before(context, order, t, asked)
    with state_of(context, known) as base:
        period = _Period(context, order, t, queries, base)
        return list(period.rows(without(pool, known)))


@dataclass(slots=True, eq=False)
class _Period:
    """The time in which generator ``t`` is new.

    ``frozen`` : method → its threshold when the period began; ``flagged`` : method → which queries it flagged
    then, bool (q,); ``past`` : method → mean recall of old generators then.
    """

    context: Context
    order: Sequence[str]
    t: int
    queries: Images
    base: State
    frozen: dict[str, float | None] = field(default_factory=dict)
    flagged: dict[str, Bool] = field(default_factory=dict)
    past: dict[str, float | None] = field(default_factory=dict)

    def rows(self, pool: Images) -> Iterator[dict[str, Json]]:
        """A row a number of references and a method."""
        for n in [n for n in self.context.options.numbers or NUMBERS if n <= len(pool)]:
            trials = [self._lesson(drawn(pool, n, seed)) for seed in seeds_of(self.context, n)]
            for method in trials[0]:
                row = mean_of([{k: v for k, v in t[method].items() if k != "worst_old"} for t in trials])
                past = self.past.setdefault(method, row["past"])
                known = past is not None and row["past"] is not None
                row["transfer"] = round(row["past"] - past, 4) if known else None
                row["worst_old"] = trials[0][method]["worst_old"]
                yield {"generator": self.order[self.t], "method": method, "n": n} | row

    def _lesson(self, lesson: Images) -> dict[str, dict[str, Any]]:
        """One lesson, learnt by everybody."""
        started_s = time.perf_counter()
        with self.base.taught(lesson) as state:
            seconds = (time.perf_counter() - started_s) / max(len(lesson), 1)
            scorer, layers = state.scorer, self.context.layers
            aside = references(scorer.snapshot, layers, split="calib")
            bank = references(scorer.snapshot, layers, split="bank")
            calib = scorer.ask(aside).scores if len(aside) else np.empty(0)
            said = {RD: (scorer.ask(self.queries).scores, calib)}
        said[RETRAINED] = regression(self.context, bank, self.queries, aside)
        if len(lesson):
            newest = bank.take(~bank.fake).joined(lesson)
            said[NEWEST] = regression(self.context, newest, self.queries, aside)
        found = {}
        for method, (scores, calib) in said.items():
            found[method] = self._standing(method, scores, threshold_of(self.context, calib, aside.fake))
            found[method]["seconds_an_image"] = seconds if method == RD and len(lesson) else None
        return found

    def _standing(self, method: str, scores: Float64, threshold: float | None) -> dict[str, Any]:
        """How generators of the past, the new one and the next stand at one moment."""
        fake, order, t = self.queries.fake, self.order, self.t
        current = ~fake | self._of(order[t])
        row: dict[str, Any] = judged(scores[current], fake[current], threshold)
        row |= dict.fromkeys(("past", "past_auroc", "next_auroc", "fpr_frozen", "worst_old"))
        if t + 1 < len(order) and self._of(order[t + 1]).any():
            following = ~fake | self._of(order[t + 1])
            row["next_auroc"] = auroc(scores[following], fake[following])
        frozen = self.frozen.setdefault(method, threshold)
        if frozen is not None:
            row["fpr_frozen"] = float((scores[~fake] > frozen).mean())
        old = [name for name in order[:t] if self._of(name).any()]
        if old:
            against = [~fake | self._of(name) for name in old]
            row["past_auroc"] = float(np.mean([auroc(scores[own], fake[own]) for own in against]))
        if threshold is not None and old:
            flagged = scores > threshold
            row["past"] = float(np.mean([flagged[self._of(name)].mean() for name in old]))
            row["worst_old"] = self._worst(old, self.flagged.setdefault(method, flagged), flagged)
        return row

    def _of(self, name: str) -> Bool:
        chosen: Bool = self.queries.fake & (self.queries.names == name)
        return chosen

    def _worst(self, old: Sequence[str], before: Bool, now: Bool) -> str:
        """The old generator that lost most since the period began, in points, with its 95 % interval."""
        changes = {}
        for name in old:
            here = ~self.queries.fake | self._of(name)
            images = self.queries.take(here)
            pair = [images.scored(flags[here].astype(np.float64)) for flags in (now, before)]
            changes[name] = difference(_recall, *pair, resamples=self.context.options.resamples)
        name = min(changes, key=lambda name: changes[name].value)
        change = changes[name]
        return f"{name} {100 * change.value:+.1f} ({100 * change.low:+.1f}…{100 * change.high:+.1f})"


def _recall(flagged: Float64, fake: Bool) -> float:
    return float(flagged[fake].mean())
