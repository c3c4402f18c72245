"""POST /v1/query: the verdicts of the detector itself, whatever comes together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.teach.build import Index
from tests.factories import png
from tests.serving import AUTHORIZED, add, calibrate, client, form, loader, pictures


def said(verdict):
    """A verdict without what differs from run to run."""
    return {name: value for name, value in verdict.items() if name != "elapsed_s"}


def expected(folder, given, **asked):
    detector = loader(folder)(None)
    return [
        said(detector.query(data, **asked).to_dict() | {"input": f"{i}.png"}) for i, data in enumerate(given)
    ]


def test_one_image(web, built):
    answer = web.post("/v1/query", files=form(*pictures(1)))
    assert answer.status_code == 200
    (verdict,) = answer.json()["results"]
    Draft202012Validator(verdict_schema()).validate(verdict)
    found = expected(built, pictures(1))[0]
    assert said(verdict) == found | {"provenance": verdict["provenance"]}
    assert (verdict["verdict"], verdict["reason"], verdict["reach"]) == ("unknown", "uncalibrated", None)


def test_many_images_in_their_order_and_a_broken_one_among_them(web, built):
    good = pictures(5)
    answer = web.post("/v1/query", files=form(*good[:2], b"no image", *good[2:]))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert results[2] == {
        "schema": 2,
        "input": "2.png",
        "error": "not-an-image",
        "message": results[2]["message"],
    }
    scores = [round(v["score"], 6) for v in expected(built, good)]
    assert [r["score"] for r in results if "score" in r] == scores


def test_what_is_asked_is_what_is_answered(web, built):
    asked = {"method": "mean", "k": 3, "influence": True, "stability": 2}
    answer = web.post("/v1/query", params=asked, files=form(*pictures(1, fake=True)))
    assert answer.status_code == 200, answer.text
    (verdict,) = answer.json()["results"]
    found = expected(built, pictures(1, fake=True), **asked)[0]
    assert verdict["stability"] == found["stability"]
    assert verdict["influence"] == found["influence"]
    assert (verdict["method"], verdict["score"]) == ("mean", found["score"])


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"method": "astrology"}, 400),
        ({"prior": 0.5}, 400),
        ({"k": 0}, 422),
        ({"stability": 1000}, 422),
        ({"photographs": "old"}, 422),
    ],
)
def test_questions_that_mean_nothing(web, asked, status):
    answer = web.post("/v1/query", params=asked, files=form(*pictures(1)))
    assert answer.status_code == status
    assert answer.json()["message"]


def test_no_image_at_all(web):
    assert web.post("/v1/query").status_code == 422
    assert web.post("/v1/query", files=form(b"")).status_code == 422


def test_names_are_names_only(web):
    given = form(pictures(1)[0], names=["../../etc/<b>pass\x01wd\\x.png"])
    (verdict,) = web.post("/v1/query", files=given).json()["results"]
    assert verdict["input"] == "x.png"


class Counting(TinyEncoder):
    """Notes the size of each pass, and can be held up.

    Images of a pass are encoded one by one: how a product of matrices rounds may depend on its size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def encode(self, batch, layers):
        self.go.wait(20)
        self.passes.append(len(batch))
        one_by_one = [super(Counting, self).encode(batch[i : i + 1], layers) for i in range(len(batch))]
        return {layer: np.concatenate([found[layer] for found in one_by_one]) for layer in layers}


def test_requests_that_arrive_together_share_a_pass(built):
    encoder = Counting()
    with client(built, encoder=encoder, batch_images=6) as web, ThreadPoolExecutor(12) as pool:
        before = len(encoder.passes)
        encoder.go.clear()
        waiting = [pool.submit(web.post, "/v1/query", files=form(data)) for data in pictures(12)]
        while web.app_service._ready.qsize() < 6:  # six at most are held up in the first pass
            threading.Event().wait(0.01)
        encoder.go.set()
        answers = [w.result().json()["results"][0] for w in waiting]
        passes = encoder.passes[before:]
    assert sum(passes) == 12
    assert max(passes) == 6
    scores = [v["score"] for v in expected(built, pictures(12))]
    np.testing.assert_allclose([a["score"] for a in answers], scores, atol=1e-4)


def test_together_each_gets_what_it_gets_alone(built):
    """Mixed images, one of them a reference, and questions of their own in one batch."""
    reference = next((built.parent / "gan").iterdir()).read_bytes()
    given = [*pictures(3), reference, reference, *pictures(2, fake=True)]
    asked = [{}, {"method": "mean", "k": 3}, {}, {}, {"influence": True}, {"stability": 2}, {"k": 5}]
    encoder = Counting()

    def ask(picture, options):
        answer = web.post("/v1/query", params=options, files=form(picture))
        return said(answer.json()["results"][0])

    with client(built, encoder=encoder, batch_images=7, window_s=5.0) as web, ThreadPoolExecutor(7) as pool:
        found = list(pool.map(ask, given, asked))
        assert max(encoder.passes) == 7
    with client(built, batch_images=1) as web:
        alone = [ask(*pair) for pair in zip(given, asked, strict=True)]
    assert found == alone
    assert found[3]["same_image"] and found[4]["influence"] and found[5]["stability"]


def test_a_full_queue_says_when_to_come_again(built):
    encoder = Counting()
    with client(built, encoder=encoder, queue_images=4) as web, ThreadPoolExecutor(4) as pool:
        encoder.go.clear()
        waiting = [pool.submit(web.post, "/v1/query", files=form(data)) for data in pictures(4)]
        while web.app_service._waiting < 4:
            threading.Event().wait(0.01)
        refused = web.post("/v1/query", files=form(*pictures(1, since=900)))
        encoder.go.set()
        assert [w.result().status_code for w in waiting] == [200] * 4
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert web.post("/v1/query", files=form(*pictures(1, since=900))).status_code == 200
        assert "rd_rejected_total 1.0" in web.get("/metrics").text


def test_an_encoder_that_fails_costs_the_images_of_that_pass(built):
    class Failing(TinyEncoder):
        broken = False

        def encode(self, batch, layers):
            if self.broken:
                raise RuntimeError("the device is gone")
            return super().encode(batch, layers)

    encoder = Failing()
    with client(built, encoder=encoder) as web:
        encoder.broken = True
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 500
        encoder.broken = False
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 200


def test_a_report_of_all_images_of_a_request(web):
    files = form(*pictures(2), b"no image", names=["a.png", "b.png", "<c>.png"])
    answer = web.post("/v1/query", params={"evidence": "report"}, files=files)
    page = answer.json()["report"]
    assert (
        page.startswith("<!doctype html>") and page.count("<article") == 2 and "evidence" not in answer.json()
    )
    assert "&lt;c&gt;.png: " in page and "default-src" in page
    (one,) = [web.post("/v1/query", params={"evidence": "report"}, files=form(*pictures(1))).json()["report"]]
    assert one.count("<article") == 1 and "<script" not in one
    none = web.post("/v1/query", params={"evidence": "report"}, files=form(b"no image"))
    assert none.status_code == 422 and "report" not in none.json()


def laid(given, beside):
    return [*form(*given), *(("beside", (f"lent-{i}.png", data)) for i, data in enumerate(beside))]


def files_below(*folders):
    found = [path for folder in folders for path in folder.rglob("*")]
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def test_photographs_are_laid_beside_one_image_and_forgotten(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "cache"))
    add(Index.open(folder), folder.parent / "more", "real", "phone", range(4000, 4120))
    add(Index.open(folder), folder.parent / "others", "fake", "flux", range(5000, 5120))
    (image,) = pictures(1, since=900, fake=True)
    lent = [*pictures(3, since=6000), pictures(1, since=6000)[0], b"no image", png(110, fake=True)]
    with client(calibrate(folder)) as web:
        asked = {"photographs": "known", "supplier": "agency", "date": "2026-11-30"}
        alone = web.post("/v1/query", params={"photographs": "known"}, files=form(image)).json()["results"][0]
        before = files_below(folder, tmp_path / "cache")
        answer = web.post("/v1/query", params=asked, files=laid([image], lent))
        assert answer.status_code == 200, answer.text
        assert files_below(folder, tmp_path / "cache") == before
        (verdict,) = answer.json()["results"]
        Draft202012Validator(verdict_schema()).validate(verdict)
        found = verdict.pop("beside")
        assert said(verdict) | {"beside": None} == said(alone)
        assert (found["supplier"], found["date"]) == ("agency", "2026-11-30")
        assert [p["input"] for p in found["pictures"]] == ["lent-0.png", "lent-1.png", "lent-2.png"]
        why = {one["input"]: one["why"] for one in found["refused"]}
        assert (
            "same file" in why["lent-3.png"]
            and "image" in why["lent-4.png"]
            and "as a fake" in why["lent-5.png"]
        )
        assert found["digest"] == expected_digest(folder, image, lent[:3])
        again = web.post("/v1/query", params={"photographs": "known"}, files=form(image)).json()["results"][0]
        assert said(again) == said(alone)  # the question after it knows nothing of them
        assert web.app_service._waiting == 0


def expected_digest(folder, image, lent):
    detector = loader(folder)(None)
    return detector.with_beside(lent, photographs="known").query(image, photographs="known").beside.digest


def test_what_cannot_be_laid_beside_is_refused_and_leaves_room(folder):
    with client(folder) as web:
        many = web.post("/v1/query", files=laid(pictures(2), pictures(1)))
        assert many.status_code == 400 and "one image at a time" in many.json()["message"]
        none = web.post("/v1/query", params={"supplier": "agency"}, files=form(*pictures(1)))
        assert none.status_code == 400 and "no photographs are laid beside" in none.json()["message"]
        uncalibrated = web.post("/v1/query", files=laid(pictures(1), pictures(2, since=600)))
        assert uncalibrated.status_code == 400 and "without a calibration" in uncalibrated.json()["message"]
        only = web.post("/v1/query", files=laid([], pictures(1)))
        assert only.status_code == 422 and "no image" in only.json()["message"]
        teach = {"label": "real", "source": "camera"}
        for_good = web.post(
            "/v1/banks/references", params=teach, files=laid([], pictures(1)), headers=AUTHORIZED
        )
        assert for_good.status_code == 422 and "says nothing here" in for_good.json()["message"]
        assert web.app_service._waiting == 0
