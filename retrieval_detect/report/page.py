"""Results of an evaluation as one page that needs no other file: their tables, and their curves as SVG."""

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
    """Lines to draw. ``ticks`` : what stands at x = 0, 1, 2, …; else the ends are marked.

    ``bands`` : name → (x, low, high) in order, the 95 % intervals of its line.
    """

    title: str
    series: Series
    x_name: str
    ticks: Sequence[object] = ()
    bands: Mapping[str, Sequence[tuple[float, float, float]]] = {}


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
th:first-child{text-align:left}th[scope=row]{white-space:nowrap}
figure{display:inline-block;margin:1rem 1rem 0 0;break-inside:avoid}figcaption{font-weight:600}
svg{max-width:100%;height:auto}.scroll{overflow-x:auto}
@media print{:root{color-scheme:light}body{margin:0;max-width:none;font-size:8pt}.scroll{overflow:visible}
td,th{padding:.1rem .3rem}}"""


def result_page(result: Result, about: Mapping[str, Any]) -> str:
    """The page as HTML. ``about`` : what the numbers are of."""
    return _page(result.title, about, _body(result))


def results_page(results: Sequence[Result], about: Mapping[str, Any], *, skipped: Mapping[str, str]) -> str:
    """One page of several results, with a table of contents. ``skipped`` : protocol → why it is not here."""
    listed = "".join(f'<li><a href="#{r.protocol}">{escape(r.title)}</a></li>' for r in results)
    reasons = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in skipped.items())
    listed += '<li><a href="#skipped">Not measured</a></li>' if reasons else ""
    parts = [f'<nav aria-label="Contents"><ul>{listed}</ul></nav>']
    parts += [f'<section id="{r.protocol}"><h2>{escape(r.title)}</h2>{_body(r)}</section>' for r in results]
    if reasons:
        parts.append(f'<section id="skipped"><h2>Not measured</h2><ul>{reasons}</ul></section>')
    return _page("Evaluation", about, "".join(parts))


def _page(title: str, about: Mapping[str, Any], body: str) -> str:
    facts = ", ".join(f"{key}: {value}" for key, value in about.items() if isinstance(value, str | int))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    main = f"<main><h1>{escape(title)}</h1><p>{escape(facts)}</p>{body}</main>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{main}</body></html>\n'


def _body(result: Result) -> str:
    title = escape(result.title)
    figures = "".join(map(figure, charts(result)))
    names = "".join(f'<th scope="col">{escape(heading(column))}</th>' for column in result.columns)
    rows = []
    for row in result.rows:
        first, *others = (escape(cell(row.get(column))) for column in result.columns)
        cells = "".join(f"<td>{text}</td>" for text in others)
        rows.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    head = f"<caption>{title}</caption><thead><tr>{names}</tr></thead>"
    table = f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"
    lines = "".join(f"<p>{escape(line)}</p>" for line in result.lines)
    scroll = f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">{table}</div>'
    return f"{figures}{scroll}{lines}"


# ---------------------------------------------------------------- which curves


def charts(result: Result) -> Iterator[Chart]:
    """The curves of a result; none for what is a table alone."""
    if curves := result.detail.get("curves"):
        yield from _rankings(curves)
    if result.protocol in ("few-shot", "incremental"):
        yield from _by_number(result)
    elif result.protocol == "bank-size":
        ticks = [row["n"] for row in result.rows]
        named = [{"method": "rd"} | row for row in result.rows]
        lines, bands = _lines(named, "auroc", ticks)
        yield Chart("AUROC by size of the banks", lines, "references of each label", ticks, bands)
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
        own = [row for row in result.rows if row["generator"] == generator]
        lines, bands = _lines(own, metric, numbers)
        yield Chart(f"{generator}: {heading(metric)}", lines, "references", numbers, bands)


def _lines(rows: Sequence[Mapping[str, Any]], metric: str, numbers: Sequence[int]) -> tuple[Any, Any]:
    """A line a method by n, and the intervals that are known along it."""
    lines: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        x, low, high = float(numbers.index(row["n"])), row.get(f"{metric}_low"), row.get(f"{metric}_high")
        if row.get(metric) is not None:
            lines.setdefault(row["method"], []).append((x, row[metric]))
            if low is not None and high is not None:
                bands.setdefault(row["method"], []).append((x, low, high))
    return lines, bands


# ---------------------------------------------------------------- drawing


def figure(drawn: Chart) -> str:
    """A chart as a figure of a page."""
    return f"<figure><figcaption>{escape(drawn.title)}</figcaption>{_drawing(drawn)}</figure>"


def svg(drawn: Chart) -> str:
    """A chart as a file of its own, dark on white."""
    attributes = 'xmlns="http://www.w3.org/2000/svg" style="background:#fff;color:#222"'
    return _drawing(drawn, attributes) + "\n"


def _drawing(drawn: Chart, attributes: str = "") -> str:
    title, series, x_name, ticks, bands = drawn
    xs = [x for points in series.values() for x, _ in points] or [0.0]
    low, high = min(*xs, 0.0), max(*xs, 1.0)
    top = _LEGEND * len(series) + 6

    def place(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + (x - low) / (high - low) * (_WIDTH - 2 * _MARGIN)
        return round(across, 1), round(top + (1 - y) * (_HEIGHT - 2 * _MARGIN) + 10, 1)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        (left, y), (right, _) = place(low, share), place(high, share)
        parts.append(f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="#8886"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:g}</text>')
    marks: dict[float, object] = dict(enumerate(ticks)) if ticks else {low: f"{low:g}", high: f"{high:g}"}
    parts += [_text(place(x, 0.0), str(mark), below=15) for x, mark in marks.items() if low <= x <= high]
    parts.append(_text((_WIDTH / 2, place(low, 0.0)[1]), x_name, below=32))
    for i, (name, points) in enumerate(series.items()):
        colour, dashes = _STROKES[i % len(_STROKES)]
        stroke = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes or "none"}"'
        if ends := bands.get(name):
            around = [*((x, above) for x, _, above in ends), *((x, below) for x, below, _ in reversed(ends))]
            filled = f'fill="{colour}" fill-opacity=".12" stroke="none"'
            parts.append(f'<polygon points="{path(around)}" {filled}/>')
        parts.append(f'<polyline points="{path(points)}" fill="none" {stroke}/>')
        y = 10 + _LEGEND * i
        parts.append(f'<line x1="{_MARGIN}" y1="{y - 4}" x2="{_MARGIN + 30}" y2="{y - 4}" {stroke}/>')
        parts.append(f'<text x="{_MARGIN + 36}" y="{y}">{escape(name)}</text>')
    height = top + _HEIGHT - 2 * _MARGIN + 50
    box = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" font-family="sans-serif"'
    label = f'role="img" aria-label="{escape(title)}"'
    return f'<svg {attributes} {box} {label} fill="currentColor" font-size="11">{"".join(parts)}</svg>'


def _text(place: tuple[float, float], text: str, *, below: int) -> str:
    x, y = place
    return f'<text x="{x}" y="{y + below}" text-anchor="middle">{escape(text)}</text>'
