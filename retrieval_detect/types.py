"""The nouns of rd: frozen records and array aliases. Nothing here runs, reads or imports numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float64: TypeAlias = NDArray[np.float64]
    Float32: TypeAlias = NDArray[np.float32]
    Float16: TypeAlias = NDArray[np.float16]
    Int64: TypeAlias = NDArray[np.int64]
    UInt64: TypeAlias = NDArray[np.uint64]
    UInt8: TypeAlias = NDArray[np.uint8]
    Bool: TypeAlias = NDArray[np.bool_]

Label: TypeAlias = Literal["real", "fake"]
Split: TypeAlias = Literal["bank", "calib"]
Method: TypeAlias = Literal["density", "nearest", "mean", "majority"]

LABELS: tuple[Label, Label] = ("real", "fake")
SPLITS: tuple[Split, Split] = ("bank", "calib")
METHODS: tuple[Method, ...] = ("density", "nearest", "mean", "majority")
ORIGINAL_VIEW = "original"
VIEW_KINDS: tuple[str, ...] = ("jpeg", "webp", "avif", "resize", "crop", "blur", "screenshot", "crops")
"""Laundered copies that can be stored beside a reference; see ``images.laundering``."""
SCHEMA = 2
"""Of verdicts and failures as JSON. Schema 1 had no reach, and is closed; its text is shipped as well."""
UNNAMED = ""
"""Generator or source of a reference for which none was given."""

NEAR_HAMMING = 6
NEAR_COSINE = 0.95
"""Two images are near-duplicates if they are the same bytes, or if their perceptual hashes differ in
at most ``NEAR_HAMMING`` of 64 bits and their vectors' cosine is at least ``NEAR_COSINE``."""


def quiet(_: object) -> None:
    """Nobody is told how far long work has come."""


# ---------------------------------------------------------------- images


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One input that has not been read yet.

    ``uri`` names it for people and reports; ``read()`` returns the file's bytes (at most once per
    call, from any thread) and raises ``ImageError`` or ``OSError``; ``relative`` is its path below
    the folder, archive or table that was scanned, with ``/`` between parts. ``decode`` : how its bytes
    become pixels where not by ``images.decode`` in this process; raises ``ImageError``. ``facts`` : what they
    say of themselves, where that is asked. ``thumbnail`` : the pixels as a small file, where one is to be
    kept. ``written`` : what is written beside it, by fields of ``Facts``; read when it is asked for.
    """

    uri: str
    read: Callable[[], bytes]
    relative: str = ""
    decode: Callable[[bytes], DecodedImage] | None = None
    facts: Callable[[bytes], Provenance] | None = None
    thumbnail: Callable[[UInt8], bytes] | None = None
    written: Callable[[], Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """Pixels and what was found on the way.

    ``rgb`` : uint8 (height, width, 3), C order, upright, alpha composited. ``notes`` are stable
    codes of what was done to get there, e.g. ``("exif-rotated", "alpha-on-white")``.
    """

    rgb: UInt8
    width: int
    height: int
    format: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be used, and why: a value in bulk work, an exception when single."""

    uri: str
    reason: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: how it stands among verdicts."""
        return {"schema": SCHEMA, "input": self.uri, "error": self.reason, "message": self.message}


# ---------------------------------------------------------------- encoders


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Pixels → network input. Part of the hard fingerprint.

    ``mode`` : ``"clip"`` resizes the shorter side to ``size`` and crops the centre; ``"crop"``
    crops the centre without resizing, as UniversalFakeDetect tests (§4 of its validate code);
    ``"squash"`` resizes both sides to ``size``, as SigLIP and its like were trained.
    ``mean`` and ``std`` are per channel, for pixels scaled to 0…1.
    """

    mode: Literal["clip", "crop", "squash"]
    size: int
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Which encoder made the vectors.

    Hard facts (another value = another encoder, never mixed): ``architecture``,
    ``weights_sha256`` (of the weights file's bytes), ``quick_gelu``, ``preprocessing``. Soft facts
    (the engine; may change if the canary images still agree): ``precision``, ``device``, ``decoder``,
    ``runtime``. ``layers`` maps each layer the encoder can give to its dimension. ``is_clip`` and
    ``note`` are what people are told about it.
    """

    name: str
    architecture: str
    weights_sha256: str
    quick_gelu: bool
    preprocessing: Preprocessing
    layers: Mapping[str, int]
    precision: str = "float32"
    device: str = "cpu"
    decoder: str = "pillow"
    runtime: str = "torch"
    is_clip: bool = False
    note: str = ""

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over the canonical JSON of the hard facts."""
        hard = {
            "architecture": self.architecture,
            "weights_sha256": self.weights_sha256,
            "quick_gelu": self.quick_gelu,
            "preprocessing": asdict(self.preprocessing),
        }
        text = json.dumps(hard, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def engine(self) -> str:
        """The soft facts in one word, e.g. ``"cpu-bfloat16-pillow"``; torch, who runs most, is not named."""
        facts = f"{self.device.split(':')[0]}-{self.precision}-{self.decoder}"
        return facts if self.runtime == "torch" else f"{facts}-{self.runtime}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads them back to an equal spec."""
        return asdict(self) | {"layers": dict(self.layers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EncoderSpec:
        """Inverse of ``to_json``; raises ``KeyError`` or ``TypeError`` on foreign data."""
        pre = dict(data["preprocessing"])
        pre["mean"], pre["std"] = tuple(pre["mean"]), tuple(pre["std"])
        fields = dict(data) | {"preprocessing": Preprocessing(**pre), "layers": dict(data["layers"])}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something a file says about where it comes from.

    ``kind`` : where it stands (``"c2pa"``, ``"exif"``, ``"xmp"``, ``"iptc"``, ``"text"``). ``says`` and
    ``detail`` : in words, values of the file among them, so to be shown as hostile text. ``trusted`` :
    signed by somebody on a list of trusted signers; everything else can be forged by anybody.
    """

    kind: str
    says: str
    detail: str = ""
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says of itself: beside the score, never mixed into it. All values are plain JSON types.

    ``c2pa``, ``exif``, ``xmp``, ``iptc``, ``text`` : what was found there, ``None`` where nothing was.
    ``claims`` : what follows from it, the most telling first. ``damaged`` : what was there and could not
    be read.
    """

    c2pa: Mapping[str, Any] | None = None
    exif: Mapping[str, Any] | None = None
    xmp: Mapping[str, Any] | None = None
    text: Mapping[str, Any] | None = None
    claims: tuple[Claim, ...] = ()
    damaged: tuple[str, ...] = ()
    iptc: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """One image as vectors.

    ``content_id`` : sha256 of the file's bytes, 32 bytes. ``phash`` : 64-bit perceptual hash of the
    upright pixels. ``vectors[layer]`` : float32 (d,), as the network gives it (NOT unit norm).
    ``view`` : the laundered copy that the vectors are of; all else is the original's for every view.
    ``provenance`` : what the file says of itself; ``None`` where nobody asked. ``thumbnail`` : a small
    picture to keep, as a WebP file.
    """

    item: ImageItem
    content_id: bytes
    phash: int
    width: int
    height: int
    format: str
    vectors: Mapping[str, Float32]
    notes: tuple[str, ...] = ()
    view: str = ORIGINAL_VIEW
    provenance: Provenance | None = None
    thumbnail: bytes | None = None


# ---------------------------------------------------------------- references


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a reference besides its pixels. Empty text = not known.

    ``caption``, ``url`` : as they were written beside the image, shortened to one line; the others are names.
    """

    label: Label
    generator: str = UNNAMED
    source: str = UNNAMED
    category: str = ""
    pair_id: str = ""
    licence: str = ""
    contributor: str = ""
    batch: str = ""
    tags: str = ""
    caption: str = ""
    url: str = ""


class FactFields(TypedDict, total=False):
    """The fields of ``Facts`` as keyword arguments."""

    label: Required[Label]
    generator: str
    source: str
    category: str
    pair_id: str
    licence: str
    contributor: str
    batch: str
    tags: str
    caption: str
    url: str


# ---------------------------------------------------------------- neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Nearest references of one bank for ``q`` queries, best first, ordered by (-similarity, row id).

    ``row_ids`` : int64 (q, k); ``similarities`` : float32 (q, k), cosine. Where a bank has fewer
    than k rows, k is the bank's size: there is no padding.
    """

    row_ids: Int64
    similarities: Float32
