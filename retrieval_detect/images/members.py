"""Members of archives: their names, of which none leads out, and how much one of them may unpack to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from retrieval_detect.images.captions import written_beside
from retrieval_detect.images.items import failed_item, inner_item, is_image_name, suffix_of
from retrieval_detect.images.passed import left_out
from retrieval_detect.names import printable
from retrieval_detect.types import ImageItem

_TIMES, _AT_LEAST_BYTES = 100, 64 << 20


def most_unpacked(packed_bytes: int) -> int:
    """How many bytes are taken out of so many packed ones: more than images ever need, and no bomb."""
    return max(_AT_LEAST_BYTES, _TIMES * packed_bytes)


def parts_of(name: str) -> list[str]:
    """The parts of a member's name, without those that lead up or out; none if it is no name."""
    return [part for part in name.split("/") if part not in ("", ".", "..")]


def passed_as(parts: list[str]) -> str:
    """As what a member is passed over: by a name on its way, or by its suffix; empty if it is an image."""
    *folders, name = parts
    by_name = [f"{kind}/" for folder in folders if (kind := left_out(folder))] + [left_out(name)]
    suffix = "" if is_image_name(name) else suffix_of(name) or "no suffix"
    return next(filter(None, [*by_name, suffix]), "")


def member_item(
    container: Path,
    name: str,
    folder: str,
    read: Callable[[], bytes],
    beside: Callable[[str], bytes | None],
) -> ImageItem:
    """The item of a member; ``folder`` : what goes before its name; ``beside`` : the bytes of another."""
    written = partial(written_beside, name, beside)
    return inner_item(container, "/".join(parts_of(name)), folder, read, written)


def failed_member(container: Path, name: str, message: str) -> ImageItem:
    """An item whose ``read`` says why a member is none."""
    return failed_item(f"{container}::{'/'.join(parts_of(name)) or name}", printable(message))


def nameless(container: Path, name: str) -> ImageItem:
    """An item for a member whose name is only dots and slashes."""
    return failed_member(container, name, f"a member of the archive is called '{name}', which is no name")
