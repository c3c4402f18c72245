"""``rd serve``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_detect.cli.params import (
    Command,
    Run,
    computing_options,
    method_option,
)
from retrieval_detect.cli.settable import ASKING
from retrieval_detect.errors import UsageError
from retrieval_detect.texts import read_text

if TYPE_CHECKING:
    from retrieval_detect.encoders.base import Encoder

TOKEN = "RD_TOKEN"  # noqa: S105 - the variable's name


@click.command(
    "serve",
    cls=Command,
    examples="""
        rd serve
        rd serve --index newsroom --token-file token.txt
        rd serve --host 0.0.0.0 --token-file token.txt --allow-host rd.example.org
    """,
    headings={
        "Where it answers": "--host --port --token-file --allow-host",
        "What it takes": "--max-queue --max-file",
        "How it judges": "--method",
    },
)
@click.option("--host", default="127.0.0.1", help="The address to listen at (default: this machine alone).")
@click.option("--port", type=click.IntRange(0, 65535), default=8321, help="The port (default: 8321; 0: any).")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Holds the secret that changes to banks take, and every request from other machines (or: {TOKEN}).",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A host name it answers to, beside its address.",
)
@click.option(
    "--max-queue",
    metavar="N",
    type=click.IntRange(1),
    default=64,
    help="Images that may wait; more are turned away (default: 64).",
)
@click.option(
    "--max-file",
    metavar="MIB",
    type=click.IntRange(1, 1024),
    default=32,
    help="The largest image file taken (default: 32 MiB).",
)
@method_option
@computing_options(*ASKING)
@click.pass_obj
def command(
    run: Run,
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
    max_queue: int,
    max_file: int,
) -> None:
    """Answer on a web page and over HTTP.

    The page judges images dropped or pasted on it and shows the evidence; /v1/query answers programs
    with the JSON of rd query. By default only this machine can reach it. Ctrl-C ends it once what it
    is working on is done.
    """
    # Read when numpy is loaded, below: its threads would spin between small products on cores others need.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from retrieval_detect.web.server import serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"rd serve needs the package {error.name}, which is not installed",
            hint="Install it with: pip install 'retrieval-detect[web]'",
        ) from error
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.web.safety import require_safe
    from retrieval_detect.web.settings import MIB, ServeSettings

    # The token of a file, else of the variable; never of the command line, which others can read.
    token = read_text(token_file).strip() if token_file else os.environ.get(TOKEN, "").strip() or None
    chosen = run.settings
    settings = ServeSettings(
        host=host,
        port=port,
        token=token,
        hosts=hosts,
        queue_images=max_queue,
        batch_images=chosen.batch_size,
        file_bytes=max_file * MIB,
        question=run.question(),
    )
    require_safe(settings)
    if chosen.workers is not None:
        settings = replace(settings, decoders=chosen.workers)

    def load(encoder: Encoder | None) -> Detector:
        return Detector.load(run.folder, encoder=encoder, **run.running)

    serve(load, settings, device=chosen.device, say=run.output.note)
