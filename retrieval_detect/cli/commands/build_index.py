"""``rd build-index``."""

from __future__ import annotations

import click

from retrieval_detect.cli.params import (
    Command,
    Run,
    calibration_option,
    category_folders_option,
    computing_options,
    dry_run_option,
    encoder_option,
    fact_option,
    setting,
    thumbnails_option,
    views_option,
)
from retrieval_detect.cli.parts import Parts


@click.command(
    "build-index",
    cls=Command,
    examples="""
        rd build-index --real photos/ --fake generated/
        rd build-index --real photos/ --fake generated/ --encoder efficientnet-lite0 --index trial
        rd build-index --real photos/ --fake generated/ --views jpeg,crops
        rd build-index --real lsun/cat/ --fake progan/cat/ --fact category=cat
        rd build-index --labelled images.csv
        rd build-index default
    """,
    headings={
        "What they are": "--real --fake --labelled --fact --category-folders --root",
        "What is kept of them": "--layers --views --thumbnails --plain --no-calibration --dry-run",
    },
)
@click.argument("recipe", required=False)
@click.option("--real", multiple=True, metavar="PATH", help="Photographs; sub-folders name their sources.")
@click.option("--fake", multiple=True, metavar="PATH", help="Generated images; sub-folders name generators.")
@click.option(
    "--labelled",
    multiple=True,
    type=Parts(click.STRING, dict.fromkeys(("label", "real", "fake", "generator", "source"), click.STRING)),
    metavar="LIST[,label=COLUMN]",
    help="A CSV, JSONL, Parquet or Arrow file whose rows say it themselves, in columns label (real or fake), "
    "generator and source. Where they are called otherwise: LIST,label=is_ai,real=0,fake=1,generator=model.",
)
@click.option(
    "--layers", metavar="LIST", help="Vectors to keep an image: proj, pre, blockNN (default: the encoder's)."
)
@fact_option()
@category_folders_option
@views_option
@setting(
    "--plain",
    is_flag=True,
    flag_value=True,
    default=None,
    help="Fit no projection: search vectors as stored.",
)
@calibration_option
@thumbnails_option
@click.option("--root", metavar="DIR", default=".", help="Where a recipe's relative paths begin.")
@encoder_option
@computing_options()
@dry_run_option
@click.pass_obj
def command(
    run: Run,
    recipe: str | None,
    real: tuple[str, ...],
    fake: tuple[str, ...],
    labelled: tuple[dict[str, str], ...],
    layers: str | None,
    views: str | None,
    root: str,
    dry_run: bool,
    fact: dict[str, str],
    category_folders: bool,
) -> int | None:
    """Embed and store references of both labels.

    PATH is a folder, a file, a quoted glob, an archive (tar, tar.gz, ZIP) or a table with an image column
    (Parquet, Arrow). Running the same command again goes on where it stopped, or adds what is new.
    A RECIPE (index/recipes/*.toml) says the same in a file.
    """
    from retrieval_detect.cli.adding import recipe_of, teach
    from retrieval_detect.images.lists import Columns

    wanted = recipe_of(
        recipe,
        real=real,
        fake=fake,
        labelled=[(said.pop("", ""), Columns(**said)) for said in labelled],
        layers=layers,
        views=views,
        root=root,
        facts=fact,
        category_folders=category_folders,
    )
    return teach(run, wanted, dry_run=dry_run)
