"""Views → HTML: one file that opens anywhere, or one article for a page of others."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from retrieval_detect.files import write_bytes
from retrieval_detect.report import words
from retrieval_detect.report.html import strings as t
from retrieval_detect.report.paths import shortened

if TYPE_CHECKING:
    from jinja2 import Environment

    from retrieval_detect.report.html.records import EvidenceView, GlanceView, MapView
    from retrieval_detect.types import Failure

_TEMPLATES = files("retrieval_detect.report.html").joinpath("templates")
STYLE = _TEMPLATES.joinpath("style.css").read_text(encoding="utf-8")
"""The style sheet of reports and of the web page, as CSS."""
SCRIPT = _TEMPLATES.joinpath("filter.js").read_text(encoding="utf-8")
"""The filters of an overview: the only script there is, the same in every report."""


class ReportOptions(TypedDict, total=False):
    """What ``report_page`` takes besides views."""

    title: str | None
    failures: Sequence[Failure]
    bank_map: MapView | None
    blind: bool


def evidence_fragment(view: EvidenceView, *, bank_map: MapView | None = None, blind: bool = False) -> str:
    """One image's evidence as one ``<article>``, complete but for the style sheet (``STYLE``).

    It loads nothing, runs no script and has no ``style`` attributes; its pictures are ``data:`` URIs.
    ``blind`` : the verdict comes last and must be opened.
    """
    part: Any = _environment().get_template("evidence.html").module
    return str(part.article(view, f"image-{view.judged.sha256[:12]}", None, bank_map, blind, False))


def map_fragment(bank_map: MapView) -> str:
    """The map of the banks as one ``<section>``, to stand in an element of class ``evidence``."""
    part: Any = _environment().get_template("evidence.html").module
    return str(part.map(bank_map, [(t.THIS_IMAGE, bank_map.place, None)] if bank_map.place else []))


def report_page(
    views: Sequence[EvidenceView],
    *,
    title: str | None = None,
    failures: Sequence[Failure] = (),
    bank_map: MapView | None = None,
    blind: bool = False,
) -> str:
    """One self-contained page as HTML; of several images with an overview to filter.

    ``failures`` : inputs that could not be judged, named in the overview; ``blind`` : the evidence comes
    before the verdicts, which must be opened.
    """
    several = len(views) != 1 or bool(failures)
    if several:
        names = shortened(view.name for view in views)
        views = [replace(view, short=names[view.name]) for view in views]
        usual = t.TITLE_MANY.format(n=len(views))
        pictures = [view.picture for view in views]
        pictures += [r.picture for view in views for r in (*view.real, *view.fake)]
        shared = {picture.key: picture for picture in pictures if picture.data and picture.key}
    else:  # a heading has no room for folders; they stand among the facts
        usual, shared = t.TITLE_ONE.format(name=views[0].short), {}
    return _page(
        "report.html",
        title or usual,
        script=SCRIPT if several else "",
        views=views,
        shared=shared,
        several=several,
        summary=list(_summary(views)),
        verdicts=[name for name in words.SHORT if any(view.judged.verdict == name for view in views)],
        generators=sorted({view.attribution[0].name for view in views if view.attribution}),
        places=[(v.name, v.place, f"image-{n}") for n, v in enumerate(views, start=1) if v.place],
        failures=failures,
        bank_map=bank_map,
        blind=blind,
    )


def write_html(path: Path, views: Sequence[EvidenceView], **options: Unpack[ReportOptions]) -> None:
    """Write ``report_page`` to a file, all or nothing."""
    write_bytes(path, report_page(views, **options).encode("utf-8", "replace"))


def glance_page(view: GlanceView) -> str:
    """One self-contained page with the verdict and the nearest references, as text."""
    return _page("glance.html", t.TITLE_ONE.format(name=view.name), view=view)


def write_map(path: Path, bank_map: MapView) -> None:
    """Write one self-contained page with the map of the banks, all or nothing."""
    write_bytes(path, _page("map.html", bank_map.title, bank_map=bank_map).encode("utf-8", "replace"))


def _page(template: str, title: str, *, script: str = "", **shown: Any) -> str:
    rules = (
        "default-src 'none'",
        "img-src data:",
        f"style-src {_digest(STYLE)}",
        f"script-src {_digest(script)}" if script else "script-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
    made = _environment().get_template(template)
    return made.render(title=title, policy="; ".join(rules), style=STYLE, script=script, **shown)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _summary(views: Sequence[EvidenceView]) -> Iterator[str]:
    counts: Counter[str] = Counter(view.judged.verdict for view in views)
    named = ", ".join(f"{counts[name]:,} {said}" for name, said in words.SHORT.items() if counts[name])
    yield t.OVERVIEW_NOTE.format(judged=words.number(len(views), "image"), counts=named)
    rates = {view.alarm_rate for view in views}
    if len(rates) == 1 and (rate := rates.pop()) is not None:
        yield t.OVERVIEW_ALARMS.format(n=round(rate * len(views)), of=len(views))


# ---------------------------------------------------------------- what templates know


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("retrieval_detect.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"t": t, "words": words}
    made.filters |= {"steps": _steps, "signed": _signed, "view_name": _view_name}
    return made


def _steps(heights: Sequence[float], *, width: int, base: int, height: int) -> str:
    """A histogram as the path of an SVG. ``heights`` : of the bins, 0…1."""
    step = width / len(heights)
    tops = (f"V{base - height * h:.1f}H{step * (i + 1):.1f}" for i, h in enumerate(heights))
    return f"M0 {base}{''.join(tops)}V{base}Z"


def _signed(value: float) -> str:
    """``+1.45``; what rounds to zero has no sign."""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def _view_name(view: str) -> str:
    """``JPEG, quality 72`` for ``jpeg-72``."""
    kind, *numbers = view.split("-")
    return t.VIEW_NAMES.get(kind, view).format(*numbers)
