"""The report as a file: everything is in it, nothing is loaded, and hostile text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from retrieval_detect.images.content_id import content_id
from retrieval_detect.report.html import strings as t
from retrieval_detect.report.html.records import Dot, Kind, MapView
from retrieval_detect.report.html.write import SCRIPT, STYLE, evidence_fragment, write_html, write_map
from retrieval_detect.report.words import FITS, NEXT
from retrieval_detect.types import Claim, Failure, Provenance
from retrieval_detect.verdicts import Question, WithBeside
from tests.factories import png
from tests.html_views import FULL, HOSTILE, reference, viewer
from tests.verdicts import CALIBRATED, VERDICT


class Elements(HTMLParser):
    """Every element with its attributes, and all text outside style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._raw = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def tags(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def page_of(tmp_path, *views, **options):
    path = tmp_path / "report.html"
    write_html(path, views, **options)
    return path.read_text(encoding="utf-8")


def bank_map():
    dots = (Dot(0.1, 0.2, 0, "real", "real, camera, row 1"), Dot(0.9, 0.8, 1, "fake", HOSTILE))
    return MapView(
        "Map",
        (Kind("photographs", "real", 1, "real0"), Kind(HOSTILE, "fake", 1, "fake0")),
        dots,
        ("a note",),
        (0.5, 0.5),
    )


# ---------------------------------------------------------------- what is in it


def test_every_part_is_there(tmp_path):
    shown = viewer().view(FULL, png(1), question=Question(stability=2, regions="max", influence=True))
    text = Elements(page_of(tmp_path, replace(shown, place=(0.5, 0.5)), bank_map=bank_map())).text
    for heading in (
        *(t.VERDICT, t.REFERENCES, t.REFERENCES_REAL, t.REFERENCES_FAKE, t.VOTES, t.ATTRIBUTION),
        *(t.DISTRIBUTION, t.STABILITY, t.REGIONS, t.INFLUENCE, t.MAP, t.PROVENANCE, t.LIMITS, t.REPRODUCE),
        *(t.WARNINGS, t.SAME_IMAGE),
    ):
        assert heading in text, heading
    for said in (
        "each judged like the image itself: 1 of 2 re-encodings agree. The answer depends on how",
        "log10 likelihood ratio +1.1",
        "about 13 times as frequent among images of known generators",
        "4 of 1,250 calibration photographs, from 6 sources, score this high.",
        "of 1,000 photographs like those of the calibration, about 50 would be called fake-like",
        "With 1 % fakes among such images, as was stated for this report and not measured, 11.3 %",
        "neither a source nor proof",
        "1 of the 2 nearest references are fake, while fakes are 49 % of all references",
        "5 sdxl, 2 unnamed; the true tool may be absent",
        "64 × 64 pixels",
        "JPEG, quality 72",
        "sdxl: all 12 (fake) +0.50 -1.24",
        "nobody would be left to vote",
        "4 of 100 calibration photographs with as many crops or more have one as high",
        "0f" * 32,
        "generation 7",
        "rd query photo.jpg --index default --stability 2 --regions --evidence influence",
    ):
        assert said in text, said


def test_what_may_be_concluded_comes_first(tmp_path):
    text = Elements(page_of(tmp_path, viewer().view(CALIBRATED))).text
    headline = text.index("FAKE-LIKE: rarer than 99 %")
    assert headline < text.index(NEXT["rare-among-photographs"]) < text.index("log10 likelihood ratio")
    assert "Photographs from elsewhere: each of 6 sources left out in turn, 8 % of its photographs" in text
    assert "What counts as fake here is what the fake bank holds" in text


def test_the_usual_question_gives_a_short_command():
    assert viewer().view(CALIBRATED).command == "rd query photo.jpg --index default"
    asked = Question(fpr=0.01, prior=0.2, source="my cam")
    command = viewer().view(CALIBRATED, question=asked).command
    assert command == "rd query photo.jpg --index default --fpr 0.01 --within 'source=my cam' --set prior=0.2"


def test_what_lay_beside_is_part_of_the_question():
    p_values = dict.fromkeys(("real", "fake", "typical", "scenes"))
    laid = WithBeside(
        *("uncertain", "fits-beside", 0.5, p_values, 4, 19, None),
        supplier="my agency",
        date=None,
        digest="",
        pictures=(),
        refused=(),
    )
    command = viewer().view(replace(CALIBRATED, beside=laid)).command
    assert command == "rd query photo.jpg --index default --beside 'DIR,supplier=my agency'"


def test_without_a_calibration_no_rate_is_claimed(tmp_path):
    text = Elements(page_of(tmp_path, viewer().view(VERDICT))).text
    assert "score +1.74" in text and t.UNCALIBRATED_NOTE in text
    for absent in ("likelihood", "calibration photographs", "would be called", t.DISTRIBUTION, "probability"):
        assert absent not in text


def test_nothing_is_ever_called_fake_or_authentic(tmp_path):
    verdicts = [replace(CALIBRATED, reason=reason) for reason in FITS]
    text = Elements(page_of(tmp_path, *map(viewer().view, verdicts))).text.lower()
    assert not re.search(r"(this|the) (image|photograph|picture) is (a )?(fake|real|authentic|genuine)", text)
    for words in (
        "rarer than 99 % of the photographs",
        "no sign of the known generators",
        "fits photographs and known generators alike",
        "fits neither",
    ):
        assert words in text


def test_a_rate_of_false_discoveries_is_not_a_rate_of_false_alarms():
    shown = viewer().view(replace(CALIBRATED, fdr=0.1))
    assert any("about 10 % or fewer are photographs" in sentence for sentence in shown.sentences)
    assert not any("false alarms" in sentence for sentence in shown.sentences) and shown.alarm_rate is None


@pytest.mark.parametrize(
    ("rate", "said"),
    [(0.05, "of 1,000 photographs"), (0.0002, "of 100,000 photographs"), (0.0002, "about 20 ")],
)
def test_rates_are_said_in_people(rate, said):
    shown = viewer().view(replace(CALIBRATED, alpha={"real": rate, "fake": 0.05}))
    assert any(said in sentence for sentence in shown.sentences)


def test_ratios_go_both_ways():
    less = viewer().view(replace(CALIBRATED, log10_lr=-2.0)).sentences
    said = (
        "about 100 times as frequent among photographs of known sources as among images of known generators"
    )
    assert any(said in sentence for sentence in less)
    equal = t.TIMES_EQUAL.format(**t.PROPOSITIONS["new"])
    new = replace(CALIBRATED, log10_lr=0.1, photographs="new")
    assert equal in viewer().view(new).sentences and "not in the index" in equal


def test_a_rate_is_of_what_it_was_asked_of():
    known, new = (viewer().view(replace(CALIBRATED, photographs=p)).sentences for p in ("known", "new"))
    said = "about 50 would be called fake-like"
    assert any(said in sentence for sentence in known) and not any(said in sentence for sentence in new)
    assert any("about 50 would score high enough; called fake-like are those" in sentence for sentence in new)


def test_what_the_encoder_is_stands_beside_its_name_and_not_among_warnings(tmp_path):
    note = f"encoder {CALIBRATED.encoder}: a note"
    shown = viewer().view(replace(CALIBRATED, warnings=(note, "another")))
    assert shown.warnings == ("another",)
    assert f"{CALIBRATED.encoder} (a note)" in [fact.value for fact in shown.reproduce]
    alone = viewer().view(replace(CALIBRATED, warnings=(note,)))
    assert t.WARNINGS not in Elements(page_of(tmp_path, alone)).text


def test_paths_are_as_long_as_tells_them_apart(tmp_path):
    uris = ["/data/a/1.png", "/data/b/1.png"]
    fakes = tuple(reference(i, uri) for i, uri in enumerate(uris))
    verdict = replace(
        FULL, by_bank={"fake": fakes, "real": ()}, same_image=fakes, evidence=(), input="/q/a/photo.jpg"
    )
    elements = Elements(
        page_of(tmp_path, viewer().view(verdict), viewer().view(replace(verdict, input="/q/b/photo.jpg")))
    )
    assert [a["title"] for a in elements.tags("dd") if a.get("title")] == uris * 2
    assert [a["title"] for a in elements.tags("li") if a.get("title")] == uris * 2
    assert "/data/a/1.png" not in elements.text and "a/1.png" in elements.text
    links = [a["title"] for a in elements.tags("a") if a.get("title")]
    assert links == ["/q/a/photo.jpg", "/q/b/photo.jpg"] and "b/photo.jpg" in elements.text


def test_how_many_show_the_same_subject():
    known = viewer(categories={81: "shoe", 7: "shoe"}).view(FULL)
    assert known.subjects == "Of the 2 shown whose subject is recorded, 2 show the same: shoe."
    assert viewer().view(FULL).subjects == t.NO_SUBJECTS


def test_the_score_among_those_of_known_images():
    found = viewer().view(CALIBRATED).distribution
    assert [h.n for h in found.histograms] == [60, 40] and 0 < found.at < 1
    assert found.low < found.score < found.high and max(found.histograms[0].heights) == 1
    far = viewer().view(replace(CALIBRATED, score=50.0)).distribution
    assert far.high > 50 and far.at < 1 and "0 score as high or higher" in far.sentence


def test_what_the_file_says_stands_apart():
    claims = (Claim("exif", "camera", "X <b>100</b>"), Claim("c2pa", "signed", trusted=True))
    shown = viewer().view(replace(FULL, provenance=Provenance(claims=claims, damaged=("xmp",))))
    assert [fact.name for fact in shown.provenance] == ["exif", "c2pa", "xmp"]
    assert t.SIGNED in shown.provenance[1].value and shown.provenance_note == t.PROVENANCE_NOTE
    assert "&lt;b&gt;100" in evidence_fragment(shown) and "<b>100" not in evidence_fragment(shown)
    assert viewer().view(replace(FULL, provenance=Provenance())).provenance_note == t.NO_PROVENANCE
    assert viewer().view(replace(FULL, provenance=None)).provenance_note == t.NOT_LOOKED_FOR


# ---------------------------------------------------------------- blind


def test_blind_hides_the_verdict_until_it_is_opened(tmp_path):
    article = evidence_fragment(viewer().view(FULL), blind=True)
    before, hidden = article.split('<details class="hidden"', 1)
    for told in ("UNCERTAIN", "likelihood ratio", "calibration photographs", "uncertain"):
        assert told not in before and told in hidden, told
    assert t.REFERENCES in before and t.VOTES in before
    overview = page_of(tmp_path, *[viewer().view(FULL)] * 2, blind=True).split("<article", 1)[0]
    for told in ("UNCERTAIN", "data-verdict", 'name="verdict"', "likelihood ratio"):
        assert told not in overview.split("</style>")[1], told


# ---------------------------------------------------------------- hostile text


def hostile():
    bad = replace(reference(1), generator=HOSTILE, uri=HOSTILE)
    verdict = replace(
        FULL,
        input=HOSTILE,
        by_bank={"fake": (bad,), "real": (replace(bad, label="real", source=HOSTILE),)},
        warnings=(HOSTILE,),
        provenance=Provenance(claims=(Claim("exif", HOSTILE, HOSTILE),), damaged=(HOSTILE,)),
    )
    return viewer(categories={1: HOSTILE}).view(verdict)


def test_a_name_with_script_in_it_does_nothing(tmp_path):
    failures = [Failure(HOSTILE, "corrupt", HOSTILE)]
    page = Elements(
        page_of(tmp_path, hostile(), hostile(), failures=failures, bank_map=bank_map(), title=HOSTILE)
    )
    assert len(page.tags("script")) == 1 and page.text.count("<script>alert(1)</script>") > 10
    assert not [name for _, attrs in page.found for name in attrs if name.startswith("on")]
    assert all((attrs["src"] or "").startswith("data:image/webp;base64,") for attrs in page.tags("img"))


@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_loaded_from_anywhere(tmp_path, several):
    views = [hostile(), viewer().view(FULL, png(1))][: 1 + several]
    page = page_of(tmp_path, *views, bank_map=bank_map())
    assert "http:" not in page and "https:" not in page and "//" not in re.sub(r"data:[^\"]+", "", STYLE)
    elements = Elements(page)
    for tag, attrs in elements.found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "href", "action", "poster", "srcset"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/webp;base64,"))
        assert "style" not in attrs
    (policy,) = [a["content"] for a in elements.tags("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for text in [STYLE, *[SCRIPT] * several]:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
        assert text in page


def test_lone_surrogates_of_file_names_can_be_written(tmp_path):
    assert "caf?" in page_of(tmp_path, viewer().view(replace(VERDICT, input="caf\udce9")))


# ---------------------------------------------------------------- pictures


def on_disk(tmp_path, seed=5):
    path = tmp_path / f"{seed}.png"
    path.write_bytes(png(seed))
    fake = reference(seed, str(path), content_id=content_id(png(seed)).hex())
    return path, replace(FULL, by_bank={"fake": (fake,), "real": ()})


def picture_of(verdict, **options):
    return viewer(**options).view(verdict).fake[0].picture


def test_a_reference_is_shown_from_its_file(tmp_path):
    path, verdict = on_disk(tmp_path)
    shown = picture_of(verdict)
    assert shown.data.startswith("data:image/webp;base64,") and (shown.width, shown.height) == (64, 64)
    path.write_bytes(png(6))
    assert (picture_of(verdict).data, picture_of(verdict).note) == ("", t.CHANGED)
    path.unlink()
    assert (picture_of(verdict).data, picture_of(verdict).note) == ("", t.GONE)


def test_a_file_that_is_no_image_is_a_tile(tmp_path):
    path, verdict = on_disk(tmp_path)
    path.write_bytes(b"no image")
    broken = replace(verdict.by_bank["fake"][0], content_id=content_id(b"no image").hex())
    assert picture_of(replace(verdict, by_bank={"fake": (broken,), "real": ()})).note == t.NOT_READ


def test_pictures_can_be_left_out_or_blurred(tmp_path):
    _, verdict = on_disk(tmp_path)
    assert "data:" not in evidence_fragment(
        viewer(thumbnails=False).view(replace(verdict, regions=None), png(1))
    )
    sharp, blurred = picture_of(verdict), picture_of(verdict, blur_faces=True)
    assert blurred.note == t.BLURRED and blurred.data != sharp.data and len(blurred.data) < len(sharp.data)


def test_a_report_of_many_holds_each_picture_once(tmp_path):
    _, verdict = on_disk(tmp_path)
    shown = viewer().view(verdict)
    page = page_of(tmp_path, *[replace(shown, name=f"{n}.jpg") for n in range(5)])
    assert page.count(shown.fake[0].picture.data) == 1
    assert page.count(f'href="#{shown.fake[0].picture.key}"') == 5


def test_every_picture_has_words(tmp_path):
    _, verdict = on_disk(tmp_path)
    elements = Elements(page_of(tmp_path, viewer().view(verdict, png(1))))
    assert len(elements.tags("img")) == 3 and all(attrs["alt"] for attrs in elements.tags("img"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in elements.tags("svg"))


# ---------------------------------------------------------------- many


def test_an_overview_links_to_each(tmp_path):
    views = [viewer().view(replace(CALIBRATED, input=f"{n}.jpg")) for n in range(3)]
    failures = [Failure("bad.jpg", "corrupt", "the file is damaged")]
    elements = Elements(page_of(tmp_path, *views, failures=failures))
    targets = {attrs["id"] for attrs in elements.tags("article")}
    links = [attrs["href"][1:] for attrs in elements.tags("a") if attrs["href"] != "#overview"]
    assert links == ["image-1", "image-2", "image-3"] and set(links) == targets
    assert "3 images: 3 fake-like." in elements.text
    assert "about 0 of 3 would score so high" in elements.text
    assert "bad.jpg: the file is damaged" in elements.text


def test_the_map_alone_is_a_page_too(tmp_path):
    write_map(tmp_path / "map.html", bank_map())
    elements = Elements((tmp_path / "map.html").read_text())
    assert len(elements.tags("title")) == 1 + 2 + 1 and not elements.tags("script")
    assert [attrs["class"] for attrs in elements.tags("rect") if "class" in attrs] == ["real0", "real0"]
