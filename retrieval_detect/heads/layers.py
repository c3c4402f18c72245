"""``layers``: what each block of the network has seen, weighed by trained importance (RINE)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.base import Head, Progress, checked, option, quiet, require_both
from retrieval_detect.heads.stopping import split_for_stopping

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from retrieval_detect.store.training import TrainingSet
    from retrieval_detect.types import Float32

    Float64 = NDArray[np.float64]
    Parameters = Mapping[str, Tensor]

TEMPERATURE = 0.07
_SCORED_AT_ONCE = 4096


@dataclass(eq=False)
class LayersHead(Head):
    """RINE: Koutlis & Papadopoulos 2024, "Leveraging Representations from Intermediate Encoder-blocks", §3.

    Each layer's vector is normalised (no affine part, as the published network reads the output of a
    layer norm) and mapped to ``width`` dimensions; a softmax over layers weighs every dimension; a
    small network scores the sum. Loss: cross-entropy summed over the batch + ``xi`` · supervised
    contrastive loss (Khosla et al. 2020, equation 2) of the weighed sum. The published first map is
    shared; here each layer has its own, for layers of different widths. Both labels weigh the same.
    """

    kind: ClassVar[str] = "layers"

    layers_read: str = option("", "Layers to read, separated by commas; empty: all that are stored.")
    xi: float = option(0.2, "Weight of the contrastive loss.", low=0.0)
    width: int = option(1024, "Dimensions each layer is mapped to.", low=1)
    depth: int = option(2, "Maps before and after the layers are weighed.", low=1)
    dropout: float = option(0.5, "Share of activations dropped in training.", low=0.0, high=0.95)
    epochs: int = option(30, "Epochs at most; training stops when held-out rows gain no more.", low=1)
    patience: int = option(5, "Epochs without gain before it stops.", low=1)
    lr: float = option(1e-3, "Learning rate (Adam).", low=0.0)
    batch: int = option(128, "References a step.", low=2)

    def __post_init__(self) -> None:
        self._layers: tuple[str, ...] = ()
        self._state: dict[str, Float32] = {}
        self._course: dict[str, Any] = {}

    @property
    def layers(self) -> tuple[str, ...]:
        """Those it was fitted on; before that, those asked for."""
        return self._layers or tuple(name.strip() for name in self.layers_read.split(",") if name.strip())

    def fit(self, rows: TrainingSet, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
        """See ``Head.fit``; stops on other generators and sources than it learns from."""
        import torch

        layers = self.layers or tuple(rows.vectors)
        missing = [layer for layer in layers if layer not in rows.vectors]
        if missing or not layers:
            raise UsageError(
                f"layer {missing[0]!r} was not given" if missing else "there is no layer to read",
                hint=f"Given: {', '.join(rows.vectors)}",
            )
        require_both(rows)
        inputs = [torch.from_numpy(rows.as_encoded(layer)) for layer in layers]
        fit, stop = _parts(rows, self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            parameters = self._new(inputs)
            course = self._train(parameters, (inputs, torch.from_numpy(rows.fake)), (fit, stop), progress)
        self._state = {name: value.detach().numpy() for name, value in parameters.items()}
        self._layers, self._course = layers, course
        return self

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """Logit of n images, float64 (n,), positive = fake."""
        import torch

        if not self._state:
            raise UsageError("this head has not been trained", hint="Train it: rd train layers --name NAME")
        widths = [self._state[f"first{i}.weight"].shape[1] for i in range(len(self._layers))]
        inputs = [
            torch.from_numpy(checked(vectors, layer, d))
            for layer, d in zip(self._layers, widths, strict=True)
        ]
        parameters = {name: torch.from_numpy(array) for name, array in self._state.items()}
        with torch.inference_mode():
            chunks = zip(*(torch.split(x, _SCORED_AT_ONCE) for x in inputs), strict=True)
            scores = [forward(parameters, chunk)[0].double().numpy() for chunk in chunks]
        return np.concatenate([np.empty(0), *scores])

    def importance(self) -> dict[str, float]:
        """Layer → its weight, averaged over dimensions; they add up to 1."""
        raw = self._state["importance"].astype(np.float64)
        weights = np.exp(raw - raw.max(axis=0))
        shares = (weights / weights.sum(axis=0)).mean(axis=1)
        return dict(zip(self._layers, shares.tolist(), strict=True))

    # ------------------------------------------------------------ training

    def _new(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        from torch import nn, randn

        shapes = {f"first{i}": (x.shape[1], self.width) for i, x in enumerate(inputs)}
        names = [f"each{i}" for i in range(1, self.depth)] + [f"joint{i}" for i in range(self.depth)]
        shapes |= dict.fromkeys([*names, "head0", "head1"], (self.width, self.width))
        shapes["head2"] = (self.width, 1)
        parameters: dict[str, Tensor] = {"importance": randn(len(inputs), self.width).requires_grad_()}
        for name, shape in shapes.items():
            linear = nn.Linear(*shape)
            parameters |= {f"{name}.weight": linear.weight, f"{name}.bias": linear.bias}
        return parameters

    def _train(
        self,
        parameters: dict[str, Tensor],
        data: tuple[list[Tensor], Tensor],
        parts: tuple[Tensor, Tensor],
        progress: Progress,
    ) -> dict[str, Any]:
        """Leave ``parameters`` as they were when the rows set aside were told apart best."""
        import torch

        (inputs, fake), (fit, stop) = data, parts
        weights = _balanced(fake[fit])
        optimiser = torch.optim.Adam(parameters.values(), lr=self.lr)
        losses: list[float] = []
        held_out: list[float] = []
        best = {name: value.detach().clone() for name, value in parameters.items()}
        for epoch in range(1, self.epochs + 1):
            total = 0.0
            for batch in torch.split(torch.randperm(len(fit)), self.batch):
                rows = fit[batch]
                loss = self._loss(parameters, [x[rows] for x in inputs], fake[rows], weights[batch])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                total += loss.item()
            if not np.isfinite(total):
                raise UsageError(f"training diverged in epoch {epoch}", hint=f"Set lr below {self.lr:g}.")
            losses.append(total / len(fit))
            held_out.append(_held_out(parameters, inputs, fake, stop))
            progress(f"epoch {epoch}: loss {losses[-1]:.4f}, held out {held_out[-1]:.4f}")
            if np.argmin(held_out) == epoch - 1 or not len(stop):
                best = {name: value.detach().clone() for name, value in parameters.items()}
            elif epoch - 1 - int(np.argmin(held_out)) >= self.patience:
                break
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(best[name])
        chosen = int(np.argmin(held_out)) + 1 if len(stop) else len(losses)
        return {"epochs_run": len(losses), "epoch": chosen, "losses": losses, "held_out": held_out}

    def _loss(self, parameters: Parameters, inputs: list[Tensor], fake: Tensor, weights: Tensor) -> Tensor:
        from torch.nn import functional

        scores, z = forward(parameters, inputs, lambda x: functional.dropout(x, self.dropout))
        entropy = functional.binary_cross_entropy_with_logits(
            scores, fake.float(), weight=weights, reduction="sum"
        )
        return entropy + self.xi * contrastive(functional.normalize(z), fake)

    # ------------------------------------------------------------ files

    def state(self) -> dict[str, NDArray[Any]]:
        """Maps, float32 (out, in), and ``importance``, float32 (layers, width), before the softmax."""
        return dict(self._state)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See ``Head.restore``."""
        width = state["importance"].shape[1]
        if state["head2.weight"].shape != (1, width) or not all(np.isfinite(a).all() for a in state.values()):
            raise ValueError("the arrays of this head do not fit together")
        self._state = {name: np.array(array, dtype=np.float32) for name, array in state.items()}

    def facts(self) -> dict[str, Any]:
        """Layers in their order, the importance of each, epochs and losses."""
        return {"layers": list(self._layers), "importance": self.importance(), **self._course}

    def restore_facts(self, facts: Mapping[str, Any]) -> None:
        """See ``Head.restore_facts``."""
        self._layers = tuple(facts["layers"])
        if len(self._layers) != len(self._state["importance"]):
            raise ValueError("the arrays of this head are for another number of layers")
        self._course = {name: facts[name] for name in ("epochs_run", "epoch", "losses", "held_out")}


def _same(x: Tensor) -> Tensor:
    return x


def forward(
    parameters: Parameters, inputs: Any, drop: Callable[[Tensor], Tensor] = _same
) -> tuple[Tensor, Tensor]:
    """(score, z) : (n,) and (n, width), from one (n, d) a layer; z is what is held contrastive."""
    from torch import softmax, stack
    from torch.nn import functional

    def through(x: Tensor, kind: str, start: int = 0) -> Tensor:
        number = start
        while f"{kind}{number}.weight" in parameters and not (kind == "head" and number == 2):
            x = drop(relu(x, f"{kind}{number}"))
            number += 1
        return x

    def relu(x: Tensor, name: str) -> Tensor:
        return functional.relu(functional.linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"]))

    each = [
        drop(relu(drop(functional.layer_norm(x, x.shape[1:])), f"first{i}")) for i, x in enumerate(inputs)
    ]
    mapped = through(stack(each), "each", 1)
    z = through(drop((softmax(parameters["importance"], 0)[:, None] * mapped).sum(0)), "joint")
    last = through(z, "head")
    return functional.linear(last, parameters["head2.weight"], parameters["head2.bias"])[:, 0], z


def contrastive(z: Tensor, fake: Tensor) -> Tensor:
    """Supervised contrastive loss, a mean over the batch. ``z`` : (n, d), unit norm; ``fake`` : bool (n,)."""
    import torch

    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similar = (z @ z.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    log_share = (similar - similar.logsumexp(1, keepdim=True)).masked_fill(itself, 0)
    positives = ((fake[:, None] == fake[None]) & ~itself).float()
    # An image alone of its label in the batch has nothing to be near to.
    return -((positives * log_share).sum(1) / positives.sum(1).clamp(min=1)).mean()


def _parts(rows: TrainingSet, seed: int) -> tuple[Tensor, Tensor]:
    """Positions to fit on and to stop by; none to stop by where the rows cannot be parted."""
    import torch

    fit, stop = split_for_stopping(rows, seed=seed)
    if any(len(np.unique(rows.fake[part])) < 2 for part in (fit, stop)):
        fit, stop = np.ones(len(rows), bool), np.zeros(len(rows), bool)
    return torch.from_numpy(np.flatnonzero(fit)), torch.from_numpy(np.flatnonzero(stop))


def _balanced(fake: Tensor) -> Tensor:
    """Weights, mean 1, that give both labels the same sum."""
    share = fake.float().mean()
    return fake.float() / (2 * share) + (~fake).float() / (2 * (1 - share))


def _held_out(parameters: Parameters, inputs: list[Tensor], fake: Tensor, stop: Tensor) -> float:
    import torch
    from torch.nn import functional

    if not len(stop):
        return 0.0
    with torch.no_grad():
        scores = torch.cat(
            [forward(parameters, [x[rows] for x in inputs])[0] for rows in torch.split(stop, _SCORED_AT_ONCE)]
        )
        labels = fake[stop]
        return functional.binary_cross_entropy_with_logits(
            scores, labels.float(), weight=_balanced(labels)
        ).item()
