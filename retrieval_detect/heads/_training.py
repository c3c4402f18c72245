"""Training by gradient descent on stored vectors: one loop for every head with a text tower."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from retrieval_detect.errors import EncoderMismatch, UsageError
from retrieval_detect.heads.base import Head, Progress, option, quiet, require_both
from retrieval_detect.heads.stopping import descend, finite, parted, recalibrated_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from retrieval_detect.encoders.text import TextTower
    from retrieval_detect.types import Float32, Int64
    from retrieval_detect.vectors import Rows

BASE_BATCH = 32
MOST_SCALING = 32.0
WARM = 1 / 200
MOMENTUM, DECAY = 0.9, 5e-4
FEWEST_STEPS = 8


class Trainable(Protocol):
    """What is trained: parameters, and the logits that follow from them."""

    parameters: Sequence[Tensor]

    def logits(self, x: Tensor) -> Tensor:
        """float32 (n, d) → float32 (n, classes); class 0 is real, every other one a kind of fake."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the head keeps of it."""


@dataclass(eq=False)
class TextHead(Head):
    """Heads that classify by texts: cross-entropy over (real, …), by SGD with a cosine schedule.

    Rate, momentum, decay and warm-up (first epochs at 1/200 of the rate) are those of CoOp (Zhou et al. 2022,
    and its released configuration). The rate grows in proportion to the batch (Goyal et al. 2017, §2.1), but
    at most 32-fold. How many epochs is found on rows set aside, other generators as far as there are several:
    where their loss is least, once scores are recalibrated (Berta et al. 2025, "Rethinking Early Stopping").
    For rd calibrates later, and on an unseen generator CLIP's scale of 100 makes the plain loss rise from the
    first epoch, however well it ranks. Then all rows are trained on for as many epochs.
    """

    needs_text = True

    lr: float = option(0.002, "Learning rate at a batch of 32; grows with the batch.", low=1e-7, high=10.0)
    batch: int = option(4096, "Images a step, fewer where an epoch would have under 8 steps.", low=1)
    epochs: int = option(50, "Most epochs.", low=1)
    warmup: int = option(1, "First epochs, at 1/200 of the rate.", low=0)
    patience: int = option(5, "Epochs without a better loss on rows set aside; 0: train all epochs.", low=0)
    shots: int = option(0, "Images a class, drawn by the seed, for all epochs; 0 takes all.", low=0)

    @abstractmethod
    def _inputs(self, rows: Rows) -> Float32:
        """What it reads of the rows, float32 (n, d)."""

    @abstractmethod
    def _start(self, text: TextTower, classes: Sequence[str]) -> Trainable:
        """Untrained, for real and ``classes`` of fakes."""

    def _names(self, rows: Rows) -> NDArray[np.str_]:
        """Which class of fakes each row is of, text (n,); photographs' entries mean nothing."""
        return np.full(len(rows), "fake")

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:
        """See ``Head``."""
        require_both(rows)
        if self.shots:
            rows = rows.take(self._drawn(rows))
        x = self._inputs(rows)
        if text is None:
            raise UsageError(f"a head of kind {self.kind} cannot be fitted without the encoder's text tower")
        if text.d != x.shape[1]:
            raise EncoderMismatch(
                f"the text tower of {text.name} gives {text.d} dimensions, layer {self.layers[0]} has "
                f"{x.shape[1]}",
                hint="Texts and images are comparable at layer proj of one model only.",
            )
        until, trial = self._stopping(x, rows, text, progress=progress)
        model, examples = self._begin(x, rows, text)
        course = self._train(model, examples, until=until, progress=progress)
        self._learnt = model.arrays()
        self._course = {"classes": examples.classes, "rows": len(rows), "trial": trial, **course}
        return self

    def _begin(self, x: Float32, rows: Rows, text: TextTower) -> tuple[Trainable, Examples]:
        """An untrained model, and what it is trained on."""
        from torch import from_numpy

        found, codes = np.unique(self._names(rows)[rows.fake], return_inverse=True)
        y = np.zeros(len(rows), np.int64)
        y[rows.fake] = codes + 1
        classes = [str(name) for name in found]
        examples = Examples(from_numpy(x).to(text.device), from_numpy(y).to(text.device), classes)
        return self._start(text, classes), examples

    # ------------------------------------------------------------ which rows, how long

    def _drawn(self, rows: Rows) -> Int64:
        """Positions of ``shots`` rows a class, no two of one group; of all groups where there are fewer."""
        rng = np.random.default_rng(self.seed)
        _, codes = np.unique(np.where(rows.fake, self._names(rows), ""), return_inverse=True)
        codes = codes + rows.fake * (codes.max() + 1)  # an unnamed fake is no photograph
        taken = []
        for code in np.unique(codes):
            order = rng.permutation(np.flatnonzero(codes == code))
            _, first = np.unique(rows.groups[order], return_index=True)
            taken.append(order[np.sort(first)][: self.shots])
        return np.sort(np.concatenate(taken))

    def _stopping(
        self, x: Float32, rows: Rows, text: TextTower, *, progress: Progress
    ) -> tuple[int, dict[str, Any]]:
        """After how many epochs detection of the rows set aside was best, and the course of that trial."""
        from torch import from_numpy, no_grad

        parts = parted(rows, seed=self.seed)
        if self.shots or not self.patience or parts is None:
            return self.epochs, {}
        fit, stop = parts
        model, examples = self._begin(x[fit], rows.take(fit), text)
        aside, fake = from_numpy(x[stop]).to(examples.x.device), rows.fake[stop]

        def held_out() -> float:
            with no_grad():
                logits = model.logits(aside)
                odds = logits[:, 1:].logsumexp(dim=1) - logits[:, 0]
            return recalibrated_loss(odds.double().cpu().numpy(), fake)

        course = self._train(model, examples, until=self.epochs, held_out=held_out, progress=progress)
        return 1 + self._best(course["held_out"]), course

    # ------------------------------------------------------------ the loop

    def _train(
        self,
        model: Trainable,
        examples: Examples,
        *,
        until: int,
        progress: Progress,
        held_out: Callable[[], float] | None = None,
    ) -> dict[str, Any]:
        """Train for ``until`` epochs, or till ``held_out`` has not fallen for ``patience``; the losses."""
        import torch
        from torch.nn.functional import cross_entropy

        draw = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.SGD(model.parameters, lr=self.lr, momentum=MOMENTUM, weight_decay=DECAY)
        steps = self._steps(len(examples.y))
        losses: list[float] = []
        aside: list[float] = []
        for epoch in range(until):
            total = 0.0
            for step, chosen in enumerate(
                torch.randperm(len(examples.y), generator=draw).tensor_split(steps)
            ):
                optimizer.param_groups[0]["lr"] = self._rate(epoch + step / steps, len(examples.y) / steps)
                of = chosen.to(examples.y.device)
                loss = cross_entropy(model.logits(examples.x[of]), examples.y[of])
                total += descend(optimizer, loss) * len(of)
            losses.append(finite(total / len(examples.y), epoch))
            if held_out is not None:
                aside.append(finite(held_out(), epoch))
            told = f"loss {losses[-1]:.4f}"
            progress(
                f"trial, epoch {epoch + 1} of at most {self.epochs}: {told}, held out {aside[-1]:.4f}"
                if aside
                else f"epoch {epoch + 1} of {until}: {told}"
            )
            if aside and epoch - self._best(aside) >= self.patience:
                break
        return {"losses": losses} | ({"held_out": aside} if aside else {})

    def _best(self, aside: Sequence[float]) -> int:
        """Epoch of the least loss, from 0; not one of the warm-up, in which next to nothing is learnt."""
        first = min(self.warmup, len(aside) - 1)
        return first + int(np.argmin(aside[first:]))

    def _steps(self, n: int) -> int:
        """Steps an epoch over ``n`` rows."""
        batch = min(self.batch, max(BASE_BATCH, math.ceil(n / FEWEST_STEPS)))
        return math.ceil(n / batch)

    def _rate(self, time: float, batch: float) -> float:
        """Learning rate after ``time`` epochs."""
        top = self.lr * min(batch / BASE_BATCH, MOST_SCALING)
        if time < self.warmup:
            return top * WARM
        done = (time - self.warmup) / (self.epochs - self.warmup)
        return top * (1 + math.cos(math.pi * done)) / 2


# ---------------------------------------------------------------- examples


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """``x`` : float32 (n, d); ``y`` : int64 (n,), 0 for real, 1 + c for ``classes[c]``."""

    x: Tensor
    y: Tensor
    classes: list[str]
