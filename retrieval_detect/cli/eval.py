"""``rd eval``: how good an index is, by the papers' protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli._params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    k_option,
    method_option,
    projection_option,
)

if TYPE_CHECKING:
    from retrieval_detect.evaluate.context import Context, Options, Result
    from retrieval_detect.evaluate.datasets import Dataset
    from retrieval_detect.types import Failure, ImageItem

PROTOCOLS = (
    *("generators", "robustness", "holdout", "few-shot", "incremental"),
    *("bank-size", "attribution", "calibration", "quality"),
)
LAYOUTS = ("auto", "ufd", "clipping", "genimage", "aigcdetectbenchmark", "ai-genbench", "agiqa")
CANDIDATES = ("nearest:1", *(f"{vote}:{k}" for vote in ("mean", "majority") for k in (1, 3, 5, 9)))
"""Scores that UniversalFakeDetect's nearest-neighbour row may be of; its code was never published."""


@click.command(
    "eval",
    cls=Command,
    examples="""
        rd eval test-set/
        rd eval test-set/ --protocol robustness --out results/
        rd eval CNNDetection/ --layout ufd --compare ufd --projection identity
        rd eval manifest.csv --protocol incremental --order stylegan2,sd1,midjourney
        rd eval CLIPping/ --layout clipping --protocol few-shot --per-category --n 16
    """,
)
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="generators",
    show_default=True,
    help="What to measure.",
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
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How often chance draws.")
@click.option(
    "--fpr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Share of photographs flagged where recall is stated.",
)
@click.option(
    "--at-most",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="Images of a generator or source under each robustness setting.",
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
    help="Write result.json, table.csv, table.md and page.html; finished steps are kept there too.",
)
@method_option
@projection_option
@k_option
@computing_options
@click.pass_obj
def command(
    run: Run, /, data: Path, protocol: str, layout: str, compare: str | None, out: Path | None, **asked: Any
) -> int | None:
    """Measure an index on images whose labels are known.

    DATA is a folder with real/SOURCE/… and fake/GENERATOR/…, a .csv or .parquet with columns path and
    label, or a published set by --layout. Images are embedded once and kept. The index is only read.
    """
    from tempfile import TemporaryDirectory

    from retrieval_detect.evaluate.context import run as carry_out
    from retrieval_detect.evaluate.datasets import load
    from retrieval_detect.evaluate.protocols import PROTOCOLS as PLANS

    if compare and protocol != "generators":
        raise click.UsageError("published numbers are of protocol generators")
    if asked["per_category"] and protocol != "few-shot":
        raise click.UsageError("--per-category is of protocol few-shot")
    options = _options(asked, compare)
    dataset = load(data, layout)
    for name in dataset.missing:
        run.output.warning(f"{name} is not in {data}: skipped")
    with TemporaryDirectory(prefix="rd-eval-") as work:
        context, failures = _context(run, dataset, options, Path(work), asked["cache"])
        plan = PLANS[protocol](context)
        steps = None if out is None else out / "steps"
        with _progress(run, len(plan.steps), "Measuring", unit="steps") as meter:
            result = carry_out(plan, steps, f"{protocol}/{context.key}", progress=meter.advance)
    _show(run, result, _about(context, data, failures), out, compare)
    return SOME_FAILED if failures else None


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
    from retrieval_detect.cli._progress import progress

    return progress(total, text, run.output, unit=unit)


def _context(
    run: Run, dataset: Dataset, options: Options, work: Path, cache: Path | None
) -> tuple[Context, list[Failure]]:
    """Hash and embed the images; what cannot be used is said, and left out."""
    from retrieval_detect.config import index_path
    from retrieval_detect.detector import Detector
    from retrieval_detect.evaluate.cache import Cache, content_ids, user_folder
    from retrieval_detect.evaluate.context import Context
    from retrieval_detect.types import Failure
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
    images = [sample.item for sample in dataset.samples]
    with _progress(run, len(images), "Reading") as meter:
        found = content_ids(images, progress=meter.advance)
    items: dict[bytes, ImageItem] = {
        i: item for i, item in zip(found, images, strict=True) if isinstance(i, bytes)
    }
    failures = [i for i in found if isinstance(i, Failure)]
    identities = [i if isinstance(i, bytes) else None for i in found]
    context = Context(
        detector.snapshot, question, dataset, store, items, identities, layers, options, work, settings.device
    )
    with _progress(run, len(items), "Embedding") as meter:
        failures += store.rows(items, context.base, progress=meter.advance)[1]
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


def _show(run: Run, result: Result, about: dict[str, Any], out: Path | None, compare: str | None) -> None:
    from retrieval_detect.cli._output import Column
    from retrieval_detect.report.tables import cell, heading, result_json

    document = result_json(result, about)
    beside = _beside(result, compare) if compare else []
    if beside:
        document["compared"] = beside
    if out is not None:
        _write(out, result, document, beside)
    output = run.output
    if output.format in ("json", "jsonl"):
        output.record(document)
        return
    output.table(list(result.rows), [Column(c, heading(c), cell) for c in result.columns], title=result.title)
    for row in beside:
        output.line(", ".join(f"{key} {cell(value)}" for key, value in row.items() if value is not None))
    for line in result.lines:
        output.note(line)
    if out is not None:
        output.success(f"Written to {out}: result.json, table.csv, table.md, page.html")


def _beside(result: Result, compare: str) -> list[dict[str, Any]]:
    """Accuracy at the fixed threshold, as the papers have it, and AP, of every method that was run."""
    from retrieval_detect.evaluate.published import compared, published
    from retrieval_detect.report.tables import compared_rows

    table = published(compare)
    methods = result.detail["methods"]
    rows = []
    for metric, own in (("acc", "acc_fixed"), ("ap", "ap")):
        ours = {
            name: {column: row[own] for column, row in said["columns"].items() if own in row}
            for name, said in methods.items()
            if "columns" in said
        }
        rows += compared_rows(compared(table, metric, ours))
    return rows


def _write(out: Path, result: Result, document: dict[str, Any], beside: list[dict[str, Any]]) -> None:
    from retrieval_detect.files import write_bytes, write_json
    from retrieval_detect.report.page import result_page
    from retrieval_detect.report.tables import markdown_table, result_csv, result_markdown

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "result.json", document)
    write_bytes(out / "table.csv", result_csv(result).encode())
    text = result_markdown(result, document["about"])
    if beside:
        text += "\n## Published numbers beside\n\n" + markdown_table(tuple(beside[0]), beside) + "\n"
    write_bytes(out / "table.md", text.encode())
    write_bytes(out / "page.html", result_page(result, document["about"]).encode())
