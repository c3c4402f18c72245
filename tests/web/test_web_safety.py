"""Who may ask, what may be sent, and what every answer carries."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.web.safety import HEADERS, require_safe
from tests.serving import AUTHORIZED, SETTINGS, TOKEN, client, form, pictures

WRITING = ("/v1/banks/references", "/v1/banks/references/x", "/v1/banks/rollback")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_other_addresses_need_a_token(host):
    with pytest.raises(UsageError, match="no token"):
        require_safe(replace(SETTINGS, host=host, token=None))
    require_safe(replace(SETTINGS, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_none(host):
    require_safe(replace(SETTINGS, host=host, token=None))


def test_short_tokens_are_refused():
    with pytest.raises(UsageError, match="shorter"):
        require_safe(replace(SETTINGS, token="hunter2"))


@pytest.mark.parametrize("path", WRITING)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer ü"],
)
def test_writing_needs_the_token(web, path, header):
    headers = {} if header is None else {"Authorization": header.encode()}
    answer = web.post(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_without_a_token_nobody_writes(built):
    with client(built, token=None) as web:
        for path in WRITING:
            assert web.post(path, headers={"Authorization": "Bearer None"}).status_code == 401
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 200


def test_beyond_this_machine_everything_needs_the_token(built):
    with client(built, host="0.0.0.0") as web:
        for path in ("/v1/banks", "/metrics", "/openapi.json", "/v1/references/1/thumbnail"):
            assert web.get(path).status_code == 401
            assert web.get(path, headers=AUTHORIZED).status_code in (200, 404)
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 401
        assert web.post("/v1/query", files=form(*pictures(1)), headers=AUTHORIZED).status_code == 200
        for path in ("/", "/static/app.js", "/static/evidence.css", "/healthz"):
            assert web.get(path).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8321", 200),
        ("127.0.0.1:8321", 200),
        ("[::1]:8321", 200),
        ("192.168.1.7", 200),
        ("rd.example.org", 200),
        ("evil.example.com", 421),
        ("localhost.evil.example.com:8321", 421),
        ("", 421),
    ],
)
def test_only_our_names_are_answered(built, host, status):
    with client(built, hosts=("rd.example.org",)) as web:
        assert web.get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8321"}, 200),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_others_cannot_send(web, headers, status):
    assert web.post("/v1/query", files=form(*pictures(1)), headers=headers).status_code == status


@pytest.mark.parametrize("path", ["/", "/healthz", "/static/app.js", "/v1/banks", "/nowhere"])
def test_every_answer_carries_the_policy(web, path):
    headers = web.get(path).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_the_page_has_nothing_that_the_policy_would_stop(web):
    page = web.get("/").text
    assert "<style" not in page and " style=" not in page and "onclick" not in page
    assert "http://" not in page and "https://" not in page
    script = web.get("/static/app.js").text + web.get("/static/service.js").text
    assert "innerHTML" not in script and "eval(" not in script and "http" not in script


def test_bodies_are_limited_by_what_they_say_and_by_what_they_are(built):
    with client(built, body_bytes=200_000) as web:
        assert web.post("/v1/query", files=form(bytes(300_000))).status_code == 413
        stream = (b"x" * 10_000 for _ in range(50))
        headers = {"Content-Type": "multipart/form-data; boundary=a"}
        assert web.post("/v1/query", content=stream, headers=headers).status_code == 413
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 200


def test_files_are_limited_in_size_and_number(built):
    with client(built, file_bytes=20_000, files=3) as web:
        answer = web.post("/v1/query", files=form(bytes(30_000)))
        assert answer.status_code == 422
        assert answer.json()["results"][0]["error"] == "too-many-bytes"
        assert web.post("/v1/query", files=form(*pictures(4))).status_code == 400


def test_the_log_names_no_file_and_holds_no_question(web, caplog):
    with caplog.at_level(logging.INFO, "retrieval_detect.web"):
        web.post("/v1/query?source=a-secret", files=form(*pictures(1), names=["whistle-blower.png"]))
        web.get("/v1/whistle-blower")
    assert "POST /v1/query 4" in caplog.text
    assert "GET - 404" in caplog.text
    assert "whistle" not in caplog.text and "a-secret" not in caplog.text


def test_there_is_no_page_that_loads_from_elsewhere(web):
    assert web.get("/docs").status_code == web.get("/redoc").status_code == 404
    assert web.get("/openapi.json").json()["info"]["title"] == "rd"


def test_a_sender_who_never_ends_is_not_waited_for(built):
    import asyncio

    async def never():
        await asyncio.Event().wait()

    async def ask(app):
        sent = []

        async def send(message):
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=a")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/query",
            "raw_path": b"/v1/query",
            "query_string": b"",
            "headers": headers,
        }
        await app(scope, never, send)
        return sent

    with client(built, receive_s=0.05) as web:
        started, body = asyncio.run(ask(web.app))
    assert started["status"] == 408
    assert b"did not arrive in time" in body["body"]
