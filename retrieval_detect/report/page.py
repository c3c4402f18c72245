"""A result of an evaluation as one page that needs no other file: its table, and its curves as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from retrieval_detect.report.tables import cell, heading

if TYPE_CHECKING:
    from retrieval_detect.evaluate.context import Result

Series: TypeAlias = "Mapping[str, Sequence[tuple[float, float]]]"
"""Name → points in order; y is 0…1."""

_WIDTH, _HEIGHT, _MARGIN = 460, 260, 40
# Told apart by people who do not see colours alike: Okabe and Ito's.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;
margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .7rem;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f4f4f4}
figure{display:inline-block;margin:1rem 1rem 0 0}figcaption{font-weight:600}.scroll{overflow-x:auto}"""


def result_page(result: Result, about: Mapping[str, Any]) -> str:
    """The page as HTML. ``about`` : what the numbers are of."""
    facts = ", ".join(f"{key}: {value}" for key, value in about.items() if isinstance(value, str | int))
    parts = [
        f"<h1>{escape(result.title)}</h1><p>{escape(facts)}</p>",
        "".join(_charts(result)),
        f'<div class="scroll">{_table(result)}</div>',
        *(f"<p>{escape(line)}</p>" for line in result.lines),
    ]
    head = f'<meta charset="utf-8"><title>{escape(result.title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _table(result: Result) -> str:
    names = "".join(f"<th>{escape(heading(column))}</th>" for column in result.columns)
    rows = (
        "".join(f"<td>{escape(cell(row.get(column)))}</td>" for column in result.columns)
        for row in result.rows
    )
    return f"<table><tr>{names}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


# ---------------------------------------------------------------- which curves


def _charts(result: Result) -> Iterator[str]:
    if result.protocol in ("few-shot", "incremental"):
        yield from _by_number(result)
    elif result.protocol == "robustness":
        shown = ("auroc", "acc_fixed", "flipped")
        series = {
            heading(name): [(float(i), row[name]) for i, row in enumerate(result.rows) if name in row]
            for name in shown
        }
        yield chart("By setting, in the order of the table", series, "setting")
    elif result.protocol == "calibration":
        points = [(stated, seen) for stated, seen, _ in result.detail["reliability"]]
        yield chart(
            "Reliability", {"measured": points, "ideal": [(0, 0), (1, 1)]}, "stated probability of a fake"
        )
        risk = [(row["answered"], row["risk"]) for row in result.detail["risk"]]
        yield chart("Risk and abstention", {"errors": risk}, "share of images answered")


def _by_number(result: Result) -> Iterator[str]:
    """A chart a generator: recall, or AUC where no recall is stated, by references of it."""
    metric = "recall" if any(row.get("recall") is not None for row in result.rows) else "auroc"
    for generator in dict.fromkeys(row["generator"] for row in result.rows):
        series: dict[str, list[tuple[float, float]]] = {}
        numbers = sorted({row["n"] for row in result.rows})
        for row in result.rows:
            if row["generator"] == generator and row.get(metric) is not None:
                series.setdefault(row["method"], []).append((float(numbers.index(row["n"])), row[metric]))
        yield chart(f"{generator}: {heading(metric)}", series, "references", ticks=numbers)


# ---------------------------------------------------------------- drawing


def chart(title: str, series: Series, x_name: str, *, ticks: Sequence[int] = ()) -> str:
    """Lines as inline SVG. ``ticks`` : what stands at x = 0, 1, 2, …; else the ends are marked."""
    xs = [x for points in series.values() for x, _ in points] or [0.0]
    low, high = min(*xs, 0.0), max(*xs, 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + (x - low) / (high - low) * (_WIDTH - 2 * _MARGIN)
        return round(across, 1), round(_HEIGHT - _MARGIN - y * (_HEIGHT - 2 * _MARGIN), 1)

    parts = [_axis(place(low, y), place(high, y), f"{y:g}") for y in (0.0, 0.25, 0.5, 0.75, 1.0)]
    marks = dict(enumerate(ticks)) if ticks else {low: low, high: high}
    parts += [_text(place(x, 0.0), f"{mark:g}", below=15) for x, mark in marks.items() if low <= x <= high]
    parts.append(_text((_WIDTH / 2, _HEIGHT - _MARGIN), x_name, below=32))
    for i, (name, points) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{_WIDTH - _MARGIN}" y="{14 + 13 * i}" text-anchor="end" fill="{colour}" '
            f'font-size="11">{escape(name)}</text>'
        )
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    svg = f'<svg {box} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _axis(start: tuple[float, float], end: tuple[float, float], mark: str) -> str:
    line = f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="#ddd"/>'
    return (
        line + f'<text x="{start[0] - 6}" y="{start[1] + 4}" text-anchor="end" font-size="11">{mark}</text>'
    )


def _text(place: tuple[float, float], text: str, *, below: int) -> str:
    x, y = place
    return f'<text x="{x}" y="{y + below}" text-anchor="middle" font-size="11">{escape(text)}</text>'
