"""What ``rd eval`` shows and writes: one result, or those of all protocols."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrieval_detect.cli.output import Column

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_detect.cli.output import Output
    from retrieval_detect.errors import UsageError
    from retrieval_detect.evaluate.context import Result


@dataclass(frozen=True, slots=True)
class Measured:
    """All protocols. ``skipped`` : those that do not apply, and why not. ``about`` : what all are of."""

    results: Mapping[str, Result]
    skipped: Mapping[str, UsageError]
    about: Mapping[str, Any]


def show(
    output: Output, result: Result, about: Mapping[str, Any], out: Path | None, compare: str | None
) -> None:
    """One result: on the terminal, and in ``out`` if given. ``compare`` : whose numbers stand beside."""
    from retrieval_detect.files import write_bytes
    from retrieval_detect.report.page import result_page

    document = _document(result, about, compare)
    if out is not None:
        _write_tables(out, result, document)
        write_bytes(out / "page.html", result_page(result, about).encode())
    if output.format in ("json", "jsonl"):
        output.record(document)
        return
    _show_table(output, result, document)
    if out is not None:
        output.success(f"Written to {out}: result.json, table.csv, table.md, page.html")


def show_all(output: Output, measured: Measured, out: Path | None, compare: str | None) -> None:
    """The same of all: a table each, and in ``out`` a folder each and one page."""
    documents = {
        name: _document(result, measured.about, compare) for name, result in measured.results.items()
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
    if out is not None:
        _write_all(out, measured, whole)
    if output.format in ("json", "jsonl"):
        output.record(whole)
    elif output.format == "human":
        for name, result in measured.results.items():
            _show_table(output, result, documents[name])
            output.line()
    else:
        _one_table(output, measured.results)
    if out is not None:
        output.success(f"Written to {out}: result.json, page.html, and a folder for each protocol")


def _document(result: Result, about: Mapping[str, Any], compare: str | None) -> dict[str, Any]:
    from retrieval_detect.report.tables import result_json

    document = result_json(result, about)
    if compare and result.protocol == "generators" and (beside := _beside(result, compare)):
        document["compared"] = beside
    return document


def _show_table(output: Output, result: Result, document: Mapping[str, Any]) -> None:
    from retrieval_detect.report.tables import cell, heading

    output.table(list(result.rows), [Column(c, heading(c), cell) for c in result.columns], title=result.title)
    for row in document.get("compared", ()):
        output.line(", ".join(f"{key} {cell(value)}" for key, value in row.items() if value is not None))
    for line in result.lines:
        output.note(line)


def _one_table(output: Output, results: Mapping[str, Result]) -> None:
    """Rows of all protocols under one header, for formats that hold one table."""
    rows = [{"protocol": name, **row} for name, result in results.items() for row in result.rows]
    columns = dict.fromkeys(key for row in rows for key in row)
    output.table([dict.fromkeys(columns) | row for row in rows], list(columns))


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


def _write_tables(out: Path, result: Result, document: Mapping[str, Any]) -> None:
    from retrieval_detect.files import write_bytes, write_json
    from retrieval_detect.report.tables import markdown_table, result_csv, result_markdown

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "result.json", document)
    write_bytes(out / "table.csv", result_csv(result).encode())
    text = result_markdown(result, document["about"])
    if beside := document.get("compared"):
        text += "\n## Published numbers beside\n\n" + markdown_table(tuple(beside[0]), beside) + "\n"
    write_bytes(out / "table.md", text.encode())


def _write_all(out: Path, measured: Measured, whole: Mapping[str, Any]) -> None:
    from retrieval_detect.files import write_bytes, write_json
    from retrieval_detect.report.page import results_page

    for name, result in measured.results.items():
        _write_tables(out / name, result, whole["results"][name])
    reasons = {name: error.message for name, error in measured.skipped.items()}
    page = results_page(list(measured.results.values()), measured.about, skipped=reasons)
    write_bytes(out / "page.html", page.encode())
    write_json(out / "result.json", whole)
