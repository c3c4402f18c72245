"""A linear support vector machine on unit vectors, from ten images a class up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from retrieval_detect.heads.base import Progress, encoded, normalised, option, quiet, require_both
from retrieval_detect.heads.linear import LinearScore, converging

if TYPE_CHECKING:
    from retrieval_detect.vectors import Rows

FEWEST = 10


@dataclass(eq=False)
class SvmHead(LinearScore):
    """Linear SVM on the L2-normalised vector before CLIP's projection; its score is the signed margin.

    Cozzolino, Poggi, Corvi, Nießner and Verdoliva 2024, "Raising the Bar of AI-generated Image Detection
    with CLIP", §3: ten pairs of images already teach it, thousands hardly more. It learns most from pairs of
    a photograph and a fake of the same content. Both classes count alike.
    """

    kind = "svm"
    cheap = True

    layer: str = option("pre", "Stored layer it reads.")
    c: float = option(1.0, "Inverse strength of the penalty.", low=1e-6, high=1e6)
    shots: int = option(0, "Images a class, drawn by the seed; 0 takes all, else at least 10.", low=0)

    @property
    def unit(self) -> bool:
        """Always."""
        return True

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
        """See ``Head``. Fewer than 10 references of a class, or than ``shots``, are a ``UsageError``."""
        from sklearn.svm import LinearSVC

        require_both(rows, at_least=max(FEWEST, self.shots))
        drawn = self._drawn(rows)
        x = normalised(encoded(drawn, self.layer))
        model = LinearSVC(C=self.c, class_weight="balanced", random_state=self.seed, max_iter=10_000)
        with converging():
            model.fit(x, drawn.fake)
        iterations = int(np.max(model.n_iter_))
        self._learnt = {
            "weight": model.coef_[0].astype(np.float32),
            "bias": model.intercept_.astype(np.float32),
        }
        self._course = {"rows": len(drawn), "converged": iterations < model.max_iter}
        return self

    def _drawn(self, rows: Rows) -> Rows:
        if not self.shots:
            return rows
        rng = np.random.default_rng(self.seed)
        of_label = (np.flatnonzero(rows.fake == label) for label in (False, True))
        return rows.take(
            np.sort(np.concatenate([rng.choice(of, self.shots, replace=False) for of in of_label]))
        )
