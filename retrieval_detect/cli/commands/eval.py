"""``rd eval``: how good an index is, by the papers' protocols. ``_measured`` shows and writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    method_option,
)
from retrieval_detect.cli.settable import ASKING, Settable

if TYPE_CHECKING:
    from retrieval_detect.errors import UsageError
    from retrieval_detect.evaluate.context import Context, Options, Result
    from retrieval_detect.evaluate.datasets import Dataset
    from retrieval_detect.types import Failure

PROTOCOLS = (
    *("generators", "robustness", "holdout", "few-shot", "incremental"),
    *("bank-size", "attribution", "calibration", "quality"),
)
ALL = "all"
LAYOUTS = ("auto", "ufd", "clipping", "genimage", "aigcdetectbenchmark", "ai-genbench", "agiqa")
CANDIDATES = ("nearest:1", *(f"{vote}:{k}" for vote in ("mean", "majority") for k in (1, 3, 5, 9)))
"""Scores that UniversalFakeDetect's nearest-neighbour row may be of; its code was never published."""

_SETTABLE = (
    Settable("seeds", "How often chance draws.", click.IntRange(1), 3),
    Settable(
        "at_most", "Images of a generator or source under each robustness setting.", click.IntRange(1), 60
    ),
)


@click.command(
    "eval",
    cls=Command,
    examples="""
        rd eval test-set/
        rd eval test-set/ --protocol robustness --out results/
        rd eval test-set/ --protocol all --out results/
        rd eval CNNDetection/ --layout ufd --compare ufd --set projection=identity
        rd eval manifest.csv --protocol incremental --order stylegan2,sd1,midjourney
        rd eval CLIPping/ --layout clipping --protocol few-shot --per-category --n 16
    """,
    headings={
        "What is measured": "--protocol --layout --unified --order --n --per-category",
        "How it is judged": "--method --methods --fpr",
        "What is shown and kept": "--compare --cache --out",
    },
)
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice([*PROTOCOLS, ALL]),
    default="generators",
    show_default=True,
    help="What to measure; all: one after the other, whatever applies to DATA.",
)
@click.option(
    "--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True, help="How DATA is laid out."
)
@click.option("--unified", is_flag=True, help="First bring all images to one size and JPEG quality 96.")
@click.option("--compare", type=click.Choice(["ufd", "clipping"]), help="Show published numbers beside.")
@click.option("--methods", metavar="LIST", help="Also measure these: density,mean:9,majority:9, heads.")
@click.option("--order", metavar="LIST", help="Generators, oldest first, for incremental.")
@click.option("--n", "numbers", metavar="LIST", help="Numbers of references, such as 0,1,5,20.")
@click.option(
    "--per-category",
    is_flag=True,
    help="In few-shot: n photographs and n fakes of every category are all there is to learn from.",
)
@click.option(
    "--fpr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of photographs flagged where recall is stated.",
)
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where embeddings are kept.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write result.json, table.csv, table.md and page.html; finished steps are kept there too. With all, "
    "a folder of tables for each protocol, and one page.",
)
@method_option
@computing_options(*_SETTABLE, *ASKING)
@click.pass_obj
def command(
    run: Run, /, data: Path, protocol: str, layout: str, compare: str | None, out: Path | None, **asked: Any
) -> int | None:
    """Measure an index on images whose labels are known.

    DATA is a folder with real/SOURCE/… and fake/GENERATOR/…, a .csv or .parquet with columns path and
    label, or a published set by --layout. Images are embedded once and kept. The index is only read.
    """
    from tempfile import TemporaryDirectory

    from retrieval_detect.cli import measured
    from retrieval_detect.evaluate.datasets import load

    if compare and protocol not in ("generators", ALL):
        raise click.UsageError("published numbers are of protocol generators")
    if asked["per_category"] and protocol not in ("few-shot", ALL):
        raise click.UsageError("--per-category is of protocol few-shot")
    options = _options(asked, compare)
    dataset = load(data, layout)
    for name in dataset.missing:
        run.output.warning(f"{name} is not in {data}: skipped")
    with TemporaryDirectory(prefix="rd-eval-") as work:
        context, failures = _context(run, dataset, options, Path(work), asked["cache"])
        about = _about(context, data, failures)
        if protocol == ALL:
            results, skipped = _every(run, context, out or asked["cache"])
            measured.show_all(run.output, measured.Measured(results, skipped, about), out, compare)
        else:
            result = _one(run, context, protocol, out)
            measured.show(run.output, result, about, out, compare)
    return SOME_FAILED if failures else None


def _one(run: Run, context: Context, protocol: str, out: Path | None) -> Result:
    from retrieval_detect.evaluate.protocols import PROTOCOLS as PLANS
    from retrieval_detect.evaluate.running import run as carry_out

    plan = PLANS[protocol](context)
    steps = None if out is None else out / "steps"
    with _progress(run, len(plan.steps), "Measuring", unit="steps") as meter:
        return carry_out(plan, steps, f"{protocol}/{context.key}", progress=meter.advance)


def _every(run: Run, context: Context, kept: Path | None) -> tuple[dict[str, Result], dict[str, UsageError]]:
    """All that applies; steps are kept with the embeddings where no other place is named."""
    from retrieval_detect.evaluate.cache import user_folder
    from retrieval_detect.evaluate.running import programme, run_all

    planned = programme(context)
    with _progress(run, planned.work, "Measuring", unit="parts") as meter:
        results, skipped = run_all(
            planned, context, (kept or user_folder()) / "steps", progress=meter.advance
        )
    for name, error in skipped.items():
        run.output.warning(f"{name} is skipped: {error.message}. {error.hint}".rstrip())
    return results, skipped


def _options(asked: dict[str, Any], compare: str | None) -> Options:
    from retrieval_detect.evaluate.context import Options

    numbers = _list(asked["numbers"])
    if any(not number.isdecimal() for number in numbers):
        raise click.UsageError("--n takes whole numbers: 0,1,5,20")
    methods = _list(asked["methods"]) or (CANDIDATES if compare == "ufd" else ())
    return Options(
        tuple(sorted({int(number) for number in numbers})),
        asked["seeds"],
        _list(asked["order"]),
        methods,
        asked["fpr"],
        asked["unified"],
        asked["at_most"],
        per_category=asked["per_category"],
    )


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(str.strip, (text or "").split(",")))))


def _progress(run: Run, total: int, text: str, *, unit: str = "img") -> Any:
    from retrieval_detect.cli.progress import progress

    # A step may take minutes: of the last half minute alone nothing could be told.
    return progress(total, text, run.output, unit=unit, window_s=30.0 if unit == "img" else 3600.0)


def _context(
    run: Run, dataset: Dataset, options: Options, work: Path, cache: Path | None
) -> tuple[Context, list[Failure]]:
    """Hash and embed the images; what cannot be used is said, and left out."""
    from retrieval_detect.ask.detector import Detector
    from retrieval_detect.cli.settings import index_path
    from retrieval_detect.evaluate.cache import Cache, user_folder
    from retrieval_detect.evaluate.context import Context
    from retrieval_detect.evaluate.listed import read_listed
    from retrieval_detect.report.words import number
    from retrieval_detect.verdicts import Question

    settings = run.settings
    detector = Detector.load(
        index_path(settings),
        weights=settings.encoder_weights,
        device=settings.device,
        offline=settings.offline,
    )
    question = detector.methods.checked(Question(settings.method, settings.k, settings.projection))
    layers = tuple(detector.snapshot.manifest.layers)
    spec = detector.snapshot.manifest.encoder
    store = Cache(cache or user_folder(), spec, lambda: detector.encoder, layers)
    with _progress(run, len(dataset), "Reading") as meter:
        listed = read_listed(dataset, detector.snapshot, progress=meter.advance)
    items, identities = listed.items, listed.identities
    if listed.again:
        again = number(listed.again, "listing")
        run.output.warning(
            f"{again} of images that were listed before: each counts once, where it stood first"
        )
    context = Context(
        detector.snapshot, question, dataset, store, items, identities, layers, options, work, settings.device
    )
    with _progress(run, len(items), "Embedding") as meter:
        failures = [*listed.failures, *store.rows(items, context.base, progress=meter.advance)[1]]
    for failure in failures:
        run.output.warning(f"{failure.uri}: {failure.message}")
    return context, failures


def _about(context: Context, data: Path, failures: list[Failure]) -> dict[str, Any]:
    manifest, question = context.snapshot.manifest, context.question
    return {
        "data": str(data),
        "images": len(context.items),
        "failures": len(failures),
        "missing": list(context.dataset.missing),
        "index": context.snapshot.folder.resolve().name,
        "generation": manifest.generation,
        "encoder": manifest.encoder.name,
        "preprocessing": manifest.encoder.preprocessing.mode,
        "method": question.method,
        "k": question.k,
        "projection": question.projection,
        "unified": context.options.unified,
        "references": {label: manifest.live_rows(label) for label in ("real", "fake")},
    }
