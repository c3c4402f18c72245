"""The page in a real browser: what people do with it, with a mouse, a keyboard, in the dark."""

from __future__ import annotations

import json
import shutil

import pytest

from retrieval_detect.report.paths import shortened
from retrieval_detect.teach import measure
from retrieval_detect.teach.build import Index
from tests.pixels import require_bars, require_legend
from tests.serving import TOKEN, add, calibrate, pictures, server, small_index

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

HOSTILE = "<img src=x onerror=window.stolen=1><script>window.stolen=1</script>.png"
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = small_index(tmp_path_factory.mktemp("page"))
    with server(folder, poll_s=0.2) as url:
        yield url


@pytest.fixture
def own_server(folder):
    """Of an index that the test changes; gives the address and the index."""
    with server(folder, poll_s=0.05) as url:
        yield url, folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def open_page(browser, served):
    contexts = []

    def open_one(url=served, size=(1120, 760), **options):
        context = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.complaints, page.requested = [], []
        page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()


def file(name, data):
    return {"name": name, "mimeType": "image/png", "buffer": data}


def given(*data, names=None):
    return [file(names[i] if names else f"picture-{i}.png", one) for i, one in enumerate(data)]


def drop(page, name, data):
    """What a browser does when a file is dropped on the page."""
    page.evaluate(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            document.getElementById("drop").dispatchEvent(
                new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        [name, list(data)],
    )


def finished(page, n):
    page.wait_for_function(
        "n => [...document.querySelectorAll('#list .said')].filter("
        "said => !/waiting|working/.test(said.textContent)).length === n",
        arg=n,
    )


def test_a_dropped_image_gets_its_verdict_and_evidence(open_page, served):
    page = open_page()
    drop(page, "dropped.png", pictures(1, fake=True)[0])
    page.wait_for_selector("#evidence article.evidence")
    said = page.locator("#list .said").inner_text()
    assert said == "unknown"
    assert page.locator("#evidence .reference").count() >= 2
    shown = page.locator("#evidence img").evaluate_all(
        "all => all.map(i => i.complete && i.naturalWidth > 0)"
    )
    assert shown and all(shown)
    assert "UNKNOWN: uncalibrated; nearer to the " in page.locator("#evidence .headline").inner_text()
    assert page.locator("#evidence .strength").inner_text().startswith("score ")
    assert page.get_by_role("button", name="Lay photographs beside").count() == 0  # they could change nothing
    assert page.complaints == []
    own = (served, "data:", "blob:")
    assert [url for url in page.requested if not url.startswith(own)] == []
    require_bars(page)


def test_ten_at_once_and_one_of_them_broken(open_page):
    page = open_page()
    page.set_input_files("#files", [*given(*pictures(9)), file("broken.png", b"this is no image")])
    finished(page, 10)
    assert page.locator("#list li").count() == 10
    assert "10 images" in page.locator("#counts").inner_text()
    assert "1 not usable" in page.locator("#counts").inner_text()
    page.locator("#list button", has_text="broken.png").click()
    assert "could not be used" in page.locator("#evidence").inner_text()
    page.select_option("#filter", "failed")
    assert page.locator("#list li:visible").count() == 1
    page.select_option("#filter", "")
    page.locator("#list button").first.click()
    page.wait_for_selector("#evidence article.evidence")


def test_by_keyboard_alone(open_page):
    page = open_page()
    page.on("filechooser", lambda chooser: chooser.set_files(given(*pictures(2))))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
        if seen[-1] == "pick-files":
            break
    assert seen[-1] == "pick-files"
    page.keyboard.press("Enter")
    finished(page, 2)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#list li button')"):
            break
    page.keyboard.press("ArrowUp")  # to the first, or there is none above
    page.keyboard.press("ArrowDown")
    assert page.locator("#list li:nth-child(2) button").get_attribute("aria-current") == "true"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    assert "2 images" in page.locator("#announce").inner_text()


def focused(page, selector):
    return page.evaluate("selector => document.activeElement.matches(selector)", selector)


def test_the_list_is_one_stop_of_tab(open_page):
    page = open_page()
    page.set_input_files("#files", [*given(*pictures(3)), file("broken.png", b"this is no image")])
    finished(page, 4)
    page.focus("#list button[tabindex='0']")
    page.keyboard.press("Tab")
    assert not focused(page, "#list button")
    page.select_option("#filter", "failed")  # what had the stop is hidden
    page.focus("#list button[tabindex='0']")
    assert "broken.png" in page.locator(":focus").inner_text()


def test_an_image_and_a_reference_side_by_side(open_page):
    page = open_page()
    drop(page, "asked.png", pictures(1)[0])
    compare = page.locator("#evidence .compare")
    compare.first.wait_for()
    assert compare.count() == page.locator("#evidence .reference").count()
    compare.nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare[open]")
    n = compare.count()
    assert (
        page.locator("#compare-words").inner_text().startswith(f"Reference 2 of {n}: real bank, similarity")
    )
    shown = (
        "id => { const i = document.getElementById(id); return i.complete && i.naturalWidth > 0 && i.alt; }"
    )
    for id_ in ("compare-image", "compare-reference"):
        page.wait_for_function(shown, arg=id_)
    boxes = [page.locator(f"#compare-{one}").bounding_box() for one in ("image", "reference")]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["width"] == boxes[1]["width"] > 300
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert (
        page.locator("#compare-words").inner_text().startswith(f"Reference {n} of {n}: fake bank, similarity")
    )
    page.keyboard.press("Escape")
    assert page.locator("#compare[open]").count() == 0
    assert compare.nth(1).evaluate("button => button === document.activeElement")
    assert page.complaints == []


def test_what_images_are_compared_with_stands_on_the_first_screen(open_page):
    page = open_page()
    page.wait_for_selector("#bank-real:has-text('20 photographs')")
    assert page.locator("#bank-real").inner_text() == "20 photographs of 2 sources: camera, phone"
    assert page.locator("#bank-fake").inner_text() == "20 generated images of 2 generators: flux, gan"
    assert "A bank is all references of one label" in page.locator("#compared").inner_text()
    box = page.locator("#compared").bounding_box()
    assert box["y"] + box["height"] <= 760


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = small_index(tmp_path_factory.mktemp("calibrated"))
    add(Index.open(folder), folder.parent / "more", "real", "phone", range(4000, 4120))
    add(Index.open(folder), folder.parent / "others", "fake", "flux", range(5000, 5120))
    with server(calibrate(folder), poll_s=0.2) as url:
        yield url


def test_another_way_of_judging(open_page, calibrated):
    page = open_page(calibrated)
    page.wait_for_selector("#asked:has-text('density')")
    page.set_input_files("#files", given(*pictures(2, fake=True)))
    finished(page, 2)
    page.wait_for_selector("#evidence article")
    assert (
        "at 5 % false alarms, photographs of any source, by density" in page.locator("#asking").inner_text()
    )
    page.click("#asking summary")
    page.get_by_label("If it is a photograph, it may be").select_option("known")
    page.get_by_label("Photographs wrongly called fake-like").select_option("0.1")
    assert "2 answers were given by another" in page.locator("#changed").inner_text()
    assert page.locator("#list .before").all_inner_texts() == ["judged otherwise"] * 2
    said = page.locator("#evidence > .panel").inner_text()
    assert "This answer was given at 5 % false alarms, photographs of any source, by density" in said
    with page.expect_request("**/v1/query?*") as asked:
        page.locator("#changed button").click()
    assert "photographs=known&fpr=0.1&evidence=html" in asked.value.url
    page.wait_for_function("() => !document.querySelector('.before')")
    page.wait_for_selector("#evidence :text('Judged at 10 % false alarms')")
    page.get_by_label("Method").select_option("mean")
    assert (
        page.locator("#fpr").is_disabled() and "by mean, uncalibrated" in page.locator("#asking").inner_text()
    )
    page.get_by_label("Method").select_option("density")
    assert page.locator(".before, #changed:visible").count() == 0  # asked as it was answered


def test_photographs_laid_beside(open_page, calibrated):
    page = open_page(calibrated)
    page.set_input_files("#files", given(*pictures(1, fake=True), names=["asked.png"]))
    page.get_by_role("button", name="Lay photographs beside").click()
    page.wait_for_selector("#lay[open]")
    page.get_by_role("button", name="Leave it").click()
    assert page.locator("#lay[open]").count() == 0
    page.get_by_role("button", name="Lay photographs beside").click()
    page.get_by_role("button", name="Ask with them").click()
    assert page.locator("#lay[open]").count() == 1  # no photographs are chosen
    page.set_input_files("#lay-files", given(*pictures(3, since=6000)))
    page.fill("#lay-supplier", "agency <b>")
    page.keyboard.press("Enter")
    page.wait_for_selector("#evidence .laid")
    said = page.locator("#evidence .laid").inner_text()
    assert "3 photographs of " in said and "Supplied by agency <b>" in said and "without them" in said
    assert "with photographs beside" in page.locator("#list .said").inner_text()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save report").click()
    assert "Supplied by agency &lt;b&gt;" in saved.value.path().read_text(encoding="utf-8")
    page.get_by_role("button", name="Lay photographs beside").click()
    page.set_input_files("#lay-files", given(b"no image"))
    page.get_by_role("button", name="Ask with them").click()
    page.wait_for_selector(".tools :text('none can be used')")
    assert page.locator("#evidence .laid").count() == 1  # the answer before stays


def test_reports_are_saved(open_page):
    page = open_page()
    page.set_input_files("#files", given(*pictures(2), names=["a.png", "b.png"]))
    finished(page, 2)
    page.locator("#list button").nth(1).click()
    for button, name, n in (
        ("#evidence .tools button:has-text('report')", "evidence-b.png.html", 1),
        ("#save-report", "evidence.html", 2),
    ):
        with page.expect_download() as saved:
            page.locator(button).first.click()
        assert saved.value.suggested_filename == name
        text = saved.value.path().read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>") and text.count("<article") == n


def test_on_paper_there_is_the_evidence_alone(open_page):
    page = open_page()
    page.set_input_files("#files", given(*pictures(2)))
    finished(page, 2)
    page.evaluate("window.print = () => { window.printed = true; }")
    page.get_by_role("button", name="Print").click()
    assert page.evaluate("window.printed")
    page.emulate_media(media="print")
    assert page.locator("#evidence .headline").is_visible()
    for hidden in (".masthead", "#drop", "#list", "#asking", ".tools"):
        assert not page.locator(hidden).first.is_visible(), hidden


def test_images_of_one_name_are_told_apart(open_page, tmp_path):
    page = open_page()
    for i, where in enumerate(("shoot/a", "shoot/b")):
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "1.png").write_bytes(pictures(2)[i])
    (tmp_path / "shoot" / "b" / "2.png").write_bytes(pictures(3)[2])
    page.set_input_files("#folder", tmp_path / "shoot")
    finished(page, 3)
    assert sorted(page.locator("#list .name").all_inner_texts()) == ["2.png", "a/1.png", "b/1.png"]
    titles = page.locator("#list button").evaluate_all("all => all.map(one => one.title)")
    assert sorted(titles) == ["shoot/a/1.png", "shoot/b/1.png", "shoot/b/2.png"]
    with page.expect_download() as saved:
        page.click("#save")
    assert sorted(v["input"] for v in json.loads(saved.value.path().read_text())) == sorted(titles)


def test_paths_are_shortened_as_in_reports(open_page):
    page = open_page()
    paths = ["/d/a/1.jpg", "/d/b/1.jpg", "/d/b/2.jpg", "1.jpg", "b/1.jpg"]
    found = page.evaluate("async paths => [...(await import('/static/dom.js')).shortened(paths)]", paths)
    assert dict(found) == shortened(paths)


def test_on_a_phone(open_page):
    page = open_page(size=(390, 844))
    page.wait_for_selector("#bank-real:has-text('photographs')")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_input_files("#files", given(*pictures(8)))
    finished(page, 8)
    page.wait_for_selector("#evidence .headline")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for part in (".masthead h1", "#list button", "#evidence img.query", "#evidence .headline"):
        box = page.locator(part).first.bounding_box()
        assert box["x"] >= 0 and box["y"] + box["height"] <= 844, (part, box)
    page.locator("#evidence .compare").first.click()
    right = page.locator("#compare-reference").bounding_box()
    assert right["x"] + right["width"] <= 390
    page.keyboard.press("Escape")
    page.click("#tab-banks")
    # Rows are drawn again when the server answers, so the button is looked up and measured at once.
    within = "document.querySelector('#history-rows button')?.getBoundingClientRect().right <= 390"
    page.wait_for_function(within)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_in_the_dark(open_page):
    page = open_page(color_scheme="dark")
    drop(page, "night.png", pictures(1)[0])
    page.wait_for_selector("#evidence article.evidence")
    light, dark = page.evaluate(
        """() => ["color", "backgroundColor"].map(name =>
            getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3)
                .reduce((a, b) => a + +b, 0) / 3)"""
    )
    assert dark < 60 and light > 180


def test_a_name_with_script_in_it_does_nothing(open_page):
    page = open_page()
    page.set_input_files("#files", given(pictures(1)[0], b"no image", names=[HOSTILE, f"two {HOSTILE}"]))
    finished(page, 2)
    page.wait_for_selector("#evidence article.evidence")
    page.locator("#list button").nth(1).click()
    assert "window.stolen" in page.locator("#evidence").inner_text()
    assert page.evaluate("window.stolen") is None
    assert page.locator("main script, main img[src=x]").count() == 0
    spills = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert page.locator("#list button").evaluate_all(spills) == 0  # a long name ends in an ellipsis
    assert page.complaints == [] or all("422" in said for said in page.complaints)


def test_teaching_shows_a_table_first(open_page):
    page = open_page()
    page.click("#tab-banks")
    page.wait_for_selector("#counts-rows tr")
    assert page.locator("#counts-rows tr").count() == 4
    page.click("#show-map")
    page.wait_for_selector("#map svg")
    assert require_legend(page) == 2
    page.set_input_files("#teach-files", given(*pictures(3, since=700, fake=True)))
    page.fill("#teach-name", "newgen")
    page.fill("#teach-by", "Ada <b>")
    page.click("#teach button.primary")
    page.wait_for_selector("#teach-result.wrong")
    assert "token" in page.locator("#teach-result").inner_text()
    assert "under Token" in page.locator("#teach-result").inner_text()
    page.fill("#token", "not the token of this server")
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-result.wrong")
    assert "not the token" in page.locator("#token-result").inner_text()
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-result:not(.wrong)")
    assert "is the token" in page.locator("#token-result").inner_text()
    page.click("#teach button.primary")
    page.wait_for_selector("#plan-rows tr")
    assert page.locator("#plan-rows tr").count() == 3
    assert page.locator("#counts-rows tr").count() == 4
    page.click("#confirm")
    page.wait_for_function("() => document.querySelectorAll('#counts-rows tr').length === 5")
    assert "newgen" in page.locator("#counts-rows").inner_text()
    assert page.locator("#history-rows tr").first.locator("td").all_inner_texts()[2:] == [
        "serve; +3 newgen",
        "Ada <b>",
    ]
    page.locator("#history-rows button", has_text="Back to 4").click()
    page.wait_for_selector("#back[open]")
    assert "generation 4" in page.locator("#back").inner_text()
    page.keyboard.press("Escape")
    page.locator("#history-rows button", has_text="Back to 4").click()
    page.keyboard.press("Enter")  # leaves it: what is at hand first changes nothing
    assert page.locator("#counts-rows tr").count() == 5
    page.locator("#history-rows button", has_text="Back to 4").click()
    page.click("#back-yes")
    page.wait_for_function("() => document.querySelectorAll('#counts-rows tr').length === 4")
    assert "generation 4 again" in page.locator("#teach-result").inner_text()


def test_answers_given_before_a_change_are_marked(open_page, own_server):
    url, folder = own_server
    page = open_page(url)
    page.set_input_files("#files", given(*pictures(2)))
    finished(page, 2)
    assert page.locator(".before, #changed:visible").count() == 0
    add(Index.open(folder), folder.parent / "more", "fake", "sdxl", range(150, 155))
    page.wait_for_selector("#changed:visible")
    assert "generation 5 answers now" in page.locator("#changed").inner_text()
    assert page.locator("#list .before").count() == 2
    assert "Generation 4 gave this answer" in page.locator("#evidence").inner_text()
    page.locator("#changed button").click()
    finished(page, 2)
    page.wait_for_function("() => !document.querySelector('.before')")
    assert page.locator("#changed:visible").count() == 0
    assert "5" in page.locator("#evidence .reproduce").inner_text()
    assert "before a change" not in page.locator("#evidence").inner_text()


def plan_newgen(page):
    """Give the token, and ask what adding two fakes of a new generator would do."""
    page.click("#tab-banks")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-result:has-text('is the token')")
    page.set_input_files("#teach-files", given(*pictures(2, since=700, fake=True)))
    page.fill("#teach-name", "newgen")
    page.click("#teach button.primary")
    page.wait_for_selector("#plan-rows tr")


def test_what_an_addition_changes_stands_on_the_page(open_page, folder, monkeypatch):
    monkeypatch.setattr(measure, "MIN_PHOTOGRAPHS", 10)
    with server(calibrate(folder), poll_s=0.05) as url:
        page = open_page(url)
        plan_newgen(page)
        assert page.locator("#teach-report").is_hidden()
        page.click("#confirm")
        page.wait_for_selector("#teach-result:has-text('2 references added')")
        assert "photographs flagged" in page.locator("#teach-report").inner_text()
        page.set_input_files("#teach-files", given(*pictures(1, since=800, fake=True)))
        page.click("#teach button.primary")
        page.wait_for_selector("#plan:not([hidden])")
        assert page.locator("#teach-report").is_hidden()  # it was of the addition before


def test_a_plan_can_be_tried_again_where_another_writer_was_at_work(open_page, own_server):
    url, folder = own_server
    page = open_page(url)
    plan_newgen(page)
    with Index.open(folder).store.writer():
        page.click("#confirm")
        page.wait_for_selector("#teach-result.wrong")
        assert "plan is kept" in page.locator("#teach-result").inner_text()
    page.click("#confirm")
    page.wait_for_selector("#teach-result:has-text('2 references added')")
