"""Laundered copies of many images: the same tree below another folder, and nothing overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from retrieval_detect.errors import UsageError
from retrieval_detect.files import write_bytes
from retrieval_detect.images.chains import laundered_file, suffix_of_file
from retrieval_detect.images.content_id import content_id
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import attempted
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    from retrieval_detect.images.chains import Chain
    from retrieval_detect.types import ImageItem

EXISTS = "exists"
UNFIT = "unfit"
UNWRITABLE = "unwritable"


@dataclass(frozen=True, slots=True)
class Copy:
    """``uri`` : the image it is of. ``steps`` : what was done, with numbers. ``new`` : not there before."""

    uri: str
    path: Path
    steps: Chain
    new: bool


def launder_all(
    items: Sequence[tuple[ImageItem, str]],
    folder: Path,
    chain: Chain,
    *,
    seed: int = 0,
    workers: int | None = None,
) -> Iterator[Copy | Failure]:
    """Write a laundered copy of each image below ``folder``, in order.

    ``items`` : with each, its place below the folder, with ``/`` between parts. A copy is named as its image;
    where the format changes, the new suffix follows the old one: two images never share a name by that. Equal
    images, chains and seeds give equal bytes; a copy that is there already with these bytes is left as it
    is, and one with others is a ``Failure``, as is an image that cannot be read.
    """
    suffix = suffix_of_file(chain)
    asked: list[tuple[ImageItem, Path, bool]] = []
    taken: set[Path] = set()
    for item, place in items:
        path = folder / _named(place, suffix)
        asked.append((item, path, path not in taken))
        taken.add(path)
    task = partial(_copy, chain=chain, seed=seed)
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(task, asked)
        finally:
            pool.shutdown(cancel_futures=True)


def _copy(asked: tuple[ImageItem, Path, bool], *, chain: Chain, seed: int) -> Copy | Failure:
    item, path, is_first = asked
    if not is_first:
        return Failure(item.uri, EXISTS, f"another of the images becomes {path}, too")

    def laundered(data: bytes) -> tuple[bytes, Chain]:
        return laundered_file(decode(data).rgb, chain, content_id=content_id(data), seed=seed)

    try:
        made = attempted(item, laundered)
    except UsageError as error:  # a box that is not within this image
        return Failure(item.uri, UNFIT, error.in_full)
    if isinstance(made, Failure):
        return made
    copy, steps = made
    return _written(Copy(item.uri, path, steps, new=True), copy)


def _written(copy: Copy, data: bytes) -> Copy | Failure:
    path = copy.path
    try:
        if path.is_symlink() or path.exists():
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return replace(copy, new=False)
            raise FileExistsError
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data, new=True)
    except FileExistsError:
        message = f"{path} is there already with other bytes; it was left as it is"
        return Failure(copy.uri, EXISTS, message)
    except OSError as error:
        return Failure(copy.uri, UNWRITABLE, f"{path} cannot be written: {error.strerror or error}")
    return copy


def _named(place: str, suffix: str) -> Path:
    """Names from archives are hostile: no part leads up or out."""
    parts = [part for part in PurePosixPath(place).parts if part not in ("/", "..") and "\0" not in part]
    path = Path(*parts) if parts else Path("image")
    same = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg"}.get(path.suffix.lower(), path.suffix.lower())
    return path if same == suffix else path.with_name(path.name + suffix)
