"""What people read: the bank that is nearer, with numbers; never that an image is fake or authentic."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest

from retrieval_detect.report.words import (
    BECAUSE,
    FITS,
    NEXT,
    attribution,
    describe,
    evidence_lines,
    full,
    headline,
    one_line,
    summary,
)
from retrieval_detect.verdicts import Attribution, Reason
from tests.verdicts import CALIBRATED, FAKE, REAL, VERDICT


def plain(line):
    return "".join(part if isinstance(part, str) else part[0] for part in line)


def shown(verdict):
    return [plain(line) for line in full(verdict)]


def test_one_image():
    assert shown(replace(VERDICT, same_image=(REAL,))) == [
        "photo.jpg  UNKNOWN: uncalibrated; nearer to the fake bank     score +1.74",
        "  The score says which bank is nearer, and not how often a photograph scores so.",
        "  nearest  1 of 2 are fake (fakes are 49 % of the references)   best fake 0.912   best real 0.800",
        "  nearest fakes  5 sdxl, 2 unnamed; the true tool may be absent",
        "  same image  0.800  real  camera  real/7.jpg",
        "  note     96×96 is smaller than the encoder's 224×224",
        "  note     second",
        "  bank     default, generation 7: 1,495 real, 1,440 fake, 5 generators · ViT-L-14:openai",
    ]


def test_an_image_that_is_a_reference_says_that_first():
    itself = replace(REAL, content_id=VERDICT.sha256)
    for said in (
        shown(replace(VERDICT, same_image=(FAKE, itself)))[0],
        plain(one_line(replace(VERDICT, same_image=(itself,)))),
    ):
        assert "A REFERENCE ITSELF (real, camera); without itself UNKNOWN: uncalibrated" in said
    assert not any("REFERENCE ITSELF" in line for line in shown(replace(VERDICT, same_image=(REAL,))))


def test_a_head_does_not_speak_of_banks():
    (first, *_) = shown(replace(VERDICT, method="mine", score=-0.5))
    assert first == "photo.jpg  UNKNOWN: uncalibrated; mine leans to real     score -0.50"


def test_what_is_not_comparable_says_what_is_nearest_and_what_to_do():
    far = CALIBRATED.coverage | {"similarity": 0.41}
    lines = shown(replace(CALIBRATED, verdict="unknown", reason="nothing-comparable", coverage=far))
    assert "UNKNOWN: no photographs of this kind among the references" in lines[0]
    assert "rd bank add DIR --label real --source NAME" in lines[1]
    said = "  comparable     the nearest photographs (camera 7, unnamed 2) have similarity 0.41 on average;"
    at = lines.index(said)
    assert lines[at + 1].endswith("photograph of a new source mostly have 0.58 or more")
    assert lines[at + 2].strip().startswith("is it of a known source, as was said?")
    new = replace(CALIBRATED, photographs="new", coverage=far)
    assert not any("as was said" in line for line in shown(new))


def test_one_image_calibrated():
    assert shown(CALIBRATED)[:9] == [
        "photo.jpg  FAKE-LIKE: rarer than 99 % of the photographs of 6 sources",
        "  Look at the references that say so: it is evidence to weigh, and no finding.",
        "  known sources  4 of 1,250 calibration photographs (6 sources) score this high, p 0.004",
        "  new sources    each of 6 sources left out in turn, 8 % of its photographs score this high",
        "                 on average (40 % of shoes, the worst; 10 % of phone, the nearest);",
        "                 p 0.21, and 6 sources cannot show less than 0.14",
        "  judged at 5 % false alarms among photographs of known sources (--fpr)",
        "  log10 likelihood ratio +1.1 of a known generator's image over a photograph of a known source",
        "  with 1 % fakes among such images, 11.3 % of those that score so are fakes",
    ]
    assert shown(CALIBRATED)[9:] == shown(VERDICT)[2:]


def test_what_six_sources_cannot_show():
    none = CALIBRATED.calibration["new"] | {"worst": {"source": "shoes", "share": 0.0}}
    lines = shown(replace(CALIBRATED, calibration=CALIBRATED.calibration | {"new": none}))
    said = (
        "  new sources    none of 6 sources left out in turn scores this high; 6 cannot show less than 14 %"
    )
    assert said in lines


def test_what_was_not_measured_is_not_claimed():
    unmeasured = replace(
        CALIBRATED,
        p_values=CALIBRATED.p_values | {"new": None},
        calibration=CALIBRATED.calibration | {"new": None},
        log10_lr=None,
    )
    text = "\n".join(shown(unmeasured))
    assert "how rare this is among photographs from elsewhere was not measured" in text
    assert "likelihood" not in text and "left out" not in text


def test_reach_is_said_in_the_headline():
    known = {"verdict": "uncertain", "reason": "fake-like-if-known-source", "photographs": "new"}
    said = plain(headline(replace(CALIBRATED, **known)))
    assert said.startswith(
        "UNCERTAIN: rarer than 99 % of the photographs of 6 sources; for one from elsewhere"
    )
    new = replace(CALIBRATED, reach="new sources", photographs="new", log10_lr_interval=(0.2, 1.6))
    text = "\n".join(shown(new))
    assert "and rare from elsewhere" in text
    assert "of a new generator's image over a photograph of a new source, 95 % +0.2 to +1.6" in text


def test_without_a_prior_no_chance_is_stated():
    lines = shown(replace(CALIBRATED, prior=None, probability=None))
    assert lines == [line for line in shown(CALIBRATED) if "with 1 %" not in line]


@pytest.mark.parametrize(
    ("reason", "said", "why"),
    [
        ("fits-both", "UNCERTAIN", "fits photographs and known generators alike"),
        ("fits-neither", "UNKNOWN", "fits neither"),
        ("untypical", "UNKNOWN", "unlike all references"),
    ],
)
def test_an_undecided_headline_says_why(reason, said, why):
    line = headline(replace(CALIBRATED, verdict=said.lower(), reason=reason))
    assert (said, "warning") in line and why in plain(line)


def test_every_reason_has_its_words():
    reasons = set(get_args(Reason))
    assert set(FITS) == set(NEXT) == reasons


def test_one_generator_is_no_plural():
    single = replace(VERDICT, index=replace(VERDICT.index, n_generators=1))
    assert "1,440 fake, 1 generator · " in shown(single)[-1]


@pytest.mark.parametrize(("score", "nearer"), [(-0.5, "real"), (0.5, "fake")])
def test_uncalibrated_the_nearer_bank_is_named_and_no_verdict(score, nearer):
    line = plain(headline(replace(VERDICT, score=score)))
    assert line == f"UNKNOWN: uncalibrated; nearer to the {nearer} bank     score {score:+.2f}"


def test_many_copies_of_one_image_are_counted():
    lines = shown(replace(VERDICT, same_image=(FAKE,) * 12))
    assert sum(line.startswith("  same image") for line in lines) == 4
    assert "  same image  and 9 more" in lines


def test_among_many():
    line = plain(one_line(VERDICT))
    assert line.startswith("UNKNOWN: uncalibrated") and line.endswith("photo.jpg")
    assert " 1 of 2 nearest are fake" in line


def test_nothing_is_ever_called_fake_or_authentic():
    verdicts = [replace(before, reason=name) for before in (VERDICT, CALIBRATED) for name in FITS]
    everything = "\n".join([*(line for v in verdicts for line in shown(v)), *many(), *flagged()]).lower()
    for claim in ("is fake", "is real", "is ai", "is authentic.", "genuine", "probability", "confidence"):
        assert claim not in everything
    assert "no proof of an authentic image" in everything


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
        "1,202 images: 2 fake-like, 1,200 without a sign of the known generators; 41.2 images/s",
        "Scores are uncalibrated: how many photographs score this high by chance is not known.",
        "1 image: 1 without a sign of the known generators, 1 input could not be used; 0.5 images/s",
        "Scores are uncalibrated: how many photographs score this high by chance is not known.",
        "No image was judged: 3 inputs could not be used.",
    ]


def flagged(risk=0.4):
    counts = Counter({"fake-like": 60, "real-like": 900, "uncertain": 4, "unknown": 1})
    return summary(counts, 0, rate=9, fpr=0.05, risk=risk)


def test_what_a_calibrated_batch_came_to():
    expected, said = flagged()
    assert expected == (
        "If all were photographs of known sources, about 48 of 965 would score this high by chance; of new "
        "sources, about 386."
    )
    assert said == (
        "965 images: 60 fake-like, 900 without a sign of the known generators, 4 uncertain, 1 unknown; "
        "9.0 images/s"
    )
    assert flagged(None)[0].endswith("of new sources, how many is not known.")
