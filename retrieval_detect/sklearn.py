"""rd's own methods as scikit-learn estimators: for pipelines, grid searches and comparisons.

X (n, d) holds vectors as an encoder gave them, of any norm; y has two classes, of which the second in sorted
order is fake: 0 and 1, or False and True. X becomes what an index would store, unit vectors rounded to
float16. A zero row has no direction: nothing is learnt from it, and asked about, its score is 0. One
feature is too few to have a direction in. Scores are positive = fake and uncalibrated;
``RetrievalClassifier(prior=…)`` calibrates them, and has ``predict_proba``.
"""

# ruff: noqa: N803 - X is what scikit-learn calls it, also where it is given by name

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.options import check_options
from retrieval_detect.projections.base import unit_rows
from retrieval_detect.projections.registry import fit_projection
from retrieval_detect.projections.scatter import LEDOIT_WOLF, parse_shrinkage
from retrieval_detect.scoring.likelihood import LikelihoodRatio, fit_likelihood_ratio, probability
from retrieval_detect.scoring.neighbours import NearestImages
from retrieval_detect.scoring.vote import DEFAULT_K, TEMPERATURE, vote
from retrieval_detect.scoring.weights import reference_weights
from retrieval_detect.search.bank import Bank, BankFiles, ShardVectors
from retrieval_detect.search.projection import Identity, query_codes
from retrieval_detect.types import LABELS, METHODS
from retrieval_detect.vectors import Rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from retrieval_detect.types import Bool, Float16, Float32, Int64, Label, Method

    Float64 = NDArray[np.float64]

__all__ = ["PhotographWhitening", "PrototypeClassifier", "RetrievalClassifier"]

_LAYER = "x"
_QUERIES_AT_ONCE = 4096
"""Bounds the memory of a vote, which holds several numbers a neighbour."""
_FOLDS = 5
"""Of the references, in which each is scored by the others."""


class _Detector(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """What classifiers share: two classes, of which the second is fake."""

    @abstractmethod
    def _learn(self, rows: Rows) -> None:
        """Fit on ``rows`` of both classes; their ``row_ids`` are positions in X."""

    @abstractmethod
    def _scores(self, x: Float32) -> Float64:
        """Score of each row of ``x``, float32 (n, d), none of them zero; float64 (n,), positive = fake."""

    def fit(
        self, X: ArrayLike, y: ArrayLike, *, names: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Self:
        """Learn from references.

        ``names`` : (n,), generators of fakes and sources of photographs, which then count alike however
        many images they gave; by default a class is one. ``groups`` : (n,), equal for near-duplicates,
        which together weigh no more than one name.
        """
        x, y = validate_data(self, X, y, dtype=np.float32, ensure_min_features=2)
        kind = type_of_target(y, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise UsageError(f"Only binary classification is supported. The type of the target is {kind}.")
        self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        _refuse_words(self.classes_)
        rows = _training_set(_stored(x), codes == 1, names=names, groups=groups)
        if len(np.unique(rows.fake)) < 2:
            raise UsageError("y has one class only", hint="Give photographs and fakes.")
        self._learn(rows)
        return self

    def decision_function(self, X: ArrayLike) -> Float64:
        """Score of each row, float64 (n,), positive = fake."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float32, reset=False)
        scores, asked = np.zeros(len(x)), np.flatnonzero(x.any(axis=1))
        for start in range(0, len(asked), _QUERIES_AT_ONCE):
            block = asked[start : start + _QUERIES_AT_ONCE]
            scores[block] = self._scores(x[block])
        return scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Class of each row, (n,); fake where its score is above zero, and not at zero."""
        fake = self.decision_function(X) > 0
        classes: NDArray[Any] = self.classes_[fake.astype(int)]
        return classes

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class RetrievalClassifier(_Detector):
    """The nearest references of both banks vote: ``rd query`` on vectors at hand.

    The votes are those of ``scoring.vote``, over neighbours found exactly. Every row is an image of its own.

    Parameters
    ----------
    method : ``density``, ``nearest``, ``mean`` or ``majority``.
    k : neighbours counted, of each bank or, by majority, of both; ``None`` is the method's own number. A
        bank with fewer votes with all it has.
    temperature : T of the density vote.
    prior : the share of fakes among the images that will be asked about, 0 < prior < 1; it cannot be learnt
        from X. With it ``fit`` calibrates, in five times the time, and there is ``predict_proba``.

    Attributes
    ----------
    classes_ : (2,), photographs' and fakes'.
    likelihood_ : score → log10 likelihood ratio (``scoring.likelihood``), with a prior.
    codes_ : float16 (m, d), the references at unit norm.
    positions_ : int64 (m,), which rows of X they were.
    fake_ : bool (m,), which of them are fake.
    log_weights_ : float64 (m,), what each weighs in its bank (``scoring.weights``).
    """

    def __init__(
        self,
        method: Method = "density",
        k: int | None = None,
        *,
        temperature: float = TEMPERATURE,
        prior: float | None = None,
    ) -> None:
        self.method = method
        self.k = k
        self.temperature = temperature
        self.prior = prior

    def fit(
        self, X: ArrayLike, y: ArrayLike, *, names: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Self:
        """Learn from references; with a prior, calibrate on what each scores by those of other folds.

        ``names``, ``groups`` : see the base class; a group is never cut by folds. Raises ``UsageError`` for a
        prior that is none, and where a class has fewer than five groups to calibrate on.
        """
        super().fit(X, y, names=names, groups=groups)
        if self.prior is not None:
            probability(0.0, self.prior)
            self.likelihood_ = self._calibrated(X, y, {"names": names, "groups": groups})
        return self

    @available_if(lambda self: self.prior is not None)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: ArrayLike) -> Float64:
        """Chance of a photograph and of a fake, float64 (n, 2), columns as ``classes_``.

        The calibrated log-odds of the score and those of ``prior`` together (Bayes' rule). It is the chance
        that an image is a fake only where a share ``prior`` of such images is, and they are of the generators
        and sources of X: photographs from elsewhere may score as fakes do. A zero row is given the prior.
        ``predict`` goes by the sign of the score, and may differ.
        """
        assert self.prior is not None  # noqa: S101 - for the type checker; without one this is not there
        check_is_fitted(self)
        scores = self.decision_function(X)
        log10_lr = np.where(np.any(np.asarray(X), axis=1), self.likelihood_(scores), 0.0)
        fake = probability(log10_lr, self.prior)
        return np.stack([1 - fake, fake], axis=1)

    def _calibrated(self, X: ArrayLike, y: ArrayLike, known: dict[str, ArrayLike | None]) -> LikelihoodRatio:
        """From scores that no reference had a part in whose group is its own."""
        x = validate_data(self, X, dtype=np.float32, reset=False)
        seen = x.any(axis=1)
        fake = (column_or_1d(y) == self.classes_[1])[seen]
        told = {name: _column(column, len(x))[seen] for name, column in known.items() if column is not None}
        groups = told.get("groups", np.arange(len(fake)))
        n_fake, n_real = (len(np.unique(groups[of])) for of in (fake, ~fake))
        if min(n_fake, n_real) < _FOLDS:
            raise UsageError(
                f"a prior takes {_FOLDS} photographs and {_FOLDS} fakes to calibrate on, near-duplicates "
                f"counted once; there are {n_real} and {n_fake}",
                hint="Leave prior out, or give more references.",
            )
        scores = cross_val_predict(
            clone(self).set_params(prior=None),
            x[seen],
            fake,
            groups=groups,
            cv=StratifiedGroupKFold(_FOLDS),
            method="decision_function",
            params=told,
        )
        return fit_likelihood_ratio(scores[fake], scores[~fake], units=(n_fake, n_real))

    def kneighbors(self, X: ArrayLike, n_neighbors: int = 10) -> dict[Label, tuple[Float32, Int64]]:
        """The evidence: each bank's nearest references, or all of them where it has fewer.

        By ``"real"`` and ``"fake"`` : cosines, float32 (n, k), largest first, and positions in the X that was
        fitted on, int64 (n, k). A zero row, which has no neighbours, is a ``VectorError``.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float32, reset=False)
        found = {label: bank.search(x, n_neighbors) for label, bank in self._banks.items()}
        return {label: (near.similarities, self.positions_[near.row_ids]) for label, near in found.items()}

    def _learn(self, rows: Rows) -> None:
        if self.method not in METHODS:
            known = ", ".join(METHODS)
            raise UsageError(f"there is no vote {self.method!r}", hint=f"Choose one of {known}.")
        self.codes_: Float16 = rows.vectors[_LAYER].astype(np.float16)
        self.positions_, self.fake_ = rows.row_ids, rows.fake
        self.log_weights_ = np.empty(len(rows))
        for of in (rows.fake, ~rows.fake):
            self.log_weights_[of] = reference_weights(
                rows.names[of], rows.row_ids[of], groups=rows.groups[of]
            )
        self._banks = self._opened()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_banks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "codes_" in state:
            self._banks = self._opened()

    def _opened(self) -> dict[Label, Bank]:
        """FAISS indexes are made from the codes, here and wherever the estimator is copied to."""
        files = BankFiles(None, Identity(_LAYER, self.codes_.shape[1]))
        rows = {label: np.flatnonzero(self.fake_ == (label == "fake")) for label in LABELS}
        shards = {label: ShardVectors(label, of, self.codes_[of]) for label, of in rows.items()}
        return {label: Bank.open([shard], label=label, files=files) for label, shard in shards.items()}

    def _scores(self, x: Float32) -> Float64:
        k = DEFAULT_K[self.method] if self.k is None else self.k
        fake, real = (self._nearest(self._banks[label], x, k) for label in ("fake", "real"))
        return vote(fake, real, method=self.method, k=k, temperature=self.temperature).scores

    def _nearest(self, bank: Bank, x: Float32, k: int) -> NearestImages:
        near = bank.search(x, k)
        return NearestImages(
            similarities=near.similarities.astype(np.float64),
            log_weights=self.log_weights_[near.row_ids],
            names=np.zeros_like(near.row_ids),
            row_ids=near.row_ids,
            n=np.full(len(x), near.row_ids.shape[1]),
            n_bank=bank.n,
        )


class PrototypeClassifier(_Detector):
    """Every generator and source as one distribution on the sphere: ``rd train prototype``.

    Parameters
    ----------
    family : ``gaussian`` or ``vmf`` (von Mises-Fisher).
    prior : how many images the mean of all generators counts for.
    shrinkage : of the covariance (gaussian); 0 is Ledoit and Wolf's.
    concentration : of every direction (vmf); 0 is estimated.

    Attributes
    ----------
    classes_ : (2,), photographs' and fakes'.
    head_ : the fitted ``heads.prototype.PrototypeHead``, where formulas and sources are.
    """

    def __init__(
        self,
        family: str = "gaussian",
        prior: float = 5.0,
        *,
        shrinkage: float = 0.0,
        concentration: float = 0.0,
    ) -> None:
        self.family = family
        self.prior = prior
        self.shrinkage = shrinkage
        self.concentration = concentration

    def _learn(self, rows: Rows) -> None:
        head = PrototypeHead(layer=_LAYER, **self.get_params())
        check_options(head)
        self.head_ = head.fit(rows)

    def _scores(self, x: Float32) -> Float64:
        return self.head_.decision_function({_LAYER: _stored(x)})


class PhotographWhitening(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """z = unit(C^-1/2 (x − μ)), μ and C = (1 − g) S + g tr(S)/d I of photographs: design §9's ``whiten``.

    Directions in which photographs vary least count most. C^-1/2 is symmetric, so that coordinate i of z is
    coordinate i of x, rid of what the others say of it.

    Parameters
    ----------
    shrinkage : g, ``"ledoit-wolf"`` or a number from 0 to 1; to choose it, search over it with generators
        and sources held out (``LeaveOneGroupOut``).

    Attributes
    ----------
    projection_ : the fitted ``search.projection.Affine``; its facts hold g.
    """

    def __init__(self, shrinkage: str | float = LEDOIT_WOLF) -> None:
        self.shrinkage = shrinkage

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Learn from the rows of the class that sorts first, photographs; without y, from all rows."""
        wanted = str(parse_shrinkage(str(self.shrinkage), words=(LEDOIT_WOLF,)))
        x = validate_data(self, X, dtype=np.float32, ensure_min_samples=2, ensure_min_features=2)
        photographs = x
        if y is not None:
            kinds, codes = np.unique(_column(y, len(x)), return_inverse=True)
            _refuse_words(kinds)
            photographs = x[codes == 0]
        rows = _training_set(unit_rows(_stored(photographs)), np.zeros(len(photographs), bool))
        self.projection_ = fit_projection("whiten", rows, layers=[_LAYER], shrinkage=wanted)
        return self

    def transform(self, X: ArrayLike) -> Float32:
        """The vectors whitened, float32 (n, d), unit norm; one that is μ itself is a ``VectorError``."""
        check_is_fitted(self)
        return self.projection_.apply(_stored(validate_data(self, X, dtype=np.float32, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


# ---------------------------------------------------------------- scikit-learn's arrays as rd's


def _refuse_words(classes: NDArray[Any]) -> None:
    if str(classes[0]) == "fake":
        raise UsageError(
            "'fake' is the class of y that sorts first, which stands for photographs",
            hint="Give 0 for photographs and 1 for fakes.",
        )


def _stored(x: Float32) -> Float32:
    """Rows as an index stores them, float32 (n, d): at unit norm, rounded to float16; zero stays zero."""
    stored, seen = np.zeros_like(x), x.any(axis=1)
    stored[seen] = query_codes(x[seen], Identity(_LAYER, x.shape[1]))
    return stored


def _column(values: ArrayLike, n: int) -> NDArray[Any]:
    column: NDArray[Any] = column_or_1d(values)
    check_consistent_length(column, np.empty(n))
    return column


def _training_set(
    stored: Float32, fake: Bool, *, names: ArrayLike | None = None, groups: ArrayLike | None = None
) -> Rows:
    """All rows but those that are zero."""
    n = len(stored)
    known: dict[str, Any] = {} if names is None else {"names": _column(names, n).astype(str)}
    if groups is not None:
        known["groups"] = np.unique(_column(groups, n), return_inverse=True)[1].astype(np.int64)
    rows = Rows.of(
        vectors={_LAYER: stored},
        norms={_LAYER: np.ones(n, np.float32)},
        fake=fake,
        row_ids=np.arange(n),
        **known,
    )
    return rows.take(np.flatnonzero(stored.any(axis=1)))
