"""``rd query --out``: verdicts as a Parquet file, or an image with the scores of its regions laid over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.errors import UsageError
from retrieval_detect.files import require_folder_of, write_atomically, write_bytes
from retrieval_detect.images.items import suffix_of
from retrieval_detect.types import Failure

if TYPE_CHECKING:
    import pyarrow as pa

    from retrieval_detect.types import ImageItem
    from retrieval_detect.verdicts import Verdict

_TABLE, _DRAWING = ".parquet", ".png"
_ROWS_AT_ONCE = 4096
"""Verdicts kept until they become rows, which take a tenth of the memory."""

out_option = click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write FILE.parquet, a row for each image with the columns of --format csv; or FILE.png, with "
    "--regions: one image with the scores of its regions laid over it.",
)


def out_of(asked: dict[str, Any], *, blind: bool) -> Path | None:
    """The file that the option asks for, taken out of ``asked``; what cannot be meant is a ``UsageError``."""
    out: Path | None = asked.pop("out")
    if out is None:
        return None
    if suffix_of(out.name) not in (_TABLE, _DRAWING):
        raise UsageError(
            f"{out.name} ends in neither {_TABLE} nor {_DRAWING}", hint="Name one: verdicts.parquet"
        )
    if blind:
        raise UsageError("--evidence blind and --out do not go together: the file tells verdicts at once")
    if suffix_of(out.name) == _DRAWING and not asked["regions"]:
        raise UsageError(f"{out.name} would show the scores of regions", hint="Ask for them, too: --regions")
    require_folder_of(out)
    return out


def written(
    results: Iterable[Verdict | Failure], out: Path, ahead: list[ImageItem]
) -> Iterator[Verdict | Failure]:
    """The results as they are; after the last the file is written. ``ahead`` : the first image or two."""
    if suffix_of(out.name) == _TABLE:
        return _tabled(results, out)
    if len(ahead) > 1:
        raise UsageError("a picture of regions is of one image", hint="Ask about one at a time.")
    return _drawn(results, out, ahead[0])


def _tabled(results: Iterable[Verdict | Failure], out: Path) -> Iterator[Verdict | Failure]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from retrieval_detect.ask.table import Verdicts

    tables: list[pa.Table] = []
    waiting: list[Verdict | Failure] = []
    for result in results:
        waiting.append(result)
        if len(waiting) == _ROWS_AT_ONCE:
            tables.append(Verdicts(waiting).to_arrow())
            waiting.clear()
        yield result
    table = pa.concat_tables([*tables, Verdicts(waiting).to_arrow()])
    write_atomically(out, lambda file: pq.write_table(table, file, compression="zstd"))


def _drawn(results: Iterable[Verdict | Failure], out: Path, item: ImageItem) -> Iterator[Verdict | Failure]:
    from retrieval_detect.images.decode import decode
    from retrieval_detect.report.heatmap import heat_map_png

    for result in results:
        if not isinstance(result, Failure) and result.regions:
            write_bytes(out, heat_map_png(decode(item.read()).rgb, result.regions))
        yield result
