"""An encoder that keeps what it computed: for small sets of images that are embedded again and again."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_detect.encoders.base import check_call
from retrieval_detect.files import sha256_bytes, user_cache, write_bytes

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder
    from retrieval_detect.types import EncoderSpec, Float32, UInt8


class RememberedEncoder:
    """``encoder``, asked once for each image and set of layers; satisfies ``encoders.base.Encoder``.

    Vectors lie in the user's cache, by the digest of the prepared pixels, one file for each encoder,
    engine and set of layers; it is read and written whole, so it is meant for hundreds of images. A file
    that cannot be read is made anew.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[str, ...], dict[str, Float32]] = {}

    @property
    def spec(self) -> EncoderSpec:
        """That of the encoder."""
        return self._encoder.spec

    def prepare(self, rgb: UInt8) -> UInt8:
        """As the encoder prepares it."""
        return self._encoder.prepare(rgb)

    def encode(self, batch: UInt8, layers: Sequence[str]) -> Mapping[str, Float32]:
        """uint8 (n, size, size, 3) → for each layer float32 (n, d), NOT unit norm."""
        check_call(self.spec, batch, layers)
        asked = tuple(layers)
        if asked not in self._known:
            self._known[asked] = self._read(asked)
        known = self._known[asked]
        keys = [sha256_bytes(image.tobytes()) for image in batch]
        new = {key: i for i, key in enumerate(keys) if key not in known}
        if new:
            vectors = self._encoder.encode(batch[list(new.values())], layers)
            side_by_side = np.concatenate([vectors[layer] for layer in asked], axis=1)
            known.update(zip(new, side_by_side, strict=True))
            self._write(asked)
        found = np.stack([known[key] for key in keys])
        ends = np.cumsum([self.spec.layers[layer] for layer in asked])[:-1]
        return dict(zip(asked, np.split(found, ends, axis=1), strict=True))

    def _path(self, layers: tuple[str, ...]) -> Path:
        what = sha256_bytes("\0".join((self.spec.fingerprint, self.spec.engine, *layers)).encode())
        return user_cache() / "remembered" / f"{what[:32]}.npz"

    def _read(self, layers: tuple[str, ...]) -> dict[str, Float32]:
        d = sum(self.spec.layers[layer] for layer in layers)
        try:
            with np.load(self._path(layers), allow_pickle=False) as kept:
                keys, vectors = kept["keys"], kept["vectors"]
        except (OSError, ValueError, KeyError, EOFError):
            return {}
        if keys.dtype != "<U64" or vectors.shape != (len(keys), d) or vectors.dtype != np.float32:
            return {}
        return dict(zip(keys.tolist(), vectors, strict=True))

    def _write(self, layers: tuple[str, ...]) -> None:
        known = self._known[layers]
        buffer = io.BytesIO()
        np.savez(buffer, keys=np.array([*known]), vectors=np.stack([*known.values()]))
        path = self._path(layers)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
