"""Carrying out plans: one, or those of all protocols that apply; finished steps are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.protocols import PROTOCOLS, WEIGHTS
from retrieval_detect.files import sha256_bytes, write_bytes
from retrieval_detect.types import quiet

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_detect.evaluate.cache import Progress
    from retrieval_detect.evaluate.context import Context, Plan, Result


def run(plan: Plan, folder: Path | None, key: str, *, progress: Progress = quiet) -> Result:
    """Carry a plan out. With a folder, finished steps are kept there, so that none is done twice.

    ``key`` : digest of all that the outcome depends on.
    """
    kept = _Kept(folder, key)
    # At once and first: an estimate must not rest on how fast steps go by that are not done.
    progress(kept.count(plan))
    return _carried_out(plan, kept, progress)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Outcomes of steps of one plan, in a folder if there is one. ``key`` : as in ``run``."""

    folder: Path | None
    key: str

    def path(self, name: str) -> Path | None:
        """Where the outcome of a step lies, or would."""
        return self.folder and self.folder / f"{sha256_bytes(f'{self.key}/{name}'.encode())[:24]}.json"

    def has(self, name: str) -> bool:
        """Whether a step was finished before."""
        path = self.path(name)
        return path is not None and path.exists()

    def count(self, plan: Plan) -> int:
        """How many steps of a plan were."""
        return sum(self.has(name) for name, _ in plan.steps)


def _carried_out(plan: Plan, kept: _Kept, progress: Progress) -> Result:
    """``progress`` hears of what is done now."""
    found = {}
    for name, step in plan.steps:
        path = kept.path(name)
        if path and kept.has(name):
            found[name] = json.loads(path.read_text())
            continue
        found[name] = step()
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, json.dumps(found[name], allow_nan=False).encode())
        progress(1)
    return plan.finish(found)


# ---------------------------------------------------------------- all protocols


@dataclass(frozen=True, slots=True)
class Programme:
    """Every protocol, before it is run. ``skipped`` : those that do not apply, and why not.

    ``weights`` : protocol → what one of its steps costs, in parts of work.
    """

    plans: Mapping[str, Plan]
    skipped: Mapping[str, UsageError]
    weights: Mapping[str, int]

    @property
    def work(self) -> int:
        """How many parts ``run_all`` will report as done."""
        return sum(self.weights[name] * len(plan.steps) for name, plan in self.plans.items())


def programme(context: Context) -> Programme:
    """The plans of all protocols that can measure this set.

    Raises ``UsageError`` where an option is wrong that one protocol alone takes.
    """
    plans: dict[str, Plan] = {}
    skipped: dict[str, UsageError] = {}
    for name, plan_of in PROTOCOLS.items():
        try:
            plans[name] = plan_of(context)
        except UsageError as error:
            skipped[name] = _excused(context, name, error)
    changed = len(context.some(context.options.at_most))
    return Programme(plans, skipped, WEIGHTS | {"robustness": 1 + WEIGHTS["robustness"] * changed // 1000})


def run_all(
    planned: Programme, context: Context, folder: Path | None, *, progress: Progress = quiet
) -> tuple[dict[str, Result], dict[str, UsageError]]:
    """Results by protocol, and what was skipped and why: whether one applies may show at a step only.

    Raises the first of those errors if none applies at all.
    """
    results: dict[str, Result] = {}
    skipped, key = dict(planned.skipped), context.key
    kept = {name: _Kept(folder, f"{name}/{key}") for name in planned.plans}
    left = {name: len(plan.steps) - kept[name].count(plan) for name, plan in planned.plans.items()}
    progress(planned.work - sum(planned.weights[name] * n for name, n in left.items()))
    for name, plan in planned.plans.items():

        def advance(n: int, name: str = name) -> None:
            left[name] -= n
            progress(planned.weights[name] * n)

        try:
            results[name] = _carried_out(plan, kept[name], advance)
        except UsageError as error:
            skipped[name] = _excused(context, name, error)
            advance(left[name])
    if not results:
        raise next(iter(skipped.values()))
    return results, {name: skipped[name] for name in PROTOCOLS if name in skipped}


def _excused(context: Context, name: str, error: UsageError) -> UsageError:
    """A protocol that does not apply is no fault; what was asked of it in so many words must be done."""
    asked = {"generators": context.options.methods, "incremental": context.options.order}
    if asked.get(name) or (name == "few-shot" and context.options.per_category):
        raise error
    return error
