"""Indexes made for one evaluation from references at hand, what they say, and what rivals say.

The user's index is only read: whatever is left out or taught happens in a temporary folder, by rd's own
store, banks and votes.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from retrieval_detect.ask.fitted import PLAIN
from retrieval_detect.ask.methods import Methods
from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.evaluate.context import references
from retrieval_detect.evaluate.shortcuts import group_folds, logistic
from retrieval_detect.scoring.likelihood import fit_likelihood_ratio
from retrieval_detect.store.append import NewRow
from retrieval_detect.store.store import Store
from retrieval_detect.store.writer import Addition
from retrieval_detect.teach.projections import fit_default
from retrieval_detect.teach.refit import refitted
from retrieval_detect.types import METHODS, Facts
from retrieval_detect.vectors import normalise
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.context import Context, Images
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.types import Bool, Float32

    Float64: TypeAlias = NDArray[np.float64]

_BLOCK = 4096
NEIGHBOURS = 9


# ---------------------------------------------------------------- asking


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What an index says of n images: ``scores``, ``typical`` : float64 (n,).

    ``generators`` : those of the nearest fakes, (n,).
    """

    scores: Float64
    typical: Float64
    generators: NDArray[np.str_]


class Scorer:
    """Asks one generation one question."""

    def __init__(self, snapshot: Snapshot, question: Question, *, device: str = "auto") -> None:
        self.snapshot = snapshot
        self.methods = Methods(snapshot, device=device)
        self.question = self.methods.checked(question)

    def ask(self, images: Images) -> Said:
        """What the index says; an image's own copies among the references do not vote."""
        parts = []
        for chosen in np.split(np.arange(len(images)), range(_BLOCK, len(images), _BLOCK)):
            answers = self.methods.ask(images.take(chosen).asked(), self.question)
            if answers.missing:
                raise EmptyBank(
                    f"the {answers.missing[0]} bank holds nothing but copies of an image that is asked about",
                    hint="Add other references of that label.",
                )
            generators = self.methods.top_generators(answers, self.question).astype(np.str_)
            parts.append((answers.scores, answers.typical, generators))
        return Said(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def set_aside(self, layers: tuple[str, ...]) -> tuple[Images, Said] | None:
        """The calibration rows and what is said of them; ``None`` unless there are some of both labels."""
        rows = references(self.snapshot, layers, split="calib")
        if not (rows.fake.any() and (~rows.fake).any()):
            return None
        return rows, self.ask(rows)

    def threshold(self, layers: tuple[str, ...]) -> float | None:
        """The score at which both labels are equally likely, by the rows ``set_aside``."""
        aside = self.set_aside(layers)
        return None if aside is None else neutral(aside[1].scores, aside[0].fake)


def neutral(scores: Float64, fake: Bool) -> float:
    """The score at which both labels are equally likely, by ``fit_likelihood_ratio``."""
    fit = fit_likelihood_ratio(scores[fake], scores[~fake])
    rising = np.r_[True, np.diff(fit.log10_lr) > 0]
    return float(np.interp(0.0, fit.log10_lr[rising], fit.scores[rising]))


def threshold_at(scores: Float64, fpr: float) -> float:
    """The lowest threshold that at most a share ``fpr`` of these photographs' scores exceeds."""
    ordered = np.sort(scores)
    allowed = int(fpr * len(ordered) + 1e-9)
    return float(ordered[-1 - allowed]) if allowed < len(ordered) else -np.inf


def parse_method(text: str) -> Question:
    """``majority:9`` → the question; votes named so are asked of the stored vectors as they are."""
    name, colon, k = text.partition(":")
    if colon and not k.isdecimal():
        raise UsageError(f"{text!r} is no method", hint="Give NAME or NAME:K, as in majority:9.")
    return Question(name, int(k) if colon else None, PLAIN if name in METHODS else None)


# ---------------------------------------------------------------- indexes for a while


class State:
    """An index in a temporary folder."""

    def __init__(self, store: Store, context: Context) -> None:
        self.store = store
        self._context = context

    @property
    def scorer(self) -> Scorer:
        """Of the question that is evaluated; votes go through the projection this index searches through."""
        question = replace(self._context.question, projection=None)
        return Scorer(self.store.snapshot(), question, device=self._context.device)

    @contextmanager
    def taught(self, more: Images) -> Iterator[State]:
        """A copy that has more references."""
        with TemporaryDirectory(dir=self._context.work) as folder:
            copy = Store(Path(shutil.copytree(self.store.folder, Path(folder) / "index")))
            if len(more):
                add(copy, more)
            yield State(copy, self._context)


@contextmanager
def state_of(context: Context, known: Images) -> Iterator[State]:
    """An index of nothing but ``known``; what the user's index searches through is fitted anew, on these."""
    question = context.question
    if question.method not in METHODS:
        raise UsageError(
            f"{question.method!r} is a head: what it has learnt cannot be unlearnt for this protocol",
            hint=f"Ask for a vote: --method {'|'.join(METHODS)}",
        )
    manifest = context.snapshot.manifest
    canaries = {layer: context.snapshot.canaries()[layer] for layer in context.layers}
    with TemporaryDirectory(dir=context.work) as folder:
        store = Store.create(Path(folder) / "index", manifest.encoder, canaries=canaries)
        add(store, known)
        if (question.projection or manifest.projection) != PLAIN:
            fit_default(store, calibrate=False, device=context.device)
        yield State(store, context)


def add(store: Store, images: Images) -> None:
    """Commit images as one addition, in rd's own way: groups, splits, the projection fitted anew, and all."""
    rows = []
    for i, identity in enumerate(images.content_ids):
        name = str(images.names[i])
        facts = Facts("fake", generator=name) if images.fake[i] else Facts("real", source=name)
        rows.append(NewRow(identity, identity.hex(), facts))
    with store.writer() as writer:
        staging = writer.staging()
        staging.add(images.embedded())
        writer.add(Addition(rows), staging, review=lambda to_be: refitted(writer, to_be, calibrate=False))


# ---------------------------------------------------------------- rivals

FEWEST = 3
"""References of a label without which a rival cannot learn: one in each of its folds."""
Rival: TypeAlias = Callable[["Float32", "Bool", "Float32"], "Float64"]
"""Unit vectors float32 (n, d) and labels to learn from, vectors asked about → scores, positive = fake."""


def rival_scores(known: Images, asked: Images, layer: str, rival: Rival) -> Float64:
    """A rival that learns from the very references that vote, by the vectors of one layer."""
    return rival(_unit(known, layer), known.fake, _unit(asked, layer))


def unlearnt_scores(context: Context, bank: Images, rival: Rival) -> Float64 | None:
    """A rival's score of each image of the set, never having learnt from it.

    Where images are references too, it learns from four fifths and is asked about the fifth, groups whole.
    ``None`` if fewer than ``FEWEST`` references of a label are left to learn from.
    """
    images = context.images
    folds = group_folds(images.fake, images.groups) if context.n_stored else np.zeros(len(images), np.int64)
    scores = np.empty(len(images))
    for fold in np.unique(folds):
        asked = images.take(folds == fold)
        known = bank.take(~np.isin(bank.content_ids, asked.content_ids))
        if min(known.fake.sum(), (~known.fake).sum()) < FEWEST:
            return None
        scores[folds == fold] = rival_scores(known, asked, context.layer, rival)
    return scores


def _unit(images: Images, layer: str) -> Float32:
    codes = normalise(images.vectors[layer])[0].astype(np.float32)
    unit: Float32 = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    return unit


def _neighbours(x: Float32, fake: Bool, asked: Float32) -> Float64:
    from sklearn.neighbors import KNeighborsClassifier

    # By distance: shares of nine votes would tie, and a ranking of ties says little.
    model = KNeighborsClassifier(min(NEIGHBOURS, len(x)), weights="distance", algorithm="brute")
    shares: Float64 = model.fit(x, fake).predict_proba(asked)[:, 1] - 0.5
    return shares


def _centroid(x: Float32, fake: Bool, asked: Float32) -> Float64:
    from sklearn.neighbors import NearestCentroid

    with warnings.catch_warnings():  # of coordinates that never vary, which change no distance
        warnings.filterwarnings("ignore", "self.within_class_std_dev_", UserWarning)
        real, fakes = NearestCentroid().fit(x, fake).centroids_
    closer: Float64 = np.linalg.norm(asked - real, axis=1) - np.linalg.norm(asked - fakes, axis=1)
    return closer.astype(np.float64)


def calibrated_logistic(x: Float32, fake: Bool, asked: Float32) -> Float64:
    """log10 likelihood ratios by CalibratedClassifierCV: the prior of those learnt from is taken out."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression

    model = CalibratedClassifierCV(LogisticRegression(class_weight="balanced", max_iter=2000), cv=FEWEST)
    stated = model.fit(x, fake).predict_proba(asked)[:, 1].clip(1e-9, 1 - 1e-9)
    ratios: Float64 = np.log10(stated / (1 - stated)) - np.log10(fake.mean() / (1 - fake.mean()))
    return ratios.astype(np.float64)


RIVALS: Mapping[str, Rival] = {
    "KNeighborsClassifier": _neighbours,
    "NearestCentroid": _centroid,
    "LogisticRegression": logistic,
}
"""scikit-learn's, by the name they have there."""
