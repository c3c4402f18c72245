"""Laundered copies of an image: what happens to pictures on their way through the net, seeded and repeatable.

A view's name says all that was done, in whole numbers: ``jpeg-72``, ``resize-63``, ``crop-12-8-180-200``.
What is drawn by chance is drawn from a seed, normally of the content id, so that an image has the same views
whenever and wherever they are made.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from retrieval_detect.errors import UsageError
from retrieval_detect.types import ORIGINAL_VIEW

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

Box: TypeAlias = tuple[int, int, int, int]
"""x and y of the upper left corner, width, height; in pixels of the original."""

Chooser: TypeAlias = Callable[[bytes, int, int], Sequence[str]]
"""Content id, width and height of an image → its views, by name."""

CROPS = "crops"
MAX_CROPS = 9
"""Native-resolution crops an image, if not said otherwise."""
DRAWN_KINDS = ("jpeg", "webp", "resize", "crop", "screenshot")
"""What happens to pictures that people pass on."""

_WEBP_LONGEST = 16_383
"""WebP holds no longer side; larger images are reduced to it, as everyone has to who saves one."""


# ---------------------------------------------------------------- choosing


def stored_views(kinds: Sequence[str], *, crop_size: int, at_most: int = MAX_CROPS) -> Chooser:
    """Every image's original, one view of each of ``kinds``, and for ``crops`` all of ``crop_boxes``.

    ``crop_size`` : side of the encoder's input. Raises ``UsageError`` for a kind that there is not.
    """
    for kind in kinds:
        _require_known(kind)

    def choose(content_id: bytes, width: int, height: int) -> list[str]:
        names = [ORIGINAL_VIEW]
        for kind in kinds:
            if kind == CROPS:
                boxes = crop_boxes(width, height, crop_size, at_most=at_most)
                names += [step_name(CROPS, *box) for box in boxes]
            else:
                names.append(draw_view(kind, width, height, seed=seed_of(content_id)))
        return names

    return choose


def drawn_views(n: int, *, kinds: Sequence[str] = DRAWN_KINDS) -> Chooser:
    """Every image's original and ``n`` different launderings of it, of ``kinds`` in turn.

    Fewer where the kinds have not so many.
    """

    def choose(content_id: bytes, width: int, height: int) -> list[str]:
        drawn = [
            draw_view(kinds[number % len(kinds)], width, height, seed=seed_of(content_id, number))
            for number in range(8 * n)
        ]
        return [ORIGINAL_VIEW, *list(dict.fromkeys(drawn))[:n]]

    return choose


def seed_of(content_id: bytes, number: int = 0) -> int:
    """The seed of an image's ``number``-th draw."""
    return int.from_bytes(hashlib.sha256(content_id + number.to_bytes(4, "big")).digest()[:8], "big")


def draw_view(kind: str, width: int, height: int, *, seed: int) -> str:
    """The name of one view of an image of this size; equal seeds give equal names, for ever."""
    _require_known(kind)
    draw = VIEWS[kind].draw
    if draw is None:
        raise UsageError("crops are a grid, not drawn by chance", hint="Use crop_boxes().")
    return step_name(kind, *draw(uniforms(kind, seed), width, height))


def uniforms(kind: str, seed: int) -> list[float]:
    """Four numbers, 0 to below 1, for a draw of ``kind``; the same ones for ever."""
    chances = hashlib.sha256(f"retrieval-detect/view\0{kind}\0{seed}".encode()).digest()
    return [int.from_bytes(chances[i : i + 8], "big") / 2**64 for i in range(0, 32, 8)]


def between(uniform: float, low: int, high: int) -> int:
    """One of the whole numbers ``low`` to ``high``, both included."""
    return low + int(uniform * (high - low + 1))


def crop_boxes(width: int, height: int, size: int, *, at_most: int = MAX_CROPS) -> list[Box]:
    """A grid of ``size`` × ``size`` boxes from edge to edge, row by row.

    They cover the image if ``at_most`` of them can, overlapping evenly; of a larger image they are
    spread evenly, with gaps. A side shorter than ``size`` is taken whole.
    """
    columns, rows = ceil(width / size), ceil(height / size)
    while columns * rows > max(at_most, 1):
        columns, rows = (columns - 1, rows) if columns > rows else (columns, rows - 1)
    return [
        (x, y, min(size, width), min(size, height))
        for y in _starts(height, size, rows)
        for x in _starts(width, size, columns)
    ]


def _starts(length: int, size: int, n: int) -> list[int]:
    room = max(length - size, 0)
    return [room // 2] if n == 1 else [i * room // (n - 1) for i in range(n)]


# ---------------------------------------------------------------- doing


def render(rgb: UInt8, view: str) -> UInt8:
    """The view of an image that a name describes.

    ``rgb`` : uint8 (height, width, 3), C order. Returns uint8 (h, w, 3), C order, where h × w may
    differ; the image itself for ``"original"``. Raises ``UsageError`` for a name that is none.
    """
    if view == ORIGINAL_VIEW:
        return rgb
    kind, numbers = _parsed(view, VIEWS)
    return np.ascontiguousarray(VIEWS[kind].apply(np.ascontiguousarray(rgb), *numbers))


def require_step(step: str, known: Mapping[str, Step]) -> None:
    """Raise ``UsageError`` unless a name is of one of these, with numbers that make sense of some image."""
    kind, numbers = _parsed(step, known)
    most = known[kind].most
    if any(number > highest for number, highest in zip(numbers, most, strict=True)):
        raise UsageError(f"{step!r} goes too far", hint=f"The most is {step_name(kind, *most)}.")


def kind_of(view: str) -> str:
    """``"jpeg"`` of ``"jpeg-72"``."""
    return view.partition("-")[0]


def crop_box(view: str) -> Box:
    """Which part of the original a view of kind ``crop`` or ``crops`` shows."""
    kind, numbers = _parsed(view, VIEWS)
    if kind not in ("crop", CROPS):
        raise UsageError(f"view {view!r} is no crop")
    x, y, width, height = numbers
    return x, y, width, height


def step_name(kind: str, *numbers: int) -> str:
    """``jpeg-72`` of ``"jpeg", 72``."""
    return "-".join([kind, *map(str, numbers)])


def _parsed(step: str, known: Mapping[str, Step]) -> tuple[str, list[int]]:
    kind, *numbers = step.split("-")
    plain = all(n.isascii() and n.isdecimal() and len(n) <= 6 for n in numbers)
    if kind not in known or len(numbers) != len(known[kind].most) or not plain:
        raise UsageError(f"there is no view {step!r}", hint=f"Views are of: {', '.join(known)}")
    return kind, [int(n) for n in numbers]


def _require_known(kind: str) -> None:
    if kind not in VIEWS:
        raise UsageError(f"there is no view {kind!r}", hint=f"Views are of: {', '.join(VIEWS)}")


# ---------------------------------------------------------------- kinds


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to an image, uint8 (height, width, 3), by the numbers in its name.

    ``most`` : the highest of each number. ``draw`` : four uniform numbers, width, height → those numbers;
    ``None`` where they are not drawn so.
    """

    apply: Callable[..., UInt8]
    most: tuple[int, ...]
    draw: Callable[[Sequence[float], int, int], Sequence[int]] | None = None


def _draw_crop(uniforms: Sequence[float], width: int, height: int) -> Box:
    """70 to 95 % of the area, in the image's own proportions, anywhere."""
    side = sqrt(between(uniforms[0], 70, 95) / 100)
    w, h = max(1, round(side * width)), max(1, round(side * height))
    return between(uniforms[1], 0, width - w), between(uniforms[2], 0, height - h), w, h


def jpeg_bytes(rgb: UInt8, quality: int) -> bytes:
    """A JPEG file, colour at half the resolution as most programs store it."""
    import simplejpeg  # only such views need it: images are decoded without it too

    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, colorsubsampling="420")
    return data


def webp_bytes(rgb: UInt8, quality: int) -> bytes:
    """A WebP file, lossy."""
    image = Image.fromarray(rgb)
    image.thumbnail((_WEBP_LONGEST, _WEBP_LONGEST))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality)
    return file.getvalue()


def avif_bytes(rgb: UInt8, quality: int) -> bytes:
    """An AVIF file, lossy, colour at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "AVIF", quality=quality)
    return file.getvalue()


def _jpeg(rgb: UInt8, quality: int) -> UInt8:
    import simplejpeg

    decoded: UInt8 = simplejpeg.decode_jpeg(jpeg_bytes(rgb, quality))
    return decoded


def _webp(rgb: UInt8, quality: int) -> UInt8:
    return _decoded(webp_bytes(rgb, quality))


def _avif(rgb: UInt8, quality: int) -> UInt8:
    return _decoded(avif_bytes(rgb, quality))


def _decoded(file: bytes) -> UInt8:
    return np.array(Image.open(io.BytesIO(file)).convert("RGB"))


def _resize(rgb: UInt8, percent: int) -> UInt8:
    """Bicubic, with antialiasing; the image stays smaller, as a platform would serve it."""
    height, width = (max(1, round(side * percent / 100)) for side in rgb.shape[:2])
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def _crop(rgb: UInt8, x: int, y: int, width: int, height: int) -> UInt8:
    part = rgb[y : y + height, x : x + width]
    if part.shape[:2] != (height, width) or not part.size:
        raise UsageError(f"box {x},{y},{width},{height} is not within {rgb.shape[1]} × {rgb.shape[0]} pixels")
    return part


def _blur(rgb: UInt8, tenths: int) -> UInt8:
    """Gaussian, its deviation in tenths of a pixel."""
    return np.array(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(tenths / 10)))


def _screenshot(rgb: UInt8, percent: int, quality: int) -> UInt8:
    """Shown smaller on a screen, then saved as JPEG."""
    return _jpeg(_resize(rgb, percent), quality)


_ANYWHERE = (999_999,) * 4
VIEWS: Mapping[str, Step] = {
    "jpeg": Step(_jpeg, (100,), lambda u, _w, _h: [between(u[0], 50, 95)]),
    "webp": Step(_webp, (100,), lambda u, _w, _h: [between(u[0], 50, 95)]),
    # Of equal numbers, AVIF's throws away more than the others'.
    "avif": Step(_avif, (100,), lambda u, _w, _h: [between(u[0], 35, 85)]),
    "resize": Step(_resize, (200,), lambda u, _w, _h: [between(u[0], 50, 90)]),
    "crop": Step(_crop, _ANYWHERE, _draw_crop),
    # Up to 3 pixels, as the augmentation of CNNDetection (Wang et al. 2020) and UniversalFakeDetect.
    "blur": Step(_blur, (300,), lambda u, _w, _h: [between(u[0], 1, 30)]),
    "screenshot": Step(
        _screenshot, (200, 100), lambda u, _w, _h: [between(u[0], 50, 95), between(u[1], 70, 90)]
    ),
    CROPS: Step(_crop, _ANYWHERE),
}
"""Kind → what it does; qualities, percent, tenths of a pixel, boxes."""
