"""Fitting how high the crops of photographs score by chance; see ``ask.regions``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.banks import Asked
from retrieval_detect.ask.fitted import PLAIN, REGIONS
from retrieval_detect.ask.regions import CropMethods, require_crops
from retrieval_detect.errors import UsageError
from retrieval_detect.images.laundering import CROPS, kind_of
from retrieval_detect.scoring.highest_crops import HighestCrops
from retrieval_detect.scoring.vote import nobody_left
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.fitted import commit_rates
from retrieval_detect.types import quiet
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest
    from retrieval_detect.store.snapshot import Snapshot
    from retrieval_detect.store.store import Store


def fit_regions(
    snapshot: Snapshot,
    question: Question | None = None,
    *,
    device: str = "auto",
    progress: Callable[[int], None] = quiet,
) -> HighestCrops:
    """Judge the crops of every photograph set aside, its own group left out; no image is opened.

    ``question`` : the method, its k and the projection. ``progress`` is called with 1 a photograph. Raises
    ``UsageError`` where no photograph that is set aside has crops.
    """
    require_crops(snapshot)
    methods = CropMethods(snapshot, device=device)
    question = methods.checked(question or Question())
    photographs = []
    for crops in _photographs(snapshot, methods.layers(question)):
        answers = methods.ask(crops, question)
        if answers.missing:
            raise nobody_left(answers.missing[0])
        photographs.append((len(crops), float(answers.scores.max())))
        progress(1)
    if not photographs:
        raise UsageError(
            "no photograph that is set aside for calibration has crops",
            hint="A fifth of each source with 25 images or more is set aside: rd bank add --views crops",
        )
    return HighestCrops(
        question.method,
        question.k or 0,
        question.projection or PLAIN,
        methods.scorer(question),
        snapshot.rows_digest(REGIONS.strata),
        tuple(photographs),
    )


def _photographs(snapshot: Snapshot, layers: Sequence[str]) -> Iterator[Asked]:
    """The crops of each photograph set aside that has some."""
    rows = load_training_set(snapshot, layers, split="calib", views=True)
    crops: dict[bytes, list[int]] = defaultdict(list)
    for position in np.flatnonzero(~rows.fake).tolist():
        if kind_of(rows.views[position]) == CROPS:
            crops[rows.content_ids[position]].append(position)
    for positions in crops.values():
        yield Asked.of(rows.take(np.array(positions)))


def commit_regions(store: Store, fitted: HighestCrops) -> Manifest:
    """Make it the one in force for its method; refuses if the references have changed since."""
    return commit_rates(store, REGIONS, fitted)
