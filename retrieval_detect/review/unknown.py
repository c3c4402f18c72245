"""The unknown: images like neither bank, gathered into kinds that a person may look at and name.

An image is unknown because nothing like it is stored. That is no evidence that it was generated: a new
camera, a site that was never sampled or a kind of screenshot looks the same from here. So nothing is
labelled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.ask.rows import Progress
from retrieval_detect.errors import EmptyBank, UsageError
from retrieval_detect.search.projection import query_codes, row_codes
from retrieval_detect.store.groups import group_rows
from retrieval_detect.types import LABELS, Failure, Label
from retrieval_detect.vectors import normalise, unit
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from retrieval_detect.ask.banks import Banks
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.types import Embedded, Float32, Int64
    from retrieval_detect.verdicts import Verdict

MIN_SIZE = 5
N_KNOWN = 3
_BACKGROUND = 500
"""References of each bank that are clustered along, so that a single new kind has what to differ from."""
_NOISE = -1


@dataclass(frozen=True, slots=True)
class Known:
    """A generator or source near a candidate.

    ``share`` of the references nearest to the images, 0…1, and the mean ``similarity`` of these.
    """

    label: Label
    name: str
    share: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """Images that are nearer to one another than to what is known.

    ``images`` : the most central first. ``similarity`` : mean cosine of two of them. ``known`` : the names
    nearest to them.
    """

    number: int
    images: tuple[Verdict, ...]
    similarity: float
    known: tuple[Known, ...]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What became of the images: ``counts`` of verdicts, the ``unknown`` among them, what these form."""

    counts: Mapping[str, int]
    unknown: tuple[Verdict, ...]
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]


def discover(
    detector: Detector,
    images: Iterable[Embedded | Failure],
    question: Question | None = None,
    *,
    min_size: int = MIN_SIZE,
    include_uncertain: bool = False,
    progress: Progress = lambda _: None,
) -> Discovery:
    """Judge images, and cluster those judged unknown.

    HDBSCAN (Campello, Moulavi and Sander 2013, "Density-based clustering based on hierarchical density
    estimates") on the vectors that banks search, beside a sample of the references; what it gathers
    mostly from references is no candidate. Near-duplicates count once. ``min_size`` : least number of
    different images in a candidate, 2 or more. Raises ``UsageError`` without a calibration.
    """
    question = require_calibration(detector, question or Question())
    wanted = {"unknown", "uncertain"} if include_uncertain else {"unknown"}
    counts: Counter[str] = Counter()
    found: list[tuple[Embedded, Verdict]] = []
    failures = []
    for image in images:
        if isinstance(image, Failure):
            failures.append(image)
        else:
            try:
                verdict = detector.judge(image, **asdict(question))
                counts[verdict.verdict] += 1
                found += [(image, verdict)] if verdict.verdict in wanted else []
            except EmptyBank as error:  # every reference left is a copy of this very image
                failures.append(Failure(image.item.uri, "no-voters", error.in_full))
        progress(1)
    candidates = _candidates(detector, found, question, min_size) if len(found) >= min_size else ()
    return Discovery(counts, tuple(verdict for _, verdict in found), tuple(candidates), tuple(failures))


def require_calibration(detector: Detector, question: Question) -> Question:
    """The question as the index understands it; ``UsageError`` if nothing can be unknown to it."""
    checked = detector.methods.checked(question)
    calibration = detector.methods.fitted(checked)
    if calibration is None:
        raise UsageError(
            f"only a calibration can tell what is unknown, and this index has none for {question.method}",
            hint=f"Fit one: rd fit calibration --method {question.method}",
        )
    calibration.require(checked)
    return checked


# ---------------------------------------------------------------- candidates


def _candidates(
    detector: Detector, found: Sequence[tuple[Embedded, Verdict]], question: Question, min_size: int
) -> list[Candidate]:
    """The largest first."""
    banks = detector.methods.banks(question.projection)
    images = [image for image, _ in found]
    layers = banks.projection.layers
    queries = [np.concatenate([image.vectors[layer] for layer in layers])[None, :] for image in images]
    x = unit(np.concatenate([query_codes(q, banks.projection).astype(np.float32) for q in queries]))
    phashes = np.array([image.phash for image in images], np.uint64)
    codes, _ = normalise(np.stack([image.vectors[detector.layer] for image in images]))
    originals = group_rows(phashes, codes, (), detector.layer).cluster  # near-duplicates are one image
    first, copy_of = np.unique(originals, return_inverse=True)
    if len(first) < min_size:
        return []
    cluster = _clustered(x[first], _background(detector, banks), min_size)[copy_of]
    members = [np.flatnonzero(cluster == number) for number in np.unique(cluster[cluster != _NOISE])]
    members.sort(key=lambda positions: (-len(positions), positions[0]))
    return [
        _candidate(number, [found[i][1] for i in positions.tolist()], x[positions])
        for number, positions in enumerate(members, start=1)
    ]


def _background(detector: Detector, banks: Banks) -> Float32:
    """A sample of both banks, float32 (n, d_out), unit norm."""
    ids = [banks.references(label).row_ids for label in LABELS]
    chosen = np.concatenate([some[:: -(-len(some) // _BACKGROUND)] for some in ids]).tolist()
    layers = [detector.snapshot.gather(chosen, layer).astype(np.float16) for layer in banks.projection.layers]
    return unit(row_codes(np.concatenate(layers, axis=1), banks.projection).astype(np.float32))


def _clustered(x: Float32, background: Float32, min_size: int) -> Int64:
    """A number for each row of ``x``, int64 (n,); -1 for those in no cluster that is mostly of ``x``."""
    from sklearn.cluster import HDBSCAN

    clusterer = HDBSCAN(min_cluster_size=min_size, copy=True)
    labels = clusterer.fit_predict(np.concatenate([x, background]).astype(np.float64)).astype(np.int64)
    own, known = labels[: len(x)], labels[len(x) :]
    new = [n for n in np.unique(own).tolist() if (own == n).sum() > (known == n).sum()]
    large = [n for n in new if (own == n).sum() >= min_size]
    kept: Int64 = np.where(np.isin(own, large), own, _NOISE)
    return kept


def _candidate(number: int, verdicts: Sequence[Verdict], x: Float32) -> Candidate:
    similarities = (x @ x.T).astype(np.float64)
    np.fill_diagonal(similarities, 0.0)
    to_others = similarities.sum(axis=1) / (len(x) - 1)
    central = np.argsort(-to_others, kind="stable").tolist()
    return Candidate(
        number, tuple(verdicts[i] for i in central), float(to_others.mean()), tuple(_known(verdicts))
    )


def _known(verdicts: Sequence[Verdict]) -> list[Known]:
    """The names that give most of the nearest references of some images."""
    similarities: dict[tuple[Label, str], list[float]] = defaultdict(list)
    for verdict in verdicts:
        for e in verdict.evidence:
            name = e.generator if e.label == "fake" else e.source
            similarities[e.label, name].append(e.similarity)
    total = sum(map(len, similarities.values()))
    known = [
        Known(label, name, len(some) / total, sum(some) / len(some))
        for (label, name), some in similarities.items()
    ]
    return sorted(known, key=lambda k: (-k.share, k.label, k.name))[:N_KNOWN]
