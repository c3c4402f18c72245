"""``layers``: what each block of the network has seen, weighed by trained importance (RINE)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from retrieval_detect.errors import UsageError
from retrieval_detect.heads.base import Head, Progress, checked, option, quiet, require_both
from retrieval_detect.heads.stopping import descend, parted, recalibrated_loss, train_to_the_best

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from retrieval_detect.types import Float32, Float64
    from retrieval_detect.vectors import Rows

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

    @property
    def layers(self) -> tuple[str, ...]:
        """Those it was fitted on; before that, those asked for."""
        asked = tuple(name.strip() for name in self.layers_read.split(",") if name.strip())
        return tuple(self._course.get("layers", asked))

    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:  # noqa: ARG002
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
        everything = np.ones(len(rows), bool)
        fit, stop = parted(rows, seed=self.seed) or (everything, ~everything)
        fitted_on: list[Tensor] = []
        set_aside: list[Tensor] = []
        for layer in layers:
            x = torch.from_numpy(rows.as_encoded(layer))
            fitted_on.append(x[fit])
            set_aside.append(x[stop])
        fake = torch.from_numpy(rows.fake)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            parameters = self._new(fitted_on)
            course = self._train(parameters, (fitted_on, fake[fit]), (set_aside, fake[stop]), progress)
        self._learnt = {name: value.detach().numpy() for name, value in parameters.items()}
        self._course = {"layers": list(layers)}
        self._course |= {"importance": self.importance(), **course}
        return self

    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """Logit of n images, float64 (n,), positive = fake."""
        import torch

        n_layers = len(self.learnt("importance"))
        widths = [self.learnt(f"first{i}.weight").shape[1] for i in range(n_layers)]
        inputs = [
            torch.from_numpy(checked(vectors, layer, d)) for layer, d in zip(self.layers, widths, strict=True)
        ]
        parameters = {name: torch.from_numpy(array) for name, array in self.state().items()}
        with torch.inference_mode():
            scores = [forward(parameters, chunk)[0].double().numpy() for chunk in _chunks(inputs)]
        return np.concatenate([np.empty(0), *scores])

    def importance(self) -> dict[str, float]:
        """Layer → its weight, averaged over dimensions; they add up to 1."""
        raw = self.learnt("importance").astype(np.float64)
        weights = np.exp(raw - raw.max(axis=0))
        shares = (weights / weights.sum(axis=0)).mean(axis=1)
        return dict(zip(self.layers, shares.tolist(), strict=True))

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
        fit: tuple[list[Tensor], Tensor],
        stop: tuple[list[Tensor], Tensor],
        progress: Progress,
    ) -> dict[str, Any]:
        import torch

        (inputs, fake), weights = fit, _balanced(fit[1])
        optimiser = torch.optim.Adam(parameters.values(), lr=self.lr)

        def epoch() -> float:
            total = 0.0
            for rows in torch.split(torch.randperm(len(fake)), self.batch):
                loss = self._loss(parameters, [x[rows] for x in inputs], fake[rows], weights[rows])
                total += descend(optimiser, loss)
            return total / len(fake)

        def held_out() -> float:
            with torch.no_grad():
                scores = torch.cat([forward(parameters, chunk)[0] for chunk in _chunks(stop[0])])
            return recalibrated_loss(scores.double().numpy(), stop[1].numpy())

        return train_to_the_best(
            parameters,
            epoch,
            held_out if len(stop[1]) else None,
            epochs=self.epochs,
            patience=self.patience,
            progress=progress,
        )

    def _loss(self, parameters: Parameters, inputs: list[Tensor], fake: Tensor, weights: Tensor) -> Tensor:
        from torch.nn import functional

        scores, z = forward(parameters, inputs, lambda x: functional.dropout(x, self.dropout))
        entropy = functional.binary_cross_entropy_with_logits(
            scores, fake.float(), weight=weights, reduction="sum"
        )
        return entropy + self.xi * contrastive(functional.normalize(z), fake)

    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        right = state["head2.weight"].shape == (1, state["importance"].shape[1])
        return right and all(array.dtype == np.float32 for array in state.values())

    def restore_facts(self, facts: Mapping[str, Any]) -> None:
        """See ``Head.restore_facts``."""
        if len(facts["layers"]) != len(self.learnt("importance")):
            raise ValueError("the arrays of this head are for another number of layers")
        super().restore_facts(facts)


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


def _chunks(inputs: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Some thousand images at a time: one (n, d) a layer."""
    import torch

    return zip(*(torch.split(x, _SCORED_AT_ONCE) for x in inputs), strict=True)


def _balanced(fake: Tensor) -> Tensor:
    """Weights, mean 1, that give both labels the same sum."""
    share = fake.float().mean()
    return fake.float() / (2 * share) + (~fake).float() / (2 * (1 - share))
