"""What people read: the bank that is nearer, with numbers; never that an image is fake or authentic."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from retrieval_detect.report.words import (
    BECAUSE,
    attribution,
    counted,
    describe,
    evidence_lines,
    full,
    headline,
    number,
    one_line,
    summary,
)
from retrieval_detect.verdicts import Attribution
from tests.verdicts import CALIBRATED, FAKE, REAL, VERDICT


def plain(line):
    return "".join(part if isinstance(part, str) else part[0] for part in line)


def shown(verdict):
    return [plain(line) for line in full(verdict)]


def test_one_image():
    assert shown(replace(VERDICT, same_image=(REAL,))) == [
        "photo.jpg  closer to the FAKE bank     uncalibrated score +1.74",
        "  nearest  1 of 2 are fake (fakes are 49 % of the references)   best fake 0.912   best real 0.800",
        "  nearest fakes  5 sdxl, 2 unnamed; the true tool may be absent",
        "  same image  0.800  real  camera  real/7.jpg",
        "  note     96×96 is smaller than the encoder's 224×224",
        "  note     second",
        "  bank     default, generation 7: 1,495 real, 1,440 fake, 5 generators · ViT-L-14:openai",
    ]


def test_one_image_calibrated():
    assert shown(CALIBRATED)[:5] == [
        "photo.jpg  closer to the FAKE bank     log10 likelihood ratio +1.1",
        "  4 of 1,250 calibration photographs (6 sources) score this high; this says nothing about other",
        "  cameras or sites, and is not the chance of a fake",
        "  judged at 5 % false alarms among such photographs (--fpr)",
        "  with 1 % fakes among such images, 11.3 % of those that score so are fakes",
    ]
    assert shown(CALIBRATED)[5:] == shown(VERDICT)[1:]


def test_without_a_prior_no_chance_is_stated():
    lines = shown(replace(CALIBRATED, prior=None, probability=None))
    assert lines == [line for line in shown(CALIBRATED) if "with 1 %" not in line]


@pytest.mark.parametrize(
    ("verdict", "said", "which"),
    [("uncertain", "UNCERTAIN", "both banks"), ("unknown", "UNKNOWN", "neither bank")],
)
def test_an_undecided_headline_says_why(verdict, said, which):
    line = headline(replace(CALIBRATED, verdict=verdict))
    assert (said, "warning") in line and which in plain(line)
    assert "closer to the" not in plain(line)


def test_one_generator_is_no_plural():
    single = replace(VERDICT, index=replace(VERDICT.index, n_generators=1))
    assert "1,440 fake, 1 generator · " in shown(single)[-1]


@pytest.mark.parametrize(
    ("score", "verdict", "said"), [(-0.5, "real-like", "REAL"), (0.5, "fake-like", "FAKE")]
)
def test_the_bank_is_named_in_its_style(score, verdict, said):
    line = headline(replace(VERDICT, score=score, verdict=verdict))
    assert (said, said.lower()) in line and f"score {score:+.2f}" in plain(line)


def test_many_copies_of_one_image_are_counted():
    lines = shown(replace(VERDICT, same_image=(FAKE,) * 12))
    assert sum(line.startswith("  same image") for line in lines) == 4
    assert "  same image  and 9 more" in lines


def test_among_many():
    line = plain(one_line(VERDICT))
    assert line.startswith("closer to the FAKE bank") and line.endswith("photo.jpg")
    assert " 1 of 2 nearest are fake" in line


def test_nothing_is_ever_called_fake_or_authentic():
    names = ("fake-like", "real-like", "uncertain", "unknown")
    verdicts = [replace(before, verdict=name) for before in (VERDICT, CALIBRATED) for name in names]
    everything = "\n".join([*(line for v in verdicts for line in shown(v)), *many(), *flagged()]).lower()
    for claim in ("is fake", "is real", "is ai", "authentic", "genuine", "probability", "confidence"):
        assert claim not in everything


def test_generators_by_how_many_they_gave():
    many = tuple(Attribution(f"g{n}", n, 1 / 7) for n in (1, 3, 0, 2, 5, 1, 4))
    assert attribution(replace(VERDICT, attribution=many)) == "5 g5, 4 g4, 3 g3, 2 g2, 2 from 2 others"
    assert attribution(replace(VERDICT, attribution=many[:5])) == "5 g5, 3 g3, 2 g2, 1 g1"
    assert attribution(replace(VERDICT, attribution=many), most=6).endswith("1 g1, 1 g1")


def test_evidence_says_what_it_is_not():
    assert [plain(line) for line in evidence_lines(VERDICT, 1)] == [
        "  the nearest references",
        "    1  0.912  fake  sdxl  fake/sdxl/17.png",
        f"  {BECAUSE}",
    ]
    assert evidence_lines(VERDICT, 0) == []
    assert describe(replace(FAKE, generator="")) == "0.912  fake  unnamed  fake/sdxl/17.png"


def many():
    return [
        *summary(Counter({"fake-like": 2, "real-like": 1200}), 0, rate=41.234, fpr=None),
        *summary(Counter({"real-like": 1}), 1, rate=0.5, fpr=None),
        *summary(Counter(), 3, rate=9.0, fpr=None),
    ]


def test_what_a_batch_came_to():
    assert many() == [
        "1,202 images: 2 closer to the fake bank, 1,200 to the real bank; 41.2 images/s",
        "Scores are uncalibrated: how many photographs score this high by chance is not known.",
        "1 image: 0 closer to the fake bank, 1 to the real bank, 1 input could not be used; 0.5 images/s",
        "Scores are uncalibrated: how many photographs score this high by chance is not known.",
        "No image was judged: 3 inputs could not be used.",
    ]


def flagged():
    counts = Counter({"fake-like": 60, "real-like": 900, "uncertain": 4, "unknown": 1})
    return summary(counts, 0, rate=9, fpr=0.05)


def test_what_a_calibrated_batch_came_to():
    assert flagged() == [
        "965 images: 60 closer to the fake bank, 900 to the real bank, 4 uncertain, 1 unknown; 9.0 images/s",
        "If all 965 were photographs like those of the calibration, about 48 would be called fake-like.",
    ]


def test_counting_words():
    assert [number(n, "image") for n in (0, 1, 2, 12345)] == [
        "0 images",
        "1 image",
        "2 images",
        "12,345 images",
    ]
    assert counted({"": 4, "sdxl": 1200}) == "unnamed 4, sdxl 1,200" and counted({}) == "-"
