"""A result of an evaluation as one page that needs no other file: its table, and its curves as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from retrieval_detect.report.tables import cell, heading

if TYPE_CHECKING:
    from retrieval_detect.evaluate.context import Result

Series: TypeAlias = "Mapping[str, Sequence[tuple[float, float]]]"
"""Name → points in order; y is 0…1."""


class Chart(NamedTuple):
    """Lines to draw. ``ticks`` : what stands at x = 0, 1, 2, …; else the ends are marked."""

    title: str
    series: Series
    x_name: str
    ticks: Sequence[object] = ()


_WIDTH, _HEIGHT, _MARGIN, _LEGEND = 460, 260, 40, 14
# Told apart by people who do not see colours alike (Okabe and Ito's), and by their dashes without any.
_STROKES = (
    *(("#0072b2", ""), ("#d55e00", "6 3"), ("#009e73", "2 3"), ("#cc79a7", "8 3 2 3")),
    *(("#e69f00", "4 2"), ("#56b4e9", "1 2"), ("currentColor", "10 4")),
)
_STYLE = """:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600}
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8884}
th:first-child{text-align:left}
figure{display:inline-block;margin:1rem 1rem 0 0;break-inside:avoid}figcaption{font-weight:600}
svg{max-width:100%;height:auto}.scroll{overflow-x:auto}
@media print{:root{color-scheme:light}body{margin:0;max-width:none;font-size:8pt}.scroll{overflow:visible}
td,th{padding:.1rem .3rem}}"""


def result_page(result: Result, about: Mapping[str, Any]) -> str:
    """The page as HTML. ``about`` : what the numbers are of."""
    facts = ", ".join(f"{key}: {value}" for key, value in about.items() if isinstance(value, str | int))
    parts = [
        f"<main><h1>{escape(result.title)}</h1><p>{escape(facts)}</p>",
        "".join(chart(*drawn[:3], ticks=drawn.ticks) for drawn in charts(result)),
        f'<div class="scroll" role="region" aria-label="Table" tabindex="0">{_table(result)}</div>',
        *(f"<p>{escape(line)}</p>" for line in result.lines),
        "</main>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    head += f"<title>{escape(result.title)}</title><style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _table(result: Result) -> str:
    names = "".join(f'<th scope="col">{escape(heading(column))}</th>' for column in result.columns)
    rows = "".join(f"<tr>{_row(result.columns, row)}</tr>" for row in result.rows)
    caption = f"<caption>{escape(result.title)}</caption>"
    return f"<table>{caption}<thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"


def _row(columns: Sequence[str], row: Mapping[str, Any]) -> str:
    first, *others = (escape(cell(row.get(column))) for column in columns)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{text}</td>" for text in others)


# ---------------------------------------------------------------- which curves


def charts(result: Result) -> Iterator[Chart]:
    """The curves of a result; none for what is a table alone."""
    if curves := result.detail.get("curves"):
        yield from _rankings(curves)
    if result.protocol in ("few-shot", "incremental"):
        yield from _by_number(result)
    elif result.protocol == "bank-size":
        points = [(float(i), row["auroc"]) for i, row in enumerate(result.rows)]
        ticks = [row["n"] for row in result.rows]
        yield Chart("AUROC by size of the banks", {"rd": points}, "references of each label", ticks)
    elif result.protocol == "robustness":
        yield from _by_setting(result)
    elif result.protocol == "calibration":
        measured = [(stated, seen) for stated, seen, _ in result.detail["reliability"]]
        lines = {"measured": measured, "ideal": [(0.0, 0.0), (1.0, 1.0)]}
        yield Chart("Reliability: share of fakes", lines, "stated probability of a fake")
        risk = [(row["answered"], row["risk"]) for row in result.detail["risk"]]
        yield Chart("Risk and abstention", {"errors": risk}, "share of images answered")


def _rankings(curves: Mapping[str, Mapping[str, Any]]) -> Iterator[Chart]:
    """ROC and precision–recall curves: rd's, and those that rank best of the others."""
    others = sorted((name for name in curves if name != "rd"), key=lambda name: -curves[name]["auroc"])
    shown = [*(name for name in curves if name == "rd"), *others][: len(_STROKES)]
    for key, value, title, x_name in (
        ("roc", "auroc", "ROC: recall (AUROC)", "share of photographs flagged"),
        ("pr", "ap", "Precision and recall (AP)", "recall"),
    ):
        series = {}
        for name in shown:
            points, worth = curves[name][key], curves[name].get(value)
            stated = "" if worth is None else f" ({worth:.3f})"
            series[name + stated] = [(i / (len(points) - 1), y) for i, y in enumerate(points)]
        yield Chart(title, series, x_name)


_SWEEPS = (("JPEG ", "JPEG quality"), ("blur σ ", "blur σ, pixels"), ("resize × ", "resized by"))


def _by_setting(result: Result) -> Iterator[Chart]:
    """A chart for every kind of change that has a strength."""
    for prefix, x_name in _SWEEPS:
        rows = [row for row in result.rows if row["setting"].startswith(prefix)]
        series = {
            heading(name): [(float(i), row[name]) for i, row in enumerate(rows) if row.get(name) is not None]
            for name in ("auroc", "acc_fixed", "acc_calibrated", "flipped")
        }
        ticks = [row["setting"].removeprefix(prefix) for row in rows]
        yield Chart(f"By {x_name}", {name: own for name, own in series.items() if own}, x_name, ticks)


def _by_number(result: Result) -> Iterator[Chart]:
    """A chart a generator: recall, or AUC where no recall is stated, by references of it."""
    metric = "recall" if any(row.get("recall") is not None for row in result.rows) else "auroc"
    numbers = sorted({row["n"] for row in result.rows})
    for generator in dict.fromkeys(row["generator"] for row in result.rows):
        series: dict[str, list[tuple[float, float]]] = {}
        for row in result.rows:
            if row["generator"] == generator and row.get(metric) is not None:
                series.setdefault(row["method"], []).append((float(numbers.index(row["n"])), row[metric]))
        yield Chart(f"{generator}: {heading(metric)}", series, "references", numbers)


# ---------------------------------------------------------------- drawing


def chart(title: str, series: Series, x_name: str, *, ticks: Sequence[object] = ()) -> str:
    """Lines as a figure of a page; see ``Chart``."""
    drawing = _drawing(title, series, x_name, ticks)
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>"


def svg(drawn: Chart) -> str:
    """A chart as a file of its own, dark on white."""
    attributes = 'xmlns="http://www.w3.org/2000/svg" style="background:#fff;color:#222"'
    return _drawing(*drawn, attributes=attributes) + "\n"


def _drawing(title: str, series: Series, x_name: str, ticks: Sequence[object], attributes: str = "") -> str:
    xs = [x for points in series.values() for x, _ in points] or [0.0]
    low, high = min(*xs, 0.0), max(*xs, 1.0)
    top = _LEGEND * len(series) + 6

    def place(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + (x - low) / (high - low) * (_WIDTH - 2 * _MARGIN)
        return round(across, 1), round(top + (1 - y) * (_HEIGHT - 2 * _MARGIN) + 10, 1)

    parts = [_axis(place(low, y), place(high, y), f"{y:g}") for y in (0.0, 0.25, 0.5, 0.75, 1.0)]
    marks: dict[float, object] = dict(enumerate(ticks)) if ticks else {low: f"{low:g}", high: f"{high:g}"}
    parts += [_text(place(x, 0.0), str(mark), below=15) for x, mark in marks.items() if low <= x <= high]
    parts.append(_text((_WIDTH / 2, place(low, 0.0)[1]), x_name, below=32))
    for i, (name, points) in enumerate(series.items()):
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(i)}/>')
        parts.append(_legend(i, name))
    height = top + _HEIGHT - 2 * _MARGIN + 50
    box = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" font-family="sans-serif"'
    label = f'role="img" aria-label="{escape(title)}"'
    return f'<svg {attributes} {box} {label} fill="currentColor" font-size="11">{"".join(parts)}</svg>'


def _stroke(i: int) -> str:
    colour, dashes = _STROKES[i % len(_STROKES)]
    return f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes or "none"}"'


def _legend(i: int, name: str) -> str:
    y = 10 + _LEGEND * i
    line = f'<line x1="{_MARGIN}" y1="{y - 4}" x2="{_MARGIN + 30}" y2="{y - 4}" {_stroke(i)}/>'
    return line + f'<text x="{_MARGIN + 36}" y="{y}">{escape(name)}</text>'


def _axis(start: tuple[float, float], end: tuple[float, float], mark: str) -> str:
    line = f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="#8886"/>'
    return line + f'<text x="{start[0] - 6}" y="{start[1] + 4}" text-anchor="end">{mark}</text>'


def _text(place: tuple[float, float], text: str, *, below: int) -> str:
    x, y = place
    return f'<text x="{x}" y="{y + below}" text-anchor="middle">{escape(text)}</text>'
