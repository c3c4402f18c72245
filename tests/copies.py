"""Pictures with the detail of photographs, and the forms in which copies of a picture go around."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def detailed(seed: int, *, side: int = 128) -> Image.Image:
    """Structure at every scale that a perceptual hash looks at, as photographs have it."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return cells.resize((side, side), Image.Resampling.BICUBIC)


def copies(original: Image.Image) -> Iterator[bytes]:
    """Recompressed, smaller, and larger in another format."""
    width, height = original.size
    yield saved(original, "JPEG", quality=75)
    yield saved(original.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS), "PNG")
    yield saved(
        original.resize((width * 3 // 2, height * 3 // 2), Image.Resampling.BICUBIC), "WEBP", quality=85
    )
