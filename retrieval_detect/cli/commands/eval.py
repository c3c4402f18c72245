"""``rd eval``: how good an index is, by the papers' protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from retrieval_detect.cli.output import Column, Output
from retrieval_detect.cli.params import (
    SOME_FAILED,
    Command,
    Run,
    computing_options,
    method_option,
)
from retrieval_detect.cli.parts import WORD, option_with_parts
from retrieval_detect.cli.progress import progress
from retrieval_detect.cli.recipes import parts_of
from retrieval_detect.cli.settable import ASKING, Settable
from retrieval_detect.evaluate.datasets import Dataset, load
from retrieval_detect.files import write_bytes, write_json
from retrieval_detect.report.page import result_page, results_page
from retrieval_detect.report.tables import (
    cell,
    compared_rows,
    heading,
    markdown_table,
    method_tables,
    result_csv,
    result_json,
    result_markdown,
)
from retrieval_detect.report.words import number

if TYPE_CHECKING:
    from retrieval_detect.errors import UsageError
    from retrieval_detect.evaluate.context import Context, Options, Result
    from retrieval_detect.report.tables import MethodTable
    from retrieval_detect.types import Failure

PROTOCOLS = (
    *("generators", "robustness", "holdout", "few-shot", "incremental"),
    *("bank-size", "attribution", "calibration", "quality"),
)
ALL = "all"
LAYOUTS = ("auto", "ufd", "clipping", "genimage", "aigcdetectbenchmark", "ai-genbench", "agiqa")
CANDIDATES = ("nearest:1", *(f"{vote}:{k}" for vote in ("mean", "majority") for k in (1, 3, 5, 9)))
"""Scores that UniversalFakeDetect's nearest-neighbour row may be of; its code was never published."""

_MOST_WIDE = 100
_NAMED = 2
"""What is absent is counted, and so many of it named."""

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
@option_with_parts(
    "--compare",
    ("compare", click.Choice(["ufd", "clipping"])),
    {"differences": ("differences", WORD)},
    metavar="PAPER[,differences]",
    help="Show a paper's numbers beside: ufd or clipping; and how far ours are from them.",
)
@click.option(
    "--methods",
    metavar="LIST",
    help="Others to measure beside --method: density,mean:9,majority:9, heads by name.",
)
@click.option("--order", metavar="LIST", help="For incremental: generators, oldest first.")
@click.option(
    "--n", "numbers", metavar="LIST", help="How many references of a new generator, or in a bank: 0,1,5,20."
)
@click.option(
    "--per-category",
    is_flag=True,
    help="For few-shot: learn from n photographs and n fakes of every category, and nothing else.",
)
@click.option(
    "--fpr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="The rate of false alarms at which recall is stated.",
)
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where embeddings of DATA are kept (default: the user's cache).",
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
    run: Run, /, data: Path, protocol: str, layout: str, out: Path | None, **asked: Any
) -> int | None:
    """Measure an index on images whose labels are known.

    DATA is a folder with real/SOURCE/… and fake/GENERATOR/…, a list (.csv, .jsonl, .parquet) with columns
    path and label, or a published set by --layout. Images are embedded once and kept. The index is only read.
    """
    from retrieval_detect.evaluate.cache import user_folder
    from retrieval_detect.evaluate.protocols import PROTOCOLS as PLANS
    from retrieval_detect.evaluate.running import programme, run_all
    from retrieval_detect.evaluate.running import run as carry_out

    shown = Shown(run.output, out, asked["compare"], differences=asked["differences"])
    if shown.compare and protocol not in ("generators", ALL):
        raise click.UsageError("published numbers are of protocol generators")
    if asked["per_category"] and protocol not in ("few-shot", ALL):
        raise click.UsageError("--per-category is of protocol few-shot")
    options = _options(asked, shown.compare)
    dataset = load(data, layout)
    if dataset.missing:
        run.output.warning(_absent(dataset))
    with TemporaryDirectory(prefix="rd-eval-") as work:
        context, failures = _context(run, dataset, options, Path(work), asked["cache"])
        about = _about(context, data, failures)
        if protocol == ALL:
            planned = programme(context)
            # Steps are kept with the embeddings where no other place is named.
            steps = (out or asked["cache"] or user_folder()) / "steps"
            with _progress(run, planned.work, "Measuring", unit="parts") as meter:
                results, skipped = run_all(planned, context, steps, progress=meter.advance)
            for name, error in skipped.items():
                run.output.warning(f"{name} is skipped: {error.message}. {error.hint}".rstrip())
            shown.all(Measured(results, skipped, about))
        else:
            plan = PLANS[protocol](context)
            kept = None if out is None else out / "steps"
            with _progress(run, len(plan.steps), "Measuring", unit="steps") as meter:
                result = carry_out(plan, kept, f"{protocol}/{context.key}", progress=meter.advance)
            shown.one(result, about)
    return SOME_FAILED if failures else None


def _options(asked: dict[str, Any], compare: str | None) -> Options:
    from retrieval_detect.evaluate.context import Options

    numbers = parts_of(asked["numbers"])
    if any(not number.isdecimal() for number in numbers):
        raise click.UsageError("--n takes whole numbers: 0,1,5,20")
    methods = parts_of(asked["methods"]) or (CANDIDATES if compare == "ufd" else ())
    return Options(
        tuple(sorted({int(number) for number in numbers})),
        asked["seeds"],
        parts_of(asked["order"]),
        methods,
        asked["fpr"],
        asked["unified"],
        asked["at_most"],
        per_category=asked["per_category"],
    )


def _absent(dataset: Dataset) -> str:
    """What of a layout, or of a list, is not there, in a line; JSON names it all."""
    first, n = dataset.missing[:_NAMED], len(dataset.missing)
    named = ", ".join([*first, *["…"] * (n > len(first))])
    are = "are" if n > 1 else "is"
    return f"{number(n, 'part')} of {dataset.name} {are} not there: {named}; numbers are of the rest"


def _progress(run: Run, total: int, text: str, *, unit: str = "img") -> Any:
    # A step may take minutes: of the last half minute alone nothing could be told.
    return progress(total, text, run.output, unit=unit, window_s=30.0 if unit == "img" else 3600.0)


def _context(
    run: Run, dataset: Dataset, options: Options, work: Path, cache: Path | None
) -> tuple[Context, list[Failure]]:
    """Hash and embed the images; what cannot be used is said, and left out."""
    from retrieval_detect.evaluate.cache import Cache, user_folder
    from retrieval_detect.evaluate.context import Context
    from retrieval_detect.evaluate.listed import read_listed

    detector = run.detector()
    question = detector.methods.checked(run.question())
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
        detector.snapshot,
        question,
        dataset,
        store,
        items,
        identities,
        layers,
        options,
        work,
        run.settings.device,
    )
    with _progress(run, len(items), "Embedding") as meter:
        failures = [*listed.failures, *store.rows(items, context.base, progress=meter.advance)[1]]
    run.warn(failures)
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


# ---------------------------------------------------------------- what is shown and written


@dataclass(frozen=True, slots=True)
class Measured:
    """All protocols. ``skipped`` : those that do not apply, and why not. ``about`` : what all are of."""

    results: Mapping[str, Result]
    skipped: Mapping[str, UsageError]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shown:
    """Where results go: the terminal, and folder ``out`` if given. ``compare`` : the paper set beside."""

    output: Output
    out: Path | None
    compare: str | None
    differences: bool

    def one(self, result: Result, about: Mapping[str, Any]) -> None:
        """One result."""
        document = _document(result, about, self.compare)
        if self.out is not None:
            self._write_tables(self.out, result, document)
            write_bytes(self.out / "page.html", result_page(result, about).encode())
        if self.output.format in ("json", "jsonl"):
            self.output.record(document)
            return
        if self.output.format == "human":
            self._tables(result)
        else:
            self.output.table(list(result.rows), result.columns)
        if self.out is not None:
            self.output.success(f"Written to {self.out}: result.json, table.csv, table.md, page.html")

    def all(self, measured: Measured) -> None:
        """The same of all: a table each, and in ``out`` a folder each and one page."""
        documents = {
            name: _document(result, measured.about, self.compare) for name, result in measured.results.items()
        }
        whole = {
            "protocol": "all",
            "about": dict(measured.about),
            "results": documents,
            "skipped": [
                {"protocol": name, "reason": error.message, "hint": error.hint}
                for name, error in measured.skipped.items()
            ],
        }
        if self.out is not None:
            self._write_all(self.out, measured, whole)
        if self.output.format in ("json", "jsonl"):
            self.output.record(whole)
        elif self.output.format == "human":
            for result in measured.results.values():
                self._tables(result)
                self.output.line()
        else:
            _one_table(self.output, measured.results)
        if self.out is not None:
            self.output.success(
                f"Written to {self.out}: result.json, page.html, and a folder for each protocol"
            )

    def _tables(self, result: Result) -> None:
        """For people: rd's own numbers, those of every method, and what must be read with them."""
        tables = list(self._methods(result))
        elsewhere = (
            {f"{name}_auroc" for name in (*result.detail.get("methods", ()), "trivial")} if tables else set()
        )
        own = [Column(c, heading(c), cell) for c in result.columns if c not in elsewhere]
        self.output.table(list(result.rows), own, title=result.title, most_wide=_MOST_WIDE)
        for table in tables:
            show = _percent if self.compare else cell
            shown = [Column(c, c, show) for c in table.columns]
            self.output.line()
            self.output.table(table.rows, shown, title=table.title, most_wide=_MOST_WIDE)
        for line in (*(_whose(self.compare) if self.compare and tables else ()), *result.lines):
            self.output.note(fill(line, _MOST_WIDE))

    def _methods(self, result: Result) -> Iterator[MethodTable]:
        from retrieval_detect.evaluate.published import published

        if result.protocol == "generators":
            table = published(self.compare) if self.compare else None
            yield from method_tables(result, table, differences=self.differences)

    def _write_tables(self, out: Path, result: Result, document: Mapping[str, Any]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "result.json", document)
        write_bytes(out / "table.csv", result_csv(result).encode())
        text = result_markdown(result, document["about"])
        for table in self._methods(result):
            text += f"\n## {table.title}\n\n{markdown_table(table.columns, table.rows)}\n"
        write_bytes(out / "table.md", text.encode())

    def _write_all(self, out: Path, measured: Measured, whole: Mapping[str, Any]) -> None:
        for name, result in measured.results.items():
            self._write_tables(out / name, result, whole["results"][name])
        reasons = {name: error.message for name, error in measured.skipped.items()}
        page = results_page(list(measured.results.values()), measured.about, skipped=reasons)
        write_bytes(out / "page.html", page.encode())
        write_json(out / "result.json", whole)


def _whose(compare: str) -> Iterator[str]:
    """What the rows of a table beside a paper's are, and on which images theirs were measured."""
    from retrieval_detect.evaluate.published import published

    paper = published(compare)
    yield "rd: this index by the method asked for (--method)."
    yield f"published: {paper.source}"
    yield f"Measured there on: {paper.test}. Means over other images are no comparison."


def _percent(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else cell(value)


def _document(result: Result, about: Mapping[str, Any], compare: str | None) -> dict[str, Any]:
    document = result_json(result, about)
    if compare and result.protocol == "generators" and (beside := _beside(result, compare)):
        document["compared"] = beside
    return document


def _one_table(output: Output, results: Mapping[str, Result]) -> None:
    """Rows of all protocols under one header, for formats that hold one table."""
    rows = [{"protocol": name, **row} for name, result in results.items() for row in result.rows]
    columns = dict.fromkeys(key for row in rows for key in row)
    output.table([dict.fromkeys(columns) | row for row in rows], list(columns))


def _beside(result: Result, compare: str) -> list[dict[str, Any]]:
    """Accuracy at the fixed threshold, as the papers have it, and AP, of every method that was run."""
    from retrieval_detect.evaluate.published import compared, published

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
