"""``rd index export`` and ``rd index import``: an index handed on without its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import Command, Run, dry_run_option
from retrieval_detect.cli.settings import index_path
from retrieval_detect.report.words import number
from retrieval_detect.store.layout import MISTAKES

if TYPE_CHECKING:
    from retrieval_detect.store.manifest import Manifest

_PRIVATE = {"uri": "paths", "contributor": "contributors", MISTAKES: "mistakes"}
"""What goes along only if it is asked for, in words."""
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    "export",
    cls=Command,
    examples="""
        rd index export banks.tar
        rd index export banks.tar --index trial --with-uris
    """,
)
@click.argument("out", metavar="FILE.tar", type=_FILE)
@click.option(
    "--with-uris", "uri", is_flag=True, help="Say which file each reference was; paths may name people."
)
@click.option("--with-contributors", "contributor", is_flag=True, help="Say who gave each reference.")
@click.option("--with-mistakes", MISTAKES, is_flag=True, help="Hand on mistakes that are kept, and why.")
@dry_run_option
@click.pass_obj
def export(run: Run, /, out: Path, dry_run: bool, **asked: bool) -> None:
    """Write an index to one file, to hand on: vectors and what was fitted, no picture.

    What was removed is not in it, nor any derived file. Vectors and checksums are: whoever has a picture can
    tell whether it was a reference, and what a picture shows can be guessed from its vector.
    """
    from retrieval_detect.store.sharing import export_index

    snapshot = run.snapshot()
    keep = [name for name in _PRIVATE if asked[name]]
    manifest = snapshot.manifest if dry_run else export_index(snapshot, out, keep=keep)
    record = _record(manifest) | {"file": str(out), "kept": keep, "written": not dry_run}
    if dry_run:
        text = f"Would export {_words(manifest)} to {out}. Nothing was written."
    else:
        left = [name for name in _PRIVATE if name != MISTAKES or snapshot.manifest.mistakes]
        gone = [*(_PRIVATE[name] for name in left if name not in keep), "pictures"]
        text = f"{out}: {_words(manifest)}, without {' and '.join(gone)}"
    run.output.record(record, text=text)
    if snapshot.manifest.tuned:
        run.output.note("Approximate search is not handed on: it is tuned where it runs (rd index tune).")


@click.command("import", cls=Command, examples="rd index import banks.tar --name newsroom")
@click.argument("file", metavar="FILE.tar", type=_FILE)
@click.option(
    "--name", required=True, metavar="NAME", help="What the new index is called; a path is one, too."
)
@click.pass_obj
def import_(run: Run, file: Path, name: str) -> None:
    """Make a new index of an exported file.

    Every checksum is compared, rows and vectors are checked and written anew, and all that was fitted is
    read, before the index is in place. Nothing that exists is ever touched.
    """
    from retrieval_detect.review.whole import require_fitted
    from retrieval_detect.store.sharing import import_index

    folder = index_path(replace(run.settings, index=name))
    manifest = import_index(file, folder, check=require_fitted)
    text = f"{folder}: {_words(manifest)}, by {manifest.encoder.name}. It says what its makers say: rd audit"
    run.output.record(_record(manifest) | {"path": str(folder)}, text=text)
    if manifest.operation.kind == "rename":
        run.output.note(
            "Its names were spelt otherwise; what was fitted by them is stale: rd fit calibration"
        )


def _record(manifest: Manifest) -> dict[str, Any]:
    return {
        "generation": manifest.generation,
        "real": manifest.live_rows("real"),
        "fake": manifest.live_rows("fake"),
        "encoder": manifest.encoder.name,
        "fitted": [f"{record.kind} {record.name}" for record in manifest.fitted],
    }


def _words(manifest: Manifest) -> str:
    real, fake = manifest.live_rows("real"), manifest.live_rows("fake")
    fitted = f", {number(len(manifest.fitted), 'fitted file')}" if manifest.fitted else ""
    return f"generation {manifest.generation}, {real:,} real and {number(fake, 'fake reference')}{fitted}"
