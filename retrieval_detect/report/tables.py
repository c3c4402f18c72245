"""Results of evaluations as JSON, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from retrieval_detect.evaluate.published import MEAN, METRICS
from retrieval_detect.texts import csv_text

if TYPE_CHECKING:
    from retrieval_detect.evaluate.context import Result
    from retrieval_detect.evaluate.published import PublishedTable

SCHEMA = 1


def result_json(result: Result, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, plain JSON types. ``about`` : index, data, question: what the numbers are of."""
    return {
        "schema": SCHEMA,
        "protocol": result.protocol,
        "title": result.title,
        "columns": list(result.columns),
        "about": dict(about),
        "rows": list(result.rows),
        "notes": list(result.lines),
        "detail": result.detail,
    }


def result_csv(result: Result) -> str:
    """The table, a header and a row each, all digits that the result has."""
    return csv_text([result.columns, *([row.get(name) for name in result.columns] for row in result.rows)])


def result_markdown(result: Result, about: Mapping[str, Any]) -> str:
    """The table with what must be read beside it."""
    facts = ", ".join(f"{key}: {value}" for key, value in about.items() if isinstance(value, str | int))
    parts = [f"## {result.title}", facts, markdown_table(result.columns, result.rows), *result.lines]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; shares to three decimals, nothing for what is not known."""
    lines = [_line(heading(column) for column in columns)]
    numeric = [all(isinstance(r.get(c), int | float | None) for r in rows) for c in columns]
    lines.append(_line("---:" if right else "---" for right in numeric))
    lines += [_line(cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(text).replace("|", "\\|") for text in cells) + " |"


def heading(column: str) -> str:
    """A column's name for people."""
    return column.replace("_", " ")


def cell(value: Any) -> str:
    """A value for people: ``0.912``, ``1,495``, ``0.900 to 0.920``, nothing for what is not known."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


# ---------------------------------------------------------------- methods, and published numbers beside


class MethodTable(NamedTuple):
    """Methods × columns of a set. ``rows`` : ``method``, ``whose`` it is, a number a column."""

    title: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]


_OURS = {"auroc": "auroc", "acc": "acc_fixed", "ap": "ap"}
_TITLES = {
    "auroc": "AUROC of every method",
    "acc": "Accuracy at a threshold set before, in percent, ours beside the published",
    "ap": "Average precision, in percent, ours beside the published",
}
_LESS = "Ours less the published, in points of {}: means over the columns that both state"


def method_tables(
    result: Result, published: PublishedTable | None = None, *, differences: bool = False
) -> Iterator[MethodTable]:
    """Tables of a result by generator: the AUROC of every method, or what a paper states beside ours.

    ``differences`` : how far each of ours is from each published row besides.
    """
    if published is None:
        yield _of_methods("auroc", {"ours": _ours(result, "auroc")})
        return
    for metric in METRICS:
        ours = {
            name: {column: 100 * value for column, value in row.items()}
            for name, row in _ours(result, metric).items()
        }
        theirs = {row.name: row.values.get(metric, {}) for row in published.rows}
        yield _of_methods(metric, {"ours": ours, "published": theirs})
        if differences:
            shared = {other: row for other, row in theirs.items() if row.keys() - {MEAN} & ours["rd"].keys()}
            rows = [
                {"method": name, **{other: _less(row, stated) for other, stated in shared.items()}}
                for name, row in ours.items()
            ]
            if shared:
                yield MethodTable(_LESS.format(metric), ("method", *shared), rows)


def _ours(result: Result, metric: str) -> dict[str, dict[str, float]]:
    """Method → column → value; the mean, which tells most, comes first."""
    methods = {name: said["columns"] for name, said in result.detail["methods"].items() if "columns" in said}
    key = _OURS[metric]
    return {
        name: {column: columns[column][key] for column in (MEAN, *columns) if key in columns[column]}
        for name, columns in methods.items()
    }


def _of_methods(metric: str, whose: Mapping[str, Mapping[str, Mapping[str, float]]]) -> MethodTable:
    columns = tuple(dict.fromkeys(column for row in whose["ours"].values() for column in row))
    rows = [
        {"method": name, "whose": of, **{column: row.get(column) for column in columns}}
        for of, methods in whose.items()
        for name, row in methods.items()
        if row.keys() & set(columns)
    ]
    return MethodTable(_TITLES[metric], ("method", *["whose"] * (len(whose) > 1), *columns), rows)


def _less(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    shared = [column for column in ours if column in theirs and column != MEAN]
    return sum(ours[column] - theirs[column] for column in shared) / len(shared)


def compared_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``published.compared`` as flat rows: ours, each published row in percent, and the difference to it."""
    flat = []
    for row in rows:
        own: dict[str, Any] = {"column": row["column"], "metric": row["metric"]}
        own |= {f"{name} (ours)": round(value, 2) for name, value in row["ours"].items()}
        for other, value in row["published"].items():
            own[other] = value
            for name in row["ours"]:
                own[f"{name} less {other}"] = row["difference"][name].get(other)
        flat.append(own)
    return flat
