"""``rd launder``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.params import SOME_FAILED, Command, Run, dry_run_option
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.settable import WORKERS, set_option
from retrieval_detect.errors import UsageError
from retrieval_detect.images.sources import scan
from retrieval_detect.report.words import number
from retrieval_detect.types import Failure, ImageItem

if TYPE_CHECKING:
    from retrieval_detect.images.chains import Chain

_MOST_SEED = 2**32 - 1


@click.command(
    "launder",
    cls=Command,
    examples="""
        rd launder photos/ --out posted/ --as social
        rd launder photos/ --out small/ --as resize-50+jpeg-72
        rd launder photos/ generated/ --out alike/ --unify
    """,
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write to; of several PATHs, each gets its own in it.",
)
@click.option(
    "--as",
    "as_",
    multiple=True,
    metavar="STEPS",
    help="social, unified, or steps joined by +: jpeg, webp, avif, resize, crop, blur, screenshot, with "
    "numbers (jpeg-72) or drawn by chance; side-N, longest-N.",
)
@click.option(
    "--unify", is_flag=True, help="The same as --as unified: one size and one JPEG quality for all."
)
@click.option(
    "--seed", type=click.IntRange(0, _MOST_SEED), default=0, metavar="N", help="For what is drawn by chance."
)
@set_option(WORKERS)
@dry_run_option
@click.pass_obj
def command(
    run: Run, paths: tuple[str, ...], out: Path, as_: tuple[str, ...], unify: bool, seed: int, dry_run: bool
) -> int | None:
    """Write laundered copies of images, or unify them.

    Laundering is what happens to pictures on their way through the net; unified images have one size and
    one compression, so that neither tells photographs from fakes. PATH is a file, a folder, a quoted glob,
    an archive or a table of images. Copies lie as their images do; equal seeds give equal
    bytes, and nothing is ever overwritten.
    """
    from retrieval_detect.images.chains import parse_chain

    chain = parse_chain(_one_of(as_, unify))
    items = _placed(paths, out)
    if dry_run:
        text = f"Would write {number(len(items), 'copy')} ({'+'.join(chain)}) to {out}. Nothing was written."
        run.output.record({"out": str(out), "would_write": len(items), "steps": list(chain)}, text=text)
        return None
    written, there, failed = _launder(run, items, out, chain, seed=seed)
    already = f", {there:,} were there already" if there else ""
    run.output.record(
        {"out": str(out), "written": written, "already": there, "failures": failed, "steps": list(chain)},
        text=f"{out}: {number(written, 'image')} laundered ({'+'.join(chain)}){already}",
    )
    return SOME_FAILED if failed else None


def _one_of(as_: tuple[str, ...], unify: bool) -> str:
    from retrieval_detect.images.chains import parse_chain

    if len(as_) > 1:  # one after another, or a copy each? The names of copies do not say which is which
        joined = "+".join(step for text in as_ for step in parse_chain(text))
        raise UsageError(
            f"--as is given {len(as_)} times",
            hint=f"One after another: --as {joined}. A copy of each: rd launder once for each, with an --out "
            "of its own.",
        )
    if bool(as_) == unify:
        raise UsageError(
            "it is not said how to launder" if not unify else "--as and --unify are both given",
            hint="Give --as STEPS, such as social or jpeg-72, or --unify.",
        )
    return as_[0] if as_ else "unified"


def _placed(paths: tuple[str, ...], out: Path) -> list[tuple[ImageItem, str]]:
    """Every image with its place below ``out``."""
    placed = []
    for path in dict.fromkeys(paths):
        folder = Path(path).resolve()
        if folder.is_dir() and out.resolve().is_relative_to(folder):
            raise UsageError(
                f"{out} lies within {Path(path)}, whose images are to be read",
                hint="Give a folder outside it.",
            )
        below = f"{folder.name}/" if len(paths) > 1 and folder.is_dir() else ""
        placed += [(item, below + (item.relative or Path(item.uri).name)) for item in scan([path])]
    return placed


def _launder(
    run: Run, items: list[tuple[ImageItem, str]], out: Path, chain: Chain, *, seed: int
) -> tuple[int, int, int]:
    """How many copies were written, were there already, and failed."""
    from retrieval_detect.images.copies import launder_all

    written = there = failed = 0
    with progress(len(items), "Laundering", run.output) as meter:
        for result in launder_all(items, out, chain, seed=seed, workers=run.settings.workers):
            meter.advance()
            if isinstance(result, Failure):
                failed += 1
                run.warn([result])
            else:
                written, there = written + result.new, there + (not result.new)
    return written, there, failed
