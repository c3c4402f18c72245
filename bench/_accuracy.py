"""How well the votes tell fakes from photographs, beside rivals that had the same references."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._index import Origin, teach, votes_of
from bench._rivals import MAJORITY_CLASS, rivals_of
from retrieval_detect.scoring.metrics import auc, recall_at_fpr
from retrieval_detect.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench._data import Sample
    from retrieval_detect.types import Method

    Scores = NDArray[np.float64]

FPR = 0.05
MAIN_VOTES = ("density", "nearest k=1", "mean k=9", "majority k=9")
ALL_VOTES: dict[str, tuple[Method, int]] = {
    "density": ("density", 200),
    "nearest k=1": ("nearest", 1),
    **{f"mean k={k}": ("mean", k) for k in (3, 5, 9)},
    **{f"majority k={k}": ("majority", k) for k in (1, 3, 5, 9)},
}
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """An index whose references are given, and the queries put to it."""

    folder: Path
    known: Sequence[Sample]
    queries: Sequence[Sample]

    def scores(self, names: Iterable[str]) -> dict[str, Scores]:
        """Of the votes named and of all rivals, for each query."""
        votes = {name: ALL_VOTES[name] for name in names}
        return votes_of(self.folder, self.queries, votes) | rivals_of(self.folder, self.known, self.queries)

    @property
    def fake(self) -> NDArray[np.bool_]:
        """Which queries are fake, bool (q,)."""
        return np.array([query.fake for query in self.queries])


# ---------------------------------------------------------------- generators that the banks know


def in_distribution(samples: Sequence[Sample], origin: Origin, work: Path) -> dict[str, Any]:
    """References: four of every five images. Queries: the fifth."""
    references = [sample for sample in samples if not sample.held]
    queries = [sample for sample in samples if sample.held]
    store = origin.create(work / "in-distribution", references)
    trial = Trial(store.folder, references, queries)
    scores = trial.scores(ALL_VOTES)
    # Whoever always says what most references are: every score is the same, and so is every answer.
    mostly_fake = sum(sample.fake for sample in references) * 2 > len(references)
    scores[MAJORITY_CLASS] = np.full(len(queries), 1.0 if mostly_fake else -1.0)
    names = np.array([query.name for query in queries])
    return {
        "references": _bank_rows(store),
        "queries": _counts(queries),
        "methods": {name: _judged(values, trial.fake, names) for name, values in scores.items()},
    }


def _judged(scores: Scores, fake: NDArray[np.bool_], names: NDArray[Any]) -> dict[str, Any]:
    overall = _quality(scores[fake], scores[~fake])
    overall["auc_95_percent_interval"] = _auc_interval(scores[fake], scores[~fake])
    overall["accuracy_at_zero"] = float(((scores > 0) == fake).mean())
    generators = np.unique(names[fake])
    return overall | {
        "by_generator": {
            str(name): _quality(scores[fake & (names == name)], scores[~fake]) for name in generators
        }
    }


def _quality(fake: Scores, real: Scores) -> dict[str, Any]:
    return {"auc": auc(fake, real), "recall_at_5_percent_fpr": recall_at_fpr(fake, real, fpr=FPR)}


def _auc_interval(fake: Scores, real: Scores) -> list[float]:
    """Percentile bootstrap over the queries of each label; it knows nothing of other data."""
    rng = np.random.default_rng(0)
    drawn = [auc(rng.choice(fake, len(fake)), rng.choice(real, len(real))) for _ in range(_RESAMPLES)]
    return [float(bound) for bound in np.percentile(drawn, [2.5, 97.5])]


# ---------------------------------------------------------------- a generator that they do not know


@dataclass(frozen=True, slots=True)
class Lessons:
    """How a generator that was left out is taught: how many of its images, drawn by which seeds."""

    numbers: tuple[int, ...] = (0, 5, 20, 50)
    seeds: tuple[int, ...] = (0, 1, 2)


def unseen_generators(
    samples: Sequence[Sample], origin: Origin, work: Path, *, lessons: Lessons, say: Callable[[str], None]
) -> dict[str, Any]:
    """Each generator in turn is left out, then taught with a few of its images.

    The queries stay the same throughout: the photographs that are held out, and those three of every
    five images of the generator that teaching never draws from.
    """
    generators = sorted({sample.name for sample in samples if sample.fake})
    found = {}
    for generator in generators:
        say(f"without {generator}")
        found[generator] = _taught(samples, generator, origin, work / generator, lessons)
    return {
        "images_added": list(lessons.numbers),
        "seeds": list(lessons.seeds),
        "by_generator": found,
        "mean_over_generators": _mean_over(list(found.values())),
    }


def _taught(
    samples: Sequence[Sample], generator: str, origin: Origin, work: Path, lessons: Lessons
) -> dict[str, Any]:
    own = [sample for sample in samples if sample.fake and sample.name == generator]
    others = [sample for sample in samples if not sample.held and sample not in own]
    pool = [sample for sample in own if sample.teaching]
    queries = [s for s in samples if s.held and not s.fake] + [s for s in own if not s.teaching]
    base = origin.create(work / "base", others)
    added: dict[str, Any] = {}
    for number in lessons.numbers:
        runs = []
        for seed in lessons.seeds if number else lessons.seeds[:1]:
            lesson = np.random.default_rng(seed).permutation(len(pool))[:number]
            store = Store(Path(shutil.copytree(base.folder, work / f"{number}-{seed}")))
            if number:
                teach(store, [pool[i] for i in lesson])
            runs.append(_run(Trial(store.folder, [*others, *pool], queries), store, generator))
            shutil.rmtree(store.folder)
        added[str(number)] = _over_seeds(runs)
    return {"queries": _counts(queries), "images_to_draw_from": len(pool), "added": added}


def _run(trial: Trial, store: Store, generator: str) -> dict[str, Any]:
    fake = trial.fake
    methods = {
        name: _quality(values[fake], values[~fake]) for name, values in trial.scores(MAIN_VOTES).items()
    }
    strata = store.snapshot().manifest.strata
    return {"voting": sum(s.bank for s in strata if s.name == generator), "methods": methods}


def _over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    gathered: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for name, quality in run["methods"].items():
            for measure, value in quality.items():
                gathered[name][measure].append(value)
    return {
        "of_which_vote": [run["voting"] for run in runs],
        "methods": {
            name: {measure: _range(values) for measure, values in measures.items()}
            for name, measures in gathered.items()
        },
    }


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "min": min(values), "max": max(values)}


def _mean_over(generators: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each number of images and each method: the mean over generators of the means over seeds."""
    first = generators[0]["added"]
    return {
        number: {
            name: {
                measure: float(
                    np.mean([g["added"][number]["methods"][name][measure]["mean"] for g in generators])
                )
                for measure in measures
            }
            for name, measures in first[number]["methods"].items()
        }
        for number in first
    }


# ---------------------------------------------------------------- counting


def _bank_rows(store: Store) -> dict[str, int]:
    manifest = store.snapshot().manifest
    return {
        "real": manifest.live_rows("real"),
        "fake": manifest.live_rows("fake"),
        "real_that_vote": manifest.live_rows("real", "bank"),
        "fake_that_vote": manifest.live_rows("fake", "bank"),
    }


def _counts(queries: Sequence[Sample]) -> dict[str, int]:
    fakes = sum(query.fake for query in queries)
    return {"real": len(queries) - fakes, "fake": fakes}
