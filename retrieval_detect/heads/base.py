"""What a head is: fitted on stored vectors, gives one score an image, kept as safetensors and JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from retrieval_detect.errors import UsageError, VectorError
from retrieval_detect.options import option as option  # noqa: PLC0414 - heads import it from here
from retrieval_detect.types import UNNAMED
from retrieval_detect.types import quiet as quiet  # noqa: PLC0414

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.types import Float32, Float64
    from retrieval_detect.vectors import Rows

FORMAT = "retrieval-detect/head"
VERSION = 1
PROJ = "proj"

_NAMES_IN = {"prototype": "names", "caption": "classes"}
"""Which of a head's facts lists generators and sources, by its kind; the others keep no names."""

Progress = Callable[[str], None]
"""Told one short sentence an epoch."""


_FEW = 64
"""Rows that nearly always show that not all are equal."""


@dataclass(eq=False)
class Head(ABC):
    """One trainable function. Its dataclass fields are its hyper-parameters, given before ``fit``.

    Vectors come as the network gave them (float32 (n, d), NOT unit norm); a head that was published for
    unit vectors normalises them itself. Scores are logits where that has a meaning; positive = fake.
    """

    kind: ClassVar[str]
    """Its name in ``rd train KIND``."""
    needs_text: ClassVar[bool] = False
    """Whether fitting needs the encoder's text tower (``encoders.text.TextTower``)."""

    seed: int = option(0, "Seed of everything drawn at random.", low=0)

    def __post_init__(self) -> None:
        self._learnt: dict[str, NDArray[Any]] = {}
        self._course: dict[str, Any] = {}

    @property
    def cheap(self) -> bool:
        """Whether it is refitted in passing when references are added."""
        return False

    @property
    def members(self) -> tuple[str, ...]:
        """Methods whose scores it combines; none = it reads vectors."""
        return ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The stored layers it reads: that of its option ``layer``, or ``proj``, in which texts lie, too."""
        return (getattr(self, "layer", PROJ),)

    @abstractmethod
    def fit(self, rows: Rows, *, text: Any = None, progress: Progress = quiet) -> Self:
        """Train on ``rows`` and return itself.

        ``text`` : the encoder's text tower, for kinds that ``needs_text``. Raises ``UsageError`` where
        the rows cannot teach it (one class only, too few, all equal) and leaves nothing half-done.
        """

    @abstractmethod
    def decision_function(self, vectors: Mapping[str, Float32]) -> Float64:
        """Score of n images, float64 (n,), positive = fake.

        ``vectors`` : layer → float32 (n, d), as the network gave them.
        """

    def attribution(self, vectors: Mapping[str, Float32]) -> tuple[list[str], Float64] | None:  # noqa: ARG002
        """Names of generators, and the share of each should an image be a fake of one of them.

        float64 (n, generators), rows sum to 1; ``None`` : this kind tells no generators apart.
        """
        return None

    # ------------------------------------------------------------ what was learnt

    def learnt(self, name: str) -> NDArray[Any]:
        """One of the arrays that ``fit`` found; ``UsageError`` before it."""
        if not self._learnt:
            raise UsageError("this head was not fitted", hint="Call fit, or read one from its files.")
        return self._learnt[name]

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as named arrays."""
        return dict(self._learnt)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of ``state``; raises ``KeyError`` or ``ValueError`` on foreign arrays."""
        if not self._fits(state) or not all(np.isfinite(array).all() for array in state.values()):
            raise ValueError(f"the arrays of this {self.kind} head do not fit together, or one is not finite")
        self._learnt = {name: np.array(array) for name, array in state.items()}

    @abstractmethod
    def _fits(self, state: Mapping[str, NDArray[Any]]) -> bool:
        """Whether arrays are of the shapes and types that this kind learns."""

    def facts(self) -> dict[str, Any]:
        """What else must be kept, as plain JSON types: names of classes, epochs run, losses."""
        return dict(self._course)

    def restore_facts(self, facts: Mapping[str, Any]) -> None:
        """Inverse of ``facts``; raises ``ValueError`` where they do not fit the arrays, restored before."""
        self._course = dict(facts)

    # ------------------------------------------------------------ files

    def to_files(self, **about: Any) -> dict[str, bytes]:
        """Suffix → bytes. ``about`` : what the index knows of it (encoder fingerprint, rows digest)."""
        from safetensors.numpy import save

        document = {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "options": asdict(self),
            "facts": self.facts(),
            "about": about,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in self.state().items()}
        return {"safetensors": save(arrays), "json": json.dumps(document, sort_keys=True, indent=1).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Inverse of ``to_files``; raises ``KeyError``, ``TypeError`` or ``ValueError`` on foreign data."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        document = json.loads(files["json"])
        if (document["format"], document["version"], document["kind"]) != (FORMAT, VERSION, cls.kind):
            raise ValueError(f"this is no {cls.kind} head of version {VERSION}")
        known = {f.name for f in fields(cls)}
        head = cls(**{name: value for name, value in document["options"].items() if name in known})
        try:
            head.restore(load(files["safetensors"]))
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        head.restore_facts(document["facts"])
        return head


def unnamed(document: bytes, names: Collection[str]) -> bytes:
    """A head's JSON file, in which generators and sources that are not among ``names`` have none any more."""
    body = json.loads(document)
    key = _NAMES_IN.get(body["kind"], "")
    listed = body["facts"].get(key, [])
    bare = [name if name in names else UNNAMED for name in listed]
    if bare == listed:
        return document
    return json.dumps(body | {"facts": body["facts"] | {key: bare}}, sort_keys=True, indent=1).encode()


def checked(vectors: Mapping[str, Float32], layer: str, d: int) -> Float32:
    """One layer's vectors, float32 (n, d); a ``VectorError`` where they cannot be scored."""
    if layer not in vectors:
        raise VectorError(f"this head reads layer {layer!r}, which was not given")
    x = np.asarray(vectors[layer], dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != d:
        raise VectorError(
            f"this head takes vectors of {d} dimensions, not {x.shape[-1]}",
            hint="It was trained for another encoder.",
        )
    if not np.isfinite(x).all():
        raise VectorError("a vector is not finite", hint="Embed this image again.")
    return x


def encoded(rows: Rows, layer: str) -> Float32:
    """One layer of the rows as the network gave it, float32 (n, d), NOT unit norm."""
    if layer not in rows.vectors:
        raise UsageError(f"layer {layer!r} is not among the vectors to train on")
    x = rows.as_encoded(layer)
    return checked({layer: x}, layer, x.shape[1])


def normalised(x: Float32) -> Float32:
    """Rows at unit norm, float32 (n, d); a ``VectorError`` for a zero row."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise VectorError("a vector is zero", hint="Embed this image again.")
    unit: Float32 = x / norms
    return unit


def require_both(rows: Rows, *, at_least: int = 2) -> None:
    """Raise ``UsageError`` unless there are enough different references of both labels."""
    for label, n in (("fake", int(rows.fake.sum())), ("real", int((~rows.fake).sum()))):
        if n < at_least:
            raise UsageError(
                f"{n or 'no'} {label} reference{'s' * (n != 1)} to train on, {at_least} of each are needed",
                hint=f"Add references: rd bank add DIR --label {label}",
            )
    for layer, x in rows.vectors.items():
        if not np.isfinite(x).all():
            raise VectorError(f"a stored vector of layer {layer} is not finite", hint="See: rd index verify")
        if not ((x[:_FEW] != x[0]).any() or (x != x[0]).any()):
            raise UsageError(f"all vectors of layer {layer} are equal: there is nothing to learn")
