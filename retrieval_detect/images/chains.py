"""Chains: several launderings one after another, as pictures meet them, and the file that comes out.

A step is a view of ``images.laundering`` (``jpeg-72``), ``side-N`` (shorter side to N pixels), ``longest-N``
(longer side to N pixels, if it is longer) or one of ``images.perturbations`` (``noise-120-7``). Where
numbers are left out (``jpeg``), they are drawn from a seed; those of ``rine-blur`` from the content id alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from retrieval_detect.errors import UsageError
from retrieval_detect.images.laundering import (
    CROPS,
    VIEWS,
    avif_bytes,
    draw_view,
    jpeg_bytes,
    render,
    require_step,
    seed_of,
    webp_bytes,
)
from retrieval_detect.images.perturbations import DRAWN, PERTURBATIONS, drawn, require_perturbation
from retrieval_detect.types import VIEW_KINDS

if TYPE_CHECKING:
    from retrieval_detect.types import UInt8

Chain: TypeAlias = tuple[str, ...]
"""Steps, first to last."""

UNIFIED: Chain = ("side-256", "jpeg-96")
"""Both labels get one size and one compression, so that neither can tell them apart."""
SOCIAL: Chain = ("longest-1080", "jpeg-85", "jpeg-70")
"""Posted, and posted again."""
NAMED: dict[str, Chain] = {"unified": UNIFIED, "social": SOCIAL}

_SIZES = ("side", "longest")
_OTHER_SIZES = ("resize", "crop", "screenshot")
"""Views of another size than the image's."""
_LARGEST = 4096
"""Pixels that a side may be brought to."""
_SUFFIXES = {"jpeg": ".jpg", "screenshot": ".jpg", "webp": ".webp", "avif": ".avif"}


def parse_chain(text: str) -> Chain:
    """``resize-50+jpeg-72`` → its steps; ``social`` and ``unified`` are chains by name.

    Raises ``UsageError`` for a step that there is not.
    """
    chain = NAMED.get(text) or tuple(text.split("+"))
    for step in chain:
        _require(step)
    return chain


def _require(step: str) -> None:
    kind, _, number = step.partition("-")
    if kind in _SIZES:
        if not (number.isdecimal() and len(number) < 6 and 0 < int(number) <= _LARGEST):
            raise UsageError(f"{step!r} names no size", hint=f"Give pixels, 1 to {_LARGEST}: {kind}-256")
    elif kind in PERTURBATIONS:
        require_perturbation(step)
    elif kind == CROPS or (step not in VIEW_KINDS and "-" not in step):
        kinds = ", ".join(k for k in VIEW_KINDS if k != CROPS)
        raise UsageError(
            f"there is no laundering {step!r}",
            hint=f"Give {', '.join(NAMED)}, or steps joined by +: {kinds}, side-N, longest-N; "
            "with numbers (jpeg-72) or without (jpeg).",
        )
    elif step not in VIEW_KINDS:
        require_step(step, VIEWS)


def rendered(rgb: UInt8, chain: Sequence[str]) -> UInt8:
    """The image after all steps, uint8 (h, w, 3), C order; every step has its numbers."""
    for step in chain:
        kind, *numbers = step.split("-")
        if kind in _SIZES:
            size = rgb.shape[1], rgb.shape[0]
            if (wanted := _size_after(step, *size)) != size:
                rgb = np.array(Image.fromarray(rgb).resize(wanted, Image.Resampling.BICUBIC))
        elif kind in PERTURBATIONS:
            rgb = PERTURBATIONS[kind].apply(rgb, *map(int, numbers))
        else:
            rgb = render(rgb, step)
    return rgb


def _size_after(step: str, width: int, height: int) -> tuple[int, int]:
    """Width and height after ``side-N`` or ``longest-N``."""
    kind, _, number = step.partition("-")
    factor = int(number) / (min if kind == "side" else max)(width, height)
    if kind == "longest":
        factor = min(1.0, factor)
    return max(1, round(width * factor)), max(1, round(height * factor))


# ---------------------------------------------------------------- of one image


def with_numbers(chain: Chain, content_id: bytes, size: tuple[int, int]) -> Chain:
    """The chain with the numbers that are drawn for one image; no steps if nothing is done to it.

    ``size`` : the image's width and height. A kind of view without numbers is drawn as an index draws it that
    stores it (``stored_views``).
    """
    numbered: list[str] = []
    for step in chain:
        if step in VIEW_KINDS:
            numbered.append(draw_view(step, *size, seed=seed_of(content_id)))
        else:
            numbered += drawn(step, content_id) if step in DRAWN else (step,)
    return tuple(numbered)


def pruned(chain: Chain, content_id: bytes, size: tuple[int, int], *, base: Chain = ()) -> Chain:
    """``base``, then those steps of a chain that do anything to one image, drawn numbers left out.

    ``size`` : the image's width and height. Images equal before are equal after what is left, so that
    whoever keeps vectors by this chain makes none twice: ``longest-768`` does nothing to a small image.
    """
    now: tuple[int, int] | None = size
    kept: list[str] = []
    for number, step in enumerate(base + chain):
        kind = step.partition("-")[0]
        after = None if now is None or kind in _OTHER_SIZES else now
        if kind in _SIZES and now is not None:
            after = _size_after(step, *now)
        idle = (step in DRAWN and not drawn(step, content_id)) or (kind in _SIZES and after == now)
        if number < len(base) or not idle or after is None:
            kept.append(step)
            now = after
    return tuple(kept)


def suffix_of_file(chain: Chain) -> str:
    """The suffix of what ``laundered_file`` gives."""
    return _SUFFIXES.get(chain[-1].partition("-")[0], ".png")


def laundered_file(rgb: UInt8, chain: Chain, *, content_id: bytes, seed: int = 0) -> tuple[bytes, Chain]:
    """The image after all steps as a file, and the steps with the numbers that were drawn.

    The last compression is the file's own: decoded, it is ``rendered(rgb, steps)``. What ends without
    one is stored as PNG.
    """
    steps: list[str] = []
    for number, step in enumerate(chain):
        if step in VIEW_KINDS:
            height, width = rgb.shape[:2]
            drawn_from = seed_of(content_id + number.to_bytes(1, "big"), seed)
            step = draw_view(step, width, height, seed=drawn_from)  # noqa: PLW2901 - it has its numbers now
        steps.append(step)
        if number < len(chain) - 1:
            rgb = rendered(rgb, [step])
    return _encoded(rgb, steps[-1]), tuple(steps)


def _encoded(rgb: UInt8, step: str) -> bytes:
    kind, *numbers = step.split("-")
    if kind == "screenshot":
        return jpeg_bytes(render(rgb, f"resize-{numbers[0]}"), int(numbers[1]))
    if kind == "jpeg":
        return jpeg_bytes(rgb, int(numbers[0]))
    if kind == "webp":
        return webp_bytes(rgb, int(numbers[0]))
    if kind == "avif":
        return avif_bytes(rgb, int(numbers[0]))
    file = io.BytesIO()
    Image.fromarray(rendered(rgb, [step])).save(file, "PNG")
    return file.getvalue()
