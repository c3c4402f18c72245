"""What an encoder is: pixels in, one vector per layer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from retrieval_detect.types import EncoderSpec, Float32, UInt8


@runtime_checkable
class Encoder(Protocol):
    """Image → vectors. Third parties register theirs as entry point ``retrieval_detect.encoders``.

    ``testing.check_encoder`` checks everything promised here.
    """

    @property
    def spec(self) -> EncoderSpec:
        """Hard and soft facts; constant for the life of the object."""

    def prepare(self, rgb: UInt8) -> UInt8:
        """Resize and crop one image.

        ``rgb`` : uint8 (height, width, 3), C order. Returns uint8 (size, size, 3), C order. Pure
        and called from several threads at once; computes at most a small multiple of ``size``²
        output pixels, whatever the aspect ratio.
        """

    def encode(self, batch: UInt8, layers: Sequence[str]) -> Mapping[str, Float32]:
        """One forward pass for all layers.

        ``batch`` : uint8 (n, size, size, 3) as ``prepare`` returns it, n >= 1. Returns, for each
        of ``layers``, float32 (n, d), finite, NOT unit norm. Row i depends on image i alone (to
        rounding). Raises ``UsageError`` for a layer not in ``spec.layers``.
        """


def require_layers(spec: EncoderSpec, layers: Sequence[str]) -> None:
    """Raise ``UsageError`` if the encoder cannot give one of ``layers``, or none is named."""
    missing = [layer for layer in layers if layer not in spec.layers]
    if missing or not layers:
        raise UsageError(
            f"{spec.name} has no layer {', '.join(missing) or '(none named)'}",
            hint=f"It has: {', '.join(spec.layers)}",
        )


def default_layers(spec: EncoderSpec) -> tuple[str, ...]:
    """What a new index stores of each image: ``proj``, and of a CLIP transformer a block three quarters up.

    ``proj`` tells near-duplicates, subjects and coverage; how an image was made shows better in the
    middle of a CLIP transformer (Koutlis and Papadopoulos 2024, RINE; ``bench.methods``), so that is what
    the projection of a new index reads. Networks that are not read at a class token have ``proj`` alone.
    """
    blocks = [layer for layer in spec.layers if layer.startswith("block")]
    if not spec.is_clip or "heads01" not in spec.layers:
        return ("proj",)
    return "proj", blocks[round(0.75 * len(blocks)) - 1]


def check_call(spec: EncoderSpec, batch: UInt8, layers: Sequence[str]) -> None:
    """Raise ``UsageError`` unless ``encode`` of an encoder with this spec can be called so."""
    size = spec.preprocessing.size
    require_layers(spec, layers)
    if batch.dtype != "uint8" or batch.shape[1:] != (size, size, 3) or not len(batch):
        raise UsageError(
            f"encoder {spec.name} takes uint8 (n, {size}, {size}, 3), not {batch.dtype} {batch.shape}",
            hint="Pass each image through prepare() and stack the results.",
        )
