"""``quality``: how good people would find an image, learnt from (image, score) pairs (CLIP-AGIQA)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.base import PROJ, Head, Progress, checked, encoded, normalised, option, quiet
from retrieval_detect.heads.stopping import descend, split_for_stopping, train_to_the_best

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.types import Float32, Float64
    from retrieval_detect.vectors import Rows

    Parameters = Mapping[str, Tensor]

CATEGORIES = ("terrible", "bad", "poor", "average", "good", "perfect")
HIDDEN = 512
FEWEST = 10
_CONTEXT_SPREAD = 0.02
_MOMENTUM, _DECAY = 0.9, 5e-4


class _Prompts(NamedTuple):
    """The text around the context: ``before`` (6, 1, width), ``after`` (6, …, width), ``ends`` (6,)."""

    text: TextTower
    before: Tensor
    after: Tensor
    ends: Tensor

    def features(self, context: Tensor) -> Tensor:
        """Unit features of the six categories, (6, d), differentiable in ``context``, (m, width)."""
        from torch import cat
        from torch.nn import functional

        learned = context.to(self.before.device).expand(len(self.before), -1, -1)
        words = cat([self.before, learned, self.after], dim=1)
        return functional.normalize(self.text.features(words, self.ends)).to(context.device)


@dataclass(eq=False)
class QualityHead(Head):
    """CLIP-AGIQA: Tang et al. 2024, §3, trained by ``fit_scores`` on scores that people gave.

    The unit embedding of the image and the unit text features of six categories ("… terrible." to
    "… perfect."), whose 16 context tokens are learned, stand side by side: 7 d numbers → 512 → quality.
    Squared error, SGD with momentum 0.9 and decay 5e-4, cosine schedule. Scores are standardised while it
    trains, so that the published rate suits every scale; what it returns is on the scale it was given.
    The best epoch on held-out rows is kept. The text features are the same for every image.
    """

    kind: ClassVar[str] = "quality"
    needs_text: ClassVar[bool] = True

    context: int = option(16, "Learned context tokens.", low=1, high=64)
    dropout: float = option(0.5, "Share of activations dropped in training.", low=0.0, high=0.95)
    epochs: int = option(100, "Epochs.", low=1)
    lr: float = option(0.002, "Learning rate at the start (SGD, cosine).", low=0.0)
    batch: int = option(32, "Images a step.", low=1)

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
        """Refused: labels say nothing of quality."""
        raise UsageError(
            "a quality head is trained on scores, not on labels",
            hint="Give a file of scores: rd train quality --scores FILE",
        )

    def fit_scores(
        self, rows: Rows, scores: Float32, *, text: TextTower | None, progress: Progress = quiet
    ) -> Self:
        """Train on ``rows`` and return itself.

        ``scores`` : float32 (n,), one a row, any scale, higher = better. ``text`` : the encoder's own.
        """
        import torch

        x, targets = self._checked(rows, scores)
        if text is None or text.d != x.shape[1]:
            raise UsageError(
                "a quality head needs the text tower of the encoder that made the vectors",
                hint="Use an index of a CLIP model that has one, such as ViT-B-16:openai.",
            )
        fit, stop = split_for_stopping(rows, seed=self.seed)
        if min(fit.sum(), stop.sum()) < 2 or not np.ptp(targets[fit]):
            fit, stop = np.ones(len(x), bool), np.zeros(len(x), bool)
        centre, spread = float(targets[fit].mean()), float(targets[fit].std())
        standard = torch.from_numpy(((targets - centre) / spread).astype(np.float32))
        vectors = torch.from_numpy(x)
        # Training uses the global generator for dropout; the caller's must not move.
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            prompts = self._prompts(text)
            parameters = self._new(text)
            self._course = self._train(
                parameters, prompts, (vectors[fit], standard[fit]), (vectors[stop], standard[stop]), progress
            )
        with torch.no_grad():
            learnt = {**parameters, "text": prompts.features(parameters["context"])}
        self._learnt = {name: value.detach().cpu().numpy() for name, value in learnt.items()}
        self._learnt["scale"] = np.array([centre, spread], np.float32)
        return self

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """Predicted quality of n images, float64 (n,), on the scale of the scores it was given.

        Higher = better. This is no score in rd's sense: it has no sign and says nothing of fake or real.
        """
        import torch

        x = normalised(checked(vectors, PROJ, self.learnt("text").shape[1]))
        parameters = {name: torch.from_numpy(array) for name, array in self.state().items()}
        with torch.inference_mode():
            predicted = regress(parameters, torch.from_numpy(x), parameters["text"], dropout=0.0)
        centre, spread = self.learnt("scale").astype(np.float64)
        quality: Float64 = centre + spread * predicted.double().numpy()
        return quality

    # ------------------------------------------------------------ training

    def _checked(self, rows: Rows, scores: Float32) -> tuple[Float32, Float64]:
        targets = np.asarray(scores, dtype=np.float64)
        if targets.shape != (len(rows),) or not np.isfinite(targets).all():
            raise UsageError(f"{len(rows)} images need {len(rows)} finite scores, not {targets.shape}")
        if len(targets) < FEWEST or not np.ptp(targets):
            raise UsageError(
                f"{len(targets)} scores with {len(np.unique(targets))} different values teach no quality",
                hint=f"Give at least {FEWEST} images, good and bad ones.",
            )
        x = encoded(rows, PROJ)
        if not np.ptp(x, axis=0).any():
            raise UsageError(f"all vectors of layer {PROJ} are equal: there is nothing to learn")
        return normalised(x), targets

    def _prompts(self, text: TextTower) -> _Prompts:
        """Room is made behind the first token by moving the words back."""
        import torch

        tokens = text.tokens([f"{category}." for category in CATEGORIES])
        ends, room = text.ends(tokens), text.context_length
        pooled_at_end = int(ends.max()) == room - 1
        if self.context >= room - 1 or (not pooled_at_end and int(ends.max()) + self.context >= room):
            raise UsageError(
                f"{self.context} context tokens do not fit into a text of {room} tokens",
                hint=f"Set a smaller context, at most {max(room - 1 - int(ends.max()), 0)}.",
            )
        # Where a text ends is asked of the moved tokens: some towers read out at a fixed place.
        filler = tokens[:, 1:2].expand(-1, self.context)
        moved = torch.cat([tokens[:, :1], filler, tokens[:, 1 : room - self.context]], dim=1)
        embedded = text.embed(tokens).detach()
        return _Prompts(text, embedded[:, :1], embedded[:, 1 : room - self.context], text.ends(moved))

    def _new(self, text: TextTower) -> dict[str, Tensor]:
        import torch
        from torch import nn

        context = torch.randn(self.context, text.width) * _CONTEXT_SPREAD
        hidden, last = nn.Linear((1 + len(CATEGORIES)) * text.d, HIDDEN), nn.Linear(HIDDEN, 1)
        return {
            "context": context.requires_grad_(),
            "hidden.weight": hidden.weight,
            "hidden.bias": hidden.bias,
            "last.weight": last.weight,
            "last.bias": last.bias,
        }

    def _train(
        self,
        parameters: dict[str, Tensor],
        prompts: _Prompts,
        fit: tuple[Tensor, Tensor],
        stop: tuple[Tensor, Tensor],
        progress: Progress,
    ) -> dict[str, Any]:
        """See ``facts``: there, ``srcc`` is Spearman's correlation on the rows set aside.

        They also chose the epoch, so it is a little too good; ``None`` where it has no meaning.
        """
        import torch
        from scipy.stats import spearmanr
        from torch.nn.functional import mse_loss

        optimiser = torch.optim.SGD(parameters.values(), self.lr, _MOMENTUM, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs)

        def predicted(x: Tensor, dropout: float) -> Tensor:
            return regress(parameters, x, prompts.features(parameters["context"]), dropout=dropout)

        def epoch() -> float:
            x, targets = fit
            total = 0.0
            for rows in torch.split(torch.randperm(len(x)), self.batch):
                loss = mse_loss(predicted(x[rows], self.dropout), targets[rows])
                total += descend(optimiser, loss) * len(rows)
            schedule.step()
            return total / len(x)

        @torch.no_grad()
        def held_out() -> float:
            return mse_loss(predicted(stop[0], 0.0), stop[1]).item()

        course = train_to_the_best(
            parameters,
            epoch,
            held_out if len(stop[0]) else None,
            epochs=self.epochs,
            patience=self.epochs,
            progress=progress,
        )
        srcc = None
        if len(stop[0]):
            with torch.no_grad():
                found, wanted = predicted(stop[0], 0.0).numpy(), stop[1].numpy()
            srcc = float(spearmanr(found, wanted).statistic) if np.ptp(found) and np.ptp(wanted) else None
        kept = {name: course[name] for name in ("epoch", "losses")}
        return {**kept, "srcc": srcc, "n_held_out": len(stop[0])}

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        n, d = state["text"].shape
        right = n == len(CATEGORIES) and state["hidden.weight"].shape == (HIDDEN, (1 + n) * d)
        return right and all(array.dtype == np.float32 for array in state.values())


def regress(parameters: Parameters, x: Tensor, features: Tensor, *, dropout: float) -> Tensor:
    """Standardised quality, (n,). ``x`` : (n, d) and ``features`` : (6, d), unit norm."""
    from torch import cat
    from torch.nn.functional import dropout as drop
    from torch.nn.functional import linear, relu

    side_by_side = cat([x, features.flatten().expand(len(x), -1)], dim=1)
    hidden = relu(linear(drop(side_by_side, dropout), parameters["hidden.weight"], parameters["hidden.bias"]))
    return linear(drop(hidden, dropout), parameters["last.weight"], parameters["last.bias"])[:, 0]
