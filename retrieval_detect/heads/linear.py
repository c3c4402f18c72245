"""A weighted sum of a vector's coordinates: logistic regression, two ways of finding the weights."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.heads.base import Head, checked, encoded, normalised, option, quiet, require_both
from retrieval_detect.heads.stopping import descend, parted
from retrieval_detect.scoring.weights import reference_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.heads.base import Progress
    from retrieval_detect.types import Bool, Float32, Float64
    from retrieval_detect.vectors import Rows

TOLERANCE = 1e-6
"""Of the largest slope of the mean loss: scores then agree with the optimum's to about 1e-3."""

EPOCHS = 100
BATCH = 256
FEWEST_STEPS = 200
"""Of an epoch: UniversalFakeDetect's has 2,800, and six would let the rate fall before anything is learnt."""
RATE = 1e-4
LOWEST_RATE = 1e-6
PATIENCE = 5
GAINS = (1e-3, 2e-3)
"""By how much accuracy must rise to count: at the first rate, and at those after it."""


class LinearScore(Head):
    """Heads whose score is x · weight + bias."""

    layer: str

    @property
    def weight(self) -> Float32:
        """float32 (d,)."""
        return self.learnt("weight")

    @property
    def bias(self) -> Float32:
        """float32 (1,)."""
        return self.learnt("bias")

    @property
    @abstractmethod
    def unit(self) -> bool:
        """Whether x is the vector at unit norm, or as the network gave it."""

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """See ``Head``."""
        x = checked(vectors, self.layer, len(self.weight))
        x = normalised(x) if self.unit else x
        score: Float64 = x.astype(np.float64) @ self.weight.astype(np.float64) + self.bias
        return score

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        weight, bias = state["weight"], state["bias"]
        return weight.ndim == 1 and bias.shape == (1,) and weight.dtype == bias.dtype == np.float32


@dataclass(eq=False)
class LinearHead(LinearScore):
    """Logistic regression on one layer; its score is the log-odds of fake.

    ``adamw`` trains as UniversalFakeDetect does (Ojha, Li and Lee 2023, §4.2, and its released code): on
    vectors as the network gave them, AdamW without decay, rate 1e-4, batches of 256, weights drawn from
    N(0, 0.02²); whenever accuracy on the rows set aside has not risen for 5 epochs the rate falls to a
    tenth, until it would be below 1e-6 or 100 epochs are over; the best epoch is kept. There, blur and JPEG
    were drawn anew for every image and epoch. Here, images are not opened: that augmentation is only
    approximated, by the laundered views that the index stores.

    ``lbfgs`` finds the one optimum of scikit-learn's ``LogisticRegression`` (L2 penalty, 1/(2 ``c``)). With
    ``normalise``, on unit vectors with standardised coordinates, whose scaling is folded into the weights.
    With ``balanced``, both labels count alike, and within a label generators (sources) as in a vote
    (``scoring.weights``); ``adamw`` ignores these three.
    """

    kind = "linear"

    layer: str = option("proj", "Stored layer it reads.")
    optimizer: str = option("lbfgs", "How weights are found.", choices=("lbfgs", "adamw"))
    c: float = option(1.0, "Inverse strength of the penalty (lbfgs).", low=1e-6, high=1e6)
    normalise: bool = option(True, "Unit vectors, coordinates standardised (lbfgs).")
    balanced: bool = option(True, "Labels, generators and sources count alike (lbfgs).")

    @property
    def cheap(self) -> bool:
        """The optimum is found in seconds; weights that were imported must stay what they are."""
        return self.optimizer == "lbfgs"

    @property
    def unit(self) -> bool:
        """``adamw`` takes vectors as the network gave them, always."""
        return self.normalise and self.optimizer == "lbfgs"

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
        """See ``Head``."""
        require_both(rows)
        match self.optimizer:
            case "lbfgs":
                x = unit_rows(rows, self.layer) if self.unit else encoded(rows, self.layer)
                weight, bias, self._course = self._optimum(x, rows)
            case "adamw":
                x = encoded(rows, self.layer)
                weight, bias, self._course = _trained(x, rows, seed=self.seed, progress=progress)
            case other:
                raise UsageError(f"there is no optimizer {other!r}", hint="Choose lbfgs or adamw.")
        self._learnt = {"weight": weight.astype(np.float32), "bias": np.array([bias], np.float32)}
        return self

    def _optimum(self, x: Float32, rows: Rows) -> tuple[Float64, float, dict[str, Any]]:
        from sklearn.linear_model import LogisticRegression

        inputs = x.astype(np.float64)
        mean, spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
        if self.normalise:
            mean = inputs.mean(axis=0)
            inputs -= mean
            spread = np.sqrt(np.einsum("ij,ij->j", inputs, inputs) / len(inputs))
            spread[spread == 0] = 1.0
            inputs /= spread
        model = LogisticRegression(C=self.c, tol=TOLERANCE, max_iter=2000)
        counted = balanced_weights(rows) if self.balanced else None
        with converging():
            model.fit(inputs, rows.fake, sample_weight=counted)
        weight: Float64 = model.coef_[0] / spread
        iterations = int(model.n_iter_[0])
        course = {"iterations": iterations, "converged": iterations < model.max_iter}
        return weight, float(model.intercept_[0] - weight @ mean), course


# ---------------------------------------------------------------- what linear heads share


def unit_rows(rows: Rows, layer: str) -> Float32:
    """One layer of the rows, float32 (n, d), unit norm; a row that was zero raises ``VectorError``."""
    if layer not in rows.vectors:
        raise UsageError(f"layer {layer!r} is not among the vectors to train on")
    if not rows.norms[layer].all():
        raise VectorError("a stored vector is zero", hint="See: rd index verify")
    return rows.vectors[layer]


def balanced_weights(rows: Rows) -> Float64:
    """How much each row counts, float64 (n,), sum n: labels alike; within one, names as in a vote."""
    weights = row_shares(rows)
    for label in (False, True):
        weights[rows.fake == label] *= len(rows) / 2 / weights[rows.fake == label].sum()
    return weights


def row_shares(rows: Rows) -> Float64:
    """Each row's part of its label, float64 (n,), as a vote weighs it (``scoring.weights``).

    Rows of one name and group, such as the views of one file, are one image and divide what it has.
    """
    shares = np.empty(len(rows))
    for label in (False, True):
        of = np.flatnonzero(rows.fake == label)
        names, groups = rows.names[of], rows.groups[of]
        log_weights = reference_weights(names, groups, groups=groups, batches=rows.batches[of])
        pairs = np.stack([np.unique(names, return_inverse=True)[1], groups])
        _, image, copies = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        shares[of] = np.exp(log_weights) / copies[image.reshape(-1)]
    return shares


class converging(warnings.catch_warnings):  # noqa: N801 - reads as a statement
    """Silences scikit-learn's warning of an optimum not reached: heads keep that as a fact."""

    def __enter__(self) -> None:
        from sklearn.exceptions import ConvergenceWarning

        super().__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)


# ---------------------------------------------------------------- UniversalFakeDetect's training


def _best_accuracy(scores: Float64, fake: Bool) -> float:
    """At the best threshold, labels as they come: 0 says nothing of a generator that is not learnt from."""
    order = np.argsort(scores, kind="stable")
    below = np.concatenate([[0], np.cumsum(~fake[order])])
    above = np.concatenate([[0], np.cumsum(fake[order][::-1])])[::-1]
    return float((below + above).max() / len(fake))


class _Schedule:
    """Falling rates, by accuracy: 1e-4, 1e-5, 1e-6, and then the end."""

    def __init__(self) -> None:
        self.rate, self.over = RATE, False
        self._gain, self._best, self._idle = GAINS[0], -np.inf, 0

    def tell(self, accuracy: float) -> None:
        """After every epoch."""
        if accuracy >= self._best + self._gain:
            self._best, self._idle = accuracy, 0
            return
        self._idle += 1
        if self._idle == PATIENCE:
            self.rate /= 10
            self.over = self.rate < LOWEST_RATE * (1 - 1e-6)
            self._gain, self._best, self._idle = GAINS[1], -np.inf, 0


def _trained(
    x: Float32, rows: Rows, *, seed: int, progress: Progress
) -> tuple[Float64, float, dict[str, Any]]:
    import torch

    everything = np.ones(len(rows), bool)
    fit, stop = parted(rows, seed=seed) or (everything, everything)
    vectors, fake = torch.from_numpy(x), torch.from_numpy(rows.fake.astype(np.float32))
    best, course, schedule = (-1.0, np.empty(0), 0.0), {}, _Schedule()
    for epoch, (loss, layer) in enumerate(_epochs(vectors[fit], fake[fit], schedule, seed=seed), 1):
        with torch.no_grad():
            scores = layer(vectors[stop])[:, 0].double().numpy()
        accuracy = _best_accuracy(scores, rows.fake[stop])
        progress(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}")
        if accuracy > best[0]:
            best = accuracy, layer.weight.detach().numpy()[0].astype(np.float64), layer.bias.item()
            course = {"epoch": epoch, "loss": loss, "accuracy": accuracy}
        schedule.tell(accuracy)
        if schedule.over:
            break
    return best[1], best[2], course | {"epochs": epoch, "stopping_rows": int(stop.sum())}


def _epochs(vectors: Any, fake: Any, schedule: _Schedule, *, seed: int) -> Iterator[tuple[float, Any]]:
    """Mean loss and the layer, after each epoch."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(vectors.shape[1], 1)
    torch.nn.init.normal_(layer.weight, 0.0, 0.02, generator=draw)
    edge = vectors.shape[1] ** -0.5
    torch.nn.init.uniform_(layer.bias, -edge, edge, generator=draw)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE, betas=(0.9, 0.999), weight_decay=0.0)
    criterion = torch.nn.BCEWithLogitsLoss()
    for _ in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = schedule.rate
        losses: list[float] = []
        while len(losses) < FEWEST_STEPS:
            for batch in torch.split(torch.randperm(len(vectors), generator=draw), BATCH):
                losses.append(descend(optimizer, criterion(layer(vectors[batch])[:, 0], fake[batch])))
        yield float(np.mean(losses)), layer
