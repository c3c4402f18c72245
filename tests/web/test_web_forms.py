"""Forms are read whole or not at all, in memory; what is wrong with a request has one shape and our words."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serving import AUTHORIZED, client, form, pictures
from tests.web.test_web_query import Counting

FLUX = {"label": "fake", "generator": "flux"}
HEADERS = {"Content-Type": "multipart/form-data; boundary=X"}


def part(data, disposition='form-data; name="images"; filename="a.png"'):
    return b"--X\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"


def whole(*parts):
    return b"".join(parts) + b"--X--\r\n"


def sent(web, content, **options):
    return web.post("/v1/query", content=content, headers=HEADERS | options.pop("headers", {}), **options)


def said(answer, status):
    """What an error says; its shape is that of all errors."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert set(found) == {"error", "message", "hint"} and all(isinstance(v, str) for v in found.values())
    assert found["message"] and found["hint"]
    return found


@pytest.mark.parametrize("end", [b"", b"--X", b"--X-", b"--X\r\n", b"--X--"[:4]])
def test_a_form_without_its_end_is_no_form(web, end):
    first, second = map(part, pictures(2))
    assert "closing boundary" in said(sent(web, first + second + end), 400)["message"]
    assert "closing boundary" in said(sent(web, first + second[: len(second) // 2] + end), 400)["message"]
    assert len(sent(web, whole(first, second)).json()["results"]) == 2


def test_nothing_is_added_of_a_form_without_its_end(folder):
    with client(folder) as web:
        answer = web.post(
            "/v1/banks/references", params=FLUX, content=part(pictures(1)[0]), headers=HEADERS | AUTHORIZED
        )
        said(answer, 400)


def test_nothing_of_an_upload_touches_the_disk(built, monkeypatch):
    """Nowhere to spool to: as where a disk is full, or can only be read."""

    def nowhere(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkdtemp", "mkstemp"):
        monkeypatch.setattr(f"tempfile.{name}", nowhere)
    large = pictures(1)[0] + bytes(3 << 20)
    with client(built) as web:
        answer = web.post("/v1/query", files=form(large))
        assert answer.status_code == 200 and answer.json()["results"][0]["verdict"]
        planned = web.post("/v1/banks/references", params=FLUX, files=form(large), headers=AUTHORIZED)
        assert planned.json()["images"] == [{"name": "0.png", "state": "new"}]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("form-data; name=\"images\"; filename*=utf-8''gr%C3%BCn.png", "grün.png"),
        ('form-data; name="images"; filename="b.png"; filename*=utf-8\'\'c.png', "b.png"),
        ("form-data; name=\"images\"; filename*=utf-7''%2B2AA-.png", "\\ud800.png"),
        ("form-data; name=\"images\"; filename*=idna''%FF.png", "image"),
        ('form-data; name="images"; filename=""', "image"),
        ('form-data; name="images"; filename="..\\\\x\\y.png"', "y.png"),
    ],
)
def test_names_of_files(web, disposition, name):
    (result,) = sent(web, whole(part(pictures(1)[0], disposition))).json()["results"]
    assert result["input"] == name


@pytest.mark.parametrize(
    ("disposition", "words"),
    [
        ('form-data; name="images"', "no file name"),
        ('form-data; name="image"; filename="a.png"', "'image'"),
        ('form-data; name="method"', "'method'"),
        ("form-data", "''"),
    ],
)
def test_parts_that_are_no_images_are_not_passed_over(web, disposition, words):
    good = part(pictures(1)[0])
    found = said(sent(web, whole(good, part(b"mean", disposition))), 422)
    assert words in found["message"] and "-F images=@photo.jpg" in found["hint"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", None, 422),
        (b"{}", "application/json", 422),
        (b"images=a", "application/x-www-form-urlencoded", 422),
        (b"", "multipart/form-data", 422),
        (b"no form", "multipart/form-data; boundary=X", 400),
        (b"--X--\r\n", "multipart/form-data; boundary=X", 422),
        (b"--X\r\nno header\r\n\r\n\r\n--X--\r\n", "multipart/form-data; boundary=X", 400),
        (b"--X\r\n", f"multipart/form-data; boundary={'X' * 5000}", 400),
    ],
)
def test_bodies_that_are_no_form(web, content, kind, status):
    said(web.post("/v1/query", content=content, headers={"Content-Type": kind} if kind else {}), status)


@pytest.mark.parametrize(
    "path",
    ["/v1/query?metod=mean", "/v1/query?Method=mean", "/v1/banks/references?label=fake&generater=x",
     "/v1/banks/references/abc?force=1"],
)  # fmt: skip
def test_unknown_parameters_are_named(web, path):
    answer = web.post(path, files=form(*pictures(1)), headers=AUTHORIZED)
    found = said(answer, 422)
    assert repr(path.partition("?")[2].rpartition("&")[2].partition("=")[0]) in found["message"]


def test_a_parameter_is_given_once(web):
    answer = web.post("/v1/query?k=3&k=5", files=form(*pictures(1)))
    assert "twice" in said(answer, 422)["message"]
    assert "none" in said(web.get("/v1/banks?x=1"), 422)["hint"]
    assert (
        web.post("/v1/banks/rollback", json={"generation": 1, "now": 1}, headers=AUTHORIZED).status_code
        == 422
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/static/nowhere.js", 404),
        ("GET", "/v1/query", 405),
        ("PUT", "/static/app.js", 405),
        ("GET", "/v1/references/999999/thumbnail", 404),
        ("GET", "/v1/references/x/thumbnail", 422),
        ("POST", "/v1/banks/rollback", 401),
        ("GET", "/v1/token", 401),
    ],
)
def test_every_error_has_one_shape(web, method, path, status):
    answer = web.request(method, path)
    said(answer, status)
    assert answer.headers["Content-Security-Policy"]
    assert (status != 405) or answer.headers["Allow"]


def test_limits_have_it_too(built):
    with client(built, body_bytes=100_000, queue_images=2) as web:
        said(web.post("/v1/query", files=form(bytes(200_000))), 413)
        assert "2" in said(web.post("/v1/query", files=form(*pictures(3))), 400)["message"]
        said(web.get("/healthz", headers={"Host": "evil.example.com"}), 421)
        said(web.post("/v1/query", headers={"Origin": "https://evil.example.com"}), 403)
    with client(built, held_bytes=10_000) as web:
        answer = web.post("/v1/query", files=form(bytes(50_000)))
        assert said(answer, 429) and int(answer.headers["Retry-After"]) >= 1
        assert web.get("/healthz").status_code == 200


def test_a_full_queue_is_said_before_anything_is_done(built):
    """Neither is the body waited for, nor the question looked at, which waits where verdicts are made."""
    encoder = Counting()
    with client(built, encoder=encoder, queue_images=1) as web, ThreadPoolExecutor(1) as pool:
        encoder.go.clear()
        waiting = pool.submit(web.post, "/v1/query", files=form(*pictures(1)))
        while web.app_service._waiting < 1:
            threading.Event().wait(0.01)
        answer = sent(web, b"no form at all", params={"method": "astrology"})
        assert said(answer, 429) and int(answer.headers["Retry-After"]) >= 1
        encoder.go.set()
        assert waiting.result().status_code == 200


def test_the_token_is_told_from_others(built):
    with client(built) as web:
        assert web.get("/v1/token", headers=AUTHORIZED).json() == {"valid": True}
        wrong = said(web.get("/v1/token", headers={"Authorization": "Bearer wrong"}), 401)
        none = said(web.get("/v1/token"), 401)
    with client(built, token=None) as web:
        nobody = said(web.get("/v1/token", headers=AUTHORIZED), 401)
    assert len({wrong["message"], none["message"], nobody["message"]}) == 3
