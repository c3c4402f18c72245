"""scikit-learn's own checks of everything that claims to be one of its estimators."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from retrieval_detect.sklearn import PhotographWhitening, PrototypeClassifier, RetrievalClassifier
from retrieval_detect.types import METHODS

ESTIMATORS = [
    *(RetrievalClassifier(method) for method in METHODS),
    *(PrototypeClassifier(family) for family in ("gaussian", "vmf")),
    PhotographWhitening(),
]


# Some checks are left out where pandas or the array API is missing, with a warning and a skip.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(ESTIMATORS)
def test_is_an_estimator(estimator, check):
    check(estimator)
