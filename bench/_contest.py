"""What takes part in the table of methods: votes through projections, heads, ensembles, rivals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._nested import nearest
from retrieval_detect.errors import UsageError
from retrieval_detect.heads.layers import LayersHead
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.heads.prototype import PrototypeHead
from retrieval_detect.heads.svm import SvmHead
from retrieval_detect.projections.registry import KINDS, fit_projection
from retrieval_detect.scoring.vote import DEFAULT_K, vote

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench._nested import Fold, World
    from retrieval_detect.heads.base import Head
    from retrieval_detect.search.projection import Affine
    from retrieval_detect.types import Float32, Method
    from retrieval_detect.vectors import Rows

    Scores = NDArray[np.float64]
    Mask = NDArray[np.bool_]

ALL_ROWS = 10**9


@dataclass(frozen=True)
class VoteEntry:
    """A vote through a projection. ``eligible`` : may become the default."""

    name: str
    layers: tuple[str, ...]
    kind: str
    method: Method = "density"
    k: int | None = None
    temperature: float = 0.2
    options: Mapping[str, Any] = field(default_factory=dict)
    eligible: bool = True
    plain_weights: bool = False

    @property
    def map(self) -> tuple[Any, ...]:
        """What tells its projection from others."""
        return self.kind, self.layers, tuple(sorted(self.options.items()))


@dataclass(frozen=True)
class HeadEntry:
    """A head, trained anew whenever references are added."""

    name: str
    make: Callable[[], Head]
    eligible: bool = True
    inner: bool = True


Entry = VoteEntry | HeadEntry


def entries(layers: Iterable[str]) -> list[Entry]:
    """Everything in the table, for an encoder that gives these layers."""
    blocks, pre, heads = _kinds(layers)
    found = [*_BARE, *_votes(*_read(blocks)), *_within(blocks), *_heads(blocks)]
    found += [HeadEntry("svm, pre", SvmHead)] * bool(pre)
    return found + [_density("heads", _late(heads), t) for t in (0.1, 0.2) if heads]


def layers_of(layers: Iterable[str]) -> tuple[str, ...]:
    """The layers that these read."""
    blocks, pre, heads = _kinds(layers)
    read = [*_read(blocks), *_inside(blocks), *_late(blocks), *pre, *_late(heads)]
    return (*dict.fromkeys(read), "proj")


def _kinds(layers: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Blocks, what lies before CLIP's projection, and heads, in the network's order."""
    given = list(layers)
    blocks, pre, heads = (
        [layer for layer in given if layer.startswith(kind)] for kind in ("block", "pre", "heads")
    )
    return blocks, pre, heads


def _read(blocks: Sequence[str]) -> tuple[str, str]:
    """A block three quarters up, and the last."""
    return blocks[round(0.75 * len(blocks)) - 1], blocks[-1]


def _inside(blocks: Sequence[str]) -> tuple[str, str, str]:
    """A block half way up, one three quarters up, and the last but one."""
    return blocks[round(0.5 * len(blocks)) - 1], _read(blocks)[0], blocks[-2]


def _late(blocks: Sequence[str]) -> Sequence[str]:
    """The last two fifths and what lies before them, as ``layers`` reads them."""
    return tuple(blocks[max(0, round(0.6 * len(blocks)) - 1) :])


_ONE = ("proj",)
_BARE: tuple[Entry, ...] = (
    VoteEntry("k-NN, last layer, k=5", _ONE, "identity", "mean", 5, eligible=False),
    VoteEntry("majority, last layer, k=9", _ONE, "identity", "majority", 9, eligible=False),
    VoteEntry("density, last layer, T=0.1", _ONE, "identity", temperature=0.1, eligible=False),
)
_CENTRED = "1"
"""Shrinkage at which whitening only takes the mean of the photographs away."""
_GRID = {"0.2": (0.1, 0.2), "0.5": (0.05, 0.1, 0.2), "0.8": (0.1, 0.2)}


def _votes(earlier: str, last: str) -> Iterator[Entry]:
    two, three = (last, "proj"), (earlier, last, "proj")
    for layers in (_ONE, (last,), two, three):
        for g, temperatures in _GRID.items():
            yield from (_density("whiten", layers, t, shrinkage=g) for t in temperatures)
    for layers in (_ONE, two):
        yield _density("whiten", layers, 0.1, k=ALL_ROWS, shrinkage="0.5")
        yield _density("whiten", layers, None, shrinkage="0.5")
        yield from (_density("nullspace", layers, t) for t in (0.1, 0.2))
        yield _density("nullspace", layers, 0.1, directions=32)
        yield _density("nullspace", layers, 0.1, directions=32, trusted=5)
        yield from (_density("lda", layers, t) for t in (0.1, 0.2))
    yield from (_density("identity", layers, t) for layers in (_ONE, (last,)) for t in (0.02, 0.05, 0.2))
    for layers in (_ONE, (earlier,)):
        yield from (_density("whiten", layers, t, shrinkage=_CENTRED) for t in (0.05, 0.1, 0.2))
    yield from (_density("concat", layers, t) for layers in (two, three) for t in (0.05, 0.1))
    yield _density("nca", _ONE, 0.1)
    yield from (_density("mask", _ONE, t) for t in (0.1, 0.2))


def _within(blocks: Sequence[str]) -> Iterator[Entry]:
    """What is read inside the network, where a CLIP keeps more of how an image was made (RINE)."""
    half, later, late = _inside(blocks)
    sets = ((half,), (later,), (later, "proj"), (later, late), (half, later), (half, later, late))
    for layers in sets:
        yield from (_density("whiten", layers, t, shrinkage="0.5") for t in (0.05, 0.1))
        yield from (_density("nullspace", layers, 0.1, directions=d) for d in (8, 32))


def _density(
    kind: str, layers: tuple[str, ...], temperature: float | None, *, k: int | None = None, **options: Any
) -> VoteEntry:
    """The density vote, or without a temperature the mean of nine."""
    said = "".join(f", {name}={value}" for name, value in options.items())
    vote = (
        "mean k=9" if temperature is None else f"density{' of all rows' * (k is not None)}, T={temperature:g}"
    )
    name = f"{vote}: {kind} {'+'.join(layers)}{said}"
    if temperature is None:
        return VoteEntry(name, layers, kind, "mean", 9, options=options)
    return VoteEntry(name, layers, kind, k=k, temperature=temperature, options=options)


def _heads(blocks: Sequence[str]) -> Iterator[Entry]:
    yield HeadEntry("logistic regression (linear)", LinearHead)
    yield HeadEntry(
        "logistic regression, standardised, unbalanced", lambda: LinearHead(balanced=False), eligible=False
    )
    yield HeadEntry("linear, UFD's optimiser", lambda: LinearHead(optimizer="adamw"), inner=False)
    yield HeadEntry("svm", lambda: SvmHead(layer="proj"))
    yield HeadEntry("prototype, gaussian", PrototypeHead)
    yield HeadEntry("prototype, gaussian, shrinkage=0.5", lambda: PrototypeHead(shrinkage=0.5))
    yield HeadEntry("prototype, vMF", lambda: PrototypeHead(family="vmf"))
    rine = {"layers_read": ",".join([*_late(blocks), "proj"]), "epochs": 5, "width": 256}
    yield HeadEntry("layers (RINE)", lambda: LayersHead(**rine), inner=False)


# ---------------------------------------------------------------- one fold


class Contest:
    """Scores of all entries in one fold.

    Projections are fitted as an index has them: anew with what is taught where that is cheap, else once, on
    the references known before.
    """

    def __init__(self, world: World, fold: Fold) -> None:
        self._world, self._fold = world, fold
        self._maps: dict[Any, Float32] = {}

    def scores(self, entry: Entry, references: Mask, asked: Mask) -> Scores:
        """float64 (number ``asked``,), positive = fake. ``references`` : who votes or trains."""
        if isinstance(entry, HeadEntry):
            return self._head(entry, references, asked)
        z = self._projected(entry, references)
        fake = self._world.rows.fake
        wanted = entry.k or DEFAULT_K["density"]
        sides = [
            nearest(self._world, z, references & (fake == label), asked, wanted=wanted)
            for label in (True, False)
        ]
        k = max(side.n_bank for side in sides) if entry.k == ALL_ROWS else entry.k
        return vote(*sides, method=entry.method, k=k, temperature=entry.temperature).scores

    def _projected(self, entry: VoteEntry, references: Mask) -> Float32:
        rows, fitting = self._world.rows, KINDS[entry.kind](**entry.options)
        chosen = references if fitting.cheap else self._fold.known
        seen = chosen & np.isin(rows.fake, [label == "fake" for label in fitting.labels])
        key = (entry.map, seen.tobytes())
        if key not in self._maps:
            self._maps[key] = self._fitted(entry, chosen).apply(
                np.concatenate([rows.vectors[layer] for layer in entry.layers], axis=1)
            )
        return self._maps[key]

    def _fitted(self, entry: VoteEntry, chosen: Mask) -> Affine:
        how = {"layers": entry.layers, **entry.options}
        try:
            return fit_projection(entry.kind, self._world.rows.take(chosen), **how)
        except UsageError:  # lda, of a generator with one image: an index keeps what it has
            return fit_projection(entry.kind, self._world.rows.take(self._fold.known), **how)

    def _head(self, entry: HeadEntry, references: Mask, asked: Mask) -> Scores:
        rows = self._world.rows
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            head = entry.make()
            head.fit(_narrow(rows, head).take(references))
        queries = _narrow(rows, head).take(asked)
        return head.decision_function({layer: queries.as_encoded(layer) for layer in head.layers})


def _narrow(rows: Rows, head: Head) -> Rows:
    from dataclasses import replace

    layers = head.layers or tuple(rows.vectors)
    return replace(
        rows, vectors={k: rows.vectors[k] for k in layers}, norms={k: rows.norms[k] for k in layers}
    )
