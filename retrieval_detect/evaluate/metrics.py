"""What scores are worth: the numbers that tables of detectors are made of. Scores: positive = fake.

Every metric of a ranking or of a threshold is a function of ``(scores, fake)``, so that
``intervals.interval`` can put an interval around any of them. Metrics that weigh both errors by how
many images of a label there are (accuracy, AP, NLL, …) do so here too, as in the published tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.scoring.likelihood import cllr, probability
from retrieval_detect.scoring.metrics import auc, recall_at_fpr

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from retrieval_detect.types import Bool

    Float64: TypeAlias = NDArray[np.float64]

Metric: TypeAlias = "Callable[[Float64, Bool], float]"
"""Scores float64 (n,) and labels bool (n,), both labels present → one number."""

ThresholdKind: TypeAlias = Literal["fixed", "calibrated", "oracle"]
"""``fixed`` : set before any image was seen (0 for votes, 0.5 for probabilities). ``calibrated`` : set on
calibration images. ``oracle`` : the best for the very images that are measured: no user can have it."""

LOW_FPR = 0.01
SHOWN = (
    *("auroc", "ap", "acc_fixed", "acc_calibrated", "acc_oracle"),
    *("real_acc_fixed", "fake_acc_fixed", "tpr_at_1_fpr"),
)
"""What a row of a table has of what ``measure`` gives."""
BINS = 15


# ---------------------------------------------------------------- rankings


def average_precision(scores: ArrayLike, fake: ArrayLike) -> float:
    """Area under precision over recall, as a sum of steps, 0…1; equal scores are one step."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*reversed(_both(scores, fake))))


def auroc(scores: ArrayLike, fake: ArrayLike) -> float:
    """Chance that a fake scores above a photograph, 0…1; see ``scoring.metrics.auc``."""
    values, labels = _both(scores, fake)
    return auc(values[labels], values[~labels])


def tpr_at_fpr(scores: ArrayLike, fake: ArrayLike, *, fpr: float = LOW_FPR) -> float:
    """Share of fakes found where at most ``fpr`` of these photographs are flagged."""
    values, labels = _both(scores, fake)
    return recall_at_fpr(values[labels], values[~labels], fpr=fpr)


GRID = np.linspace(0.0, 1.0, 101)
"""Where curves are read: shares of photographs flagged, and shares of fakes found."""


def curves(scores: ArrayLike, fake: ArrayLike) -> dict[str, Float64]:
    """``roc`` : recall at each share of false alarms of ``GRID``; ``pr`` : precision at each recall of it.

    Both float64 (101,), read off at fixed places so that means over columns or folds are curves too
    (Fawcett 2006, "An introduction to ROC analysis": vertical averaging). Precision is that of the
    highest threshold which reaches the recall, as in ``average_precision``.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    values, labels = _both(scores, fake)
    fpr, tpr, _ = roc_curve(labels, values)
    precision, recall, _ = precision_recall_curve(labels, values)
    # Recall falls along the array: the last point that still reaches the wanted one.
    reached = len(recall) - 1 - np.searchsorted(recall[::-1], GRID, side="left")
    return {"roc": np.interp(GRID, fpr, tpr), "pr": precision[reached]}


def mean_curves(found: Sequence[Mapping[str, ArrayLike]]) -> dict[str, list[float]]:
    """The mean of several, to four digits."""
    means = {n: np.mean([np.asarray(one[n], np.float64) for one in found], axis=0) for n in ("roc", "pr")}
    return {name: mean.round(4).tolist() for name, mean in means.items()}


# ---------------------------------------------------------------- thresholds


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares that are right, 0…1, where what scores above ``threshold`` is called fake.

    ``kind`` must be shown wherever the numbers are. ``all`` : of all images. ``balanced`` : mean of
    ``real`` (photographs) and ``fake``.
    """

    kind: ThresholdKind
    threshold: float
    all: float
    balanced: float
    real: float
    fake: float


def accuracy(scores: ArrayLike, fake: ArrayLike, *, threshold: float, kind: ThresholdKind) -> Accuracy:
    """Accuracy at a threshold; a score equal to it is no fake."""
    values, labels = _both(scores, fake)
    right = (values > threshold) == labels
    of_real, of_fake = float(right[~labels].mean()), float(right[labels].mean())
    return Accuracy(kind, float(threshold), float(right.mean()), (of_real + of_fake) / 2, of_real, of_fake)


def accuracies(
    scores: ArrayLike, fake: ArrayLike, *, fixed: float = 0.0, calibrated: float | None = None
) -> dict[ThresholdKind, Accuracy]:
    """Accuracy at every kind of threshold there is; ``calibrated=None`` = there was no calibration."""
    thresholds: dict[ThresholdKind, float] = {"fixed": fixed}
    if calibrated is not None:
        thresholds["calibrated"] = calibrated
    thresholds["oracle"] = oracle_threshold(scores, fake)
    return {kind: accuracy(scores, fake, threshold=at, kind=kind) for kind, at in thresholds.items()}


def oracle_threshold(scores: ArrayLike, fake: ArrayLike) -> float:
    """The lowest of the thresholds that are best for these images. For nothing but an upper bound.

    What UniversalFakeDetect's ``find_best_threshold`` looks for, in O(n log n).
    """
    values, labels = _both(scores, fake)
    order = np.argsort(values, kind="stable")
    values, labels = values[order], labels[order]
    # right[i] : correct images if the first i, by score, are called real.
    right = np.r_[0, np.cumsum(~labels)] + labels.sum() - np.r_[0, np.cumsum(labels)]
    possible = np.r_[True, np.diff(values) > 0, True]
    best = int(np.argmax(np.where(possible, right, -1)))
    return float(values[best - 1] if best else np.nextafter(values[0], -np.inf))


# ---------------------------------------------------------------- probabilities


def expected_calibration_error(probabilities: ArrayLike, fake: ArrayLike, *, bins: int = BINS) -> float:
    """Mean gap between stated probability of a fake and share of fakes, over equal bins, weighted, 0…1.

    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning", §3, for the
    probability of one class.
    """
    return float(
        sum(n * abs(stated - seen) for stated, seen, n in reliability(probabilities, fake, bins=bins))
    )


def reliability(
    probabilities: ArrayLike, fake: ArrayLike, *, bins: int = BINS
) -> list[tuple[float, float, float]]:
    """The reliability curve: for each bin that holds images, mean stated probability, share of fakes,
    and the bin's share of all images. A probability of exactly 1 lies in the last bin.
    """
    stated, labels = _probabilities(probabilities, fake)
    number = np.minimum((stated * bins).astype(np.int64), bins - 1)
    return [
        (float(stated[here].mean()), float(labels[here].mean()), float(here.mean()))
        for here in (number == bin_ for bin_ in np.unique(number))
    ]


def negative_log_likelihood(probabilities: ArrayLike, fake: ArrayLike) -> float:
    """Mean of −ln(probability of the true label), nats. Certain errors cost what float64 can show."""
    from sklearn.metrics import log_loss

    stated, labels = _probabilities(probabilities, fake)
    return float(log_loss(labels, stated, labels=[False, True]))


def brier(probabilities: ArrayLike, fake: ArrayLike) -> float:
    """Mean squared difference between stated probability and label, 0…1."""
    stated, labels = _probabilities(probabilities, fake)
    return float(((stated - labels) ** 2).mean())


def likelihood_cost(log10_lr: ArrayLike, fake: ArrayLike) -> float:
    """Cllr of log10 likelihood ratios in bits; see ``scoring.likelihood.cllr``."""
    ratios, labels = _both(log10_lr, fake)
    return cllr(ratios[labels], ratios[~labels])


def calibration_metrics(log10_lr: ArrayLike, fake: ArrayLike) -> dict[str, float]:
    """ECE, NLL, Brier and Cllr of log10 likelihood ratios.

    Probabilities take the share of fakes among these images for their prior, so that a ratio that is right
    is not punished for a prior that is not.
    """
    ratios, labels = _both(log10_lr, fake)
    stated = probability(ratios, float(labels.mean()))
    return {
        "ece": expected_calibration_error(stated, labels),
        "nll": negative_log_likelihood(stated, labels),
        "brier": brier(stated, labels),
        "cllr": likelihood_cost(ratios, labels),
    }


# ---------------------------------------------------------------- all of one column


RANKING_METRICS: dict[str, Metric] = {"ap": average_precision, "auroc": auroc, "tpr_at_1_fpr": tpr_at_fpr}
"""Name → metric that needs no threshold."""


def measure(
    scores: ArrayLike, fake: ArrayLike, *, fixed: float = 0.0, calibrated: float | None = None
) -> dict[str, float]:
    """Every ranking metric, and accuracies named for their threshold: ``acc_fixed``, ``balanced_acc_oracle``,
    ``real_acc_calibrated``, ``fake_acc_…``, ``threshold_…``.
    """
    values, labels = _both(scores, fake)
    row = {name: metric(values, labels) for name, metric in RANKING_METRICS.items()}
    for kind, found in accuracies(values, labels, fixed=fixed, calibrated=calibrated).items():
        row |= {
            f"acc_{kind}": found.all,
            f"balanced_acc_{kind}": found.balanced,
            f"real_acc_{kind}": found.real,
            f"fake_acc_{kind}": found.fake,
            f"threshold_{kind}": found.threshold,
        }
    return row


# ---------------------------------------------------------------- quality and attribution


@dataclass(frozen=True, slots=True)
class Correlations:
    """Spearman's, Pearson's and Kendall's (tau-b) correlation, −1…1."""

    srcc: float
    plcc: float
    krcc: float


def correlations(predicted: ArrayLike, opinion: ArrayLike) -> Correlations:
    """How well predicted quality follows mean opinion, both (n,). PLCC is of the values as they are."""
    from scipy.stats import kendalltau, pearsonr, spearmanr

    x, y = (np.asarray(values, np.float64).ravel() for values in (predicted, opinion))
    if len(x) != len(y) or len(x) < 3:
        raise UsageError("a correlation needs three images or more, each with a prediction and an opinion")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError("a quality is not a number")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise UsageError("there is no correlation with values that are all equal")
    return Correlations(*(float(r(x, y).statistic) for r in (spearmanr, pearsonr, kendalltau)))


def oscr(right: ArrayLike, known_scores: ArrayLike, unknown_scores: ArrayLike) -> float:
    """Area under the open-set classification rate, 0…1: attributing what is known, refusing what is not.

    Over all thresholds, the share of known images accepted and named rightly against the share of
    unknown ones accepted (Dhamija et al. 2018, "Reducing network agnostophobia", §4). ``right`` : bool (n,),
    whether a known image got its generator's name; scores (n,) and (m,): high = accepted.
    """
    named, known = np.asarray(right, bool).ravel(), np.asarray(known_scores, np.float64).ravel()
    if len(named) != len(known):
        raise UsageError(f"{len(known)} known images have scores, {len(named)} have names")
    if not named.any():
        return 0.0
    # A pair counts if the known image is named rightly and accepted before the unknown one.
    return float(named.mean()) * auc(known[named], unknown_scores)


# ---------------------------------------------------------------- checks


def _both(scores: ArrayLike, fake: ArrayLike) -> tuple[Float64, Bool]:
    values, labels = np.asarray(scores, np.float64).ravel(), np.asarray(fake, bool).ravel()
    if len(values) != len(labels):
        raise UsageError(f"there are {len(values):,} scores and {len(labels):,} labels")
    if not np.isfinite(values).all():
        raise UsageError("a score is not a number")
    if labels.all() or not labels.any():
        missing = "photographs" if labels.any() else "fakes"
        raise UsageError(f"there are no {missing} to measure")
    return values, labels


def _probabilities(probabilities: ArrayLike, fake: ArrayLike) -> tuple[Float64, Bool]:
    stated, labels = _both(probabilities, fake)
    if ((stated < 0) | (stated > 1)).any():
        raise UsageError("a probability is not between 0 and 1")
    return stated, labels
