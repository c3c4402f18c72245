"""The page of a result: its curves, and that anybody can read them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from retrieval_detect.evaluate.context import Result
from retrieval_detect.evaluate.robustness import ROBUSTNESS
from retrieval_detect.report.page import Chart, charts, result_page, results_page, svg
from retrieval_detect.report.tables import cell

SVG = "{http://www.w3.org/2000/svg}"
CURVE = [i / 100 for i in range(101)]


def ranked(n=2, title="By generator"):
    curves = {f"m{i}": {"roc": CURVE, "pr": CURVE, "auroc": 0.5 + i / 100, "ap": 0.5} for i in range(n)}
    curves["rd"] = {"roc": [1.0] * 101, "pr": CURVE, "auroc": 0.4, "ap": None}
    return Result(
        "generators", title, ("column", "auroc"), ({"column": "sd<1>", "auroc": 0.4},), (), {"curves": curves}
    )


def test_rankings_are_drawn_with_their_area():
    roc, pr = charts(ranked())
    assert list(roc.series) == ["rd (0.400)", "m1 (0.510)", "m0 (0.500)"]
    assert list(pr.series) == ["rd", "m1 (0.500)", "m0 (0.500)"]
    assert roc.series["m1 (0.510)"][50] == (0.5, 0.5)


def test_rd_is_shown_however_many_others_there_are():
    roc, _ = charts(ranked(20))
    assert len(roc.series) == 7 and list(roc.series)[:2] == ["rd (0.400)", "m19 (0.690)"]


@pytest.mark.parametrize("setting", ["JPEG 90", "blur σ 1", "resize × 0.5"])
def test_every_strength_has_its_place(setting):
    row = {"setting": setting, "auroc": 0.9, "acc_fixed": 0.8, "flipped": 0.1}
    drawn = {c.x_name: c for c in charts(Result("robustness", "R", ("setting",), (row,)))}
    (one,) = (c for c in drawn.values() if c.series)
    assert one.series["auroc"] == [(0.0, 0.9)] and setting.endswith(one.ticks[0])


def test_settings_drawn_by_chance_have_no_place_on_an_axis():
    rows = tuple({"setting": name, "auroc": i / 100} for i, name in enumerate(ROBUSTNESS))
    drawn = list(charts(Result("robustness", "R", ("setting", "auroc"), rows)))
    placed = [round(100 * y) for chart in drawn for _, y in chart.series["auroc"]]
    assert [len(chart.ticks) for chart in drawn] == [10, 4, 5] and len(set(placed)) == len(placed) == 19
    names = [name for i, name in enumerate(ROBUSTNESS) if i in placed]
    assert all(name.startswith(("JPEG", "blur", "resize")) for name in names)
    assert sum(name.startswith("RINE") for name in ROBUSTNESS) == 5


def test_several_results_make_one_page():
    other = Result("few-shot", "Few <references>", ("n",), ({"n": 5, "generator": "a", "method": "rd"},))
    page = results_page([ranked(), other], {"index": "i"}, skipped={"quality": "no <opinions>"})
    assert page.count("<h1>") == 1 and page.count("<h2>") == 3 and page.count("<main>") == 1
    for name, title in (("generators", "By generator"), ("few-shot", "Few &lt;references&gt;")):
        assert f'<a href="#{name}">{title}</a>' in page and f'<section id="{name}">' in page
    assert "quality: no &lt;opinions&gt;" in page and page.index("</nav>") < page.index("<table>")
    assert "Not measured" not in results_page([ranked()], {}, skipped={})


def test_a_chart_is_a_drawing_by_itself():
    lines = {f"method <{i}>": [(0.0, 0.0), (1.0, 1.0)] for i in range(9)}
    root = ElementTree.fromstring(svg(Chart("A & B", lines, "x", ("none", 5))))
    assert root.tag == f"{SVG}svg" and root.get("aria-label") == "A & B"
    drawn = root.findall(f"{SVG}polyline")
    strokes = {(line.get("stroke"), line.get("stroke-dasharray")) for line in drawn[:7]}
    assert len(drawn) == 9 and len(strokes) == len({dashes for _, dashes in strokes}) == 7
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert "method <8>" in texts and "none" in texts and "5" in texts
    height = float(root.get("height"))
    assert all(
        float(y) < height for line in drawn for y in line.get("points").replace(",", " ").split()[1::2]
    )


def test_anybody_can_read_the_page():
    page = result_page(ranked(), {"index": "default"})
    assert 'scope="col"' in page and '<th scope="row">sd&lt;1&gt;</th>' in page and "<caption>" in page
    assert "color-scheme:light dark" in page and "@media print" in page
    assert "http" not in page.replace("http://www.w3.org", "") and "<script" not in page


def test_a_range_is_said_in_words():
    assert cell([0.9, 0.951]) == "0.900 to 0.951"


def test_intervals_stand_as_bands_behind_the_lines_that_have_them():
    rows = tuple(
        {"generator": "a", "method": method, "n": n, "recall": 0.5 + n / 20} | ends
        for method, ends in (("rd", {"recall_low": 0.25, "recall_high": 1.0}), ("other", {}))
        for n in (0, 5)
    )
    (chart,) = charts(Result("few-shot", "F", ("n",), rows))
    assert chart.series["rd"] == [(0.0, 0.5), (1.0, 0.75)]
    assert chart.bands == {"rd": [(0.0, 0.25, 1.0), (1.0, 0.25, 1.0)]}
    root = ElementTree.fromstring(svg(chart))
    (band,), line = root.findall(f"{SVG}polygon"), root.findall(f"{SVG}polyline")[0]
    corners = [tuple(map(float, p.split(","))) for p in band.get("points").split()]
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert [x for x, _ in corners] == [points[0][0], points[1][0], points[1][0], points[0][0]]
    assert all(
        above < y < below
        for (_, y), (_, above), (_, below) in zip(points, corners[:2], corners[:1:-1], strict=True)
    )
    assert band.get("fill") == line.get("stroke")
