"""What goes wrong inside costs the request it goes wrong in; /healthz says what is gone or stuck."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.teach.build import Index
from retrieval_detect.web.errors import Stopping
from retrieval_detect.web.generations import Generations
from retrieval_detect.web.lanes import Lane
from tests.copies import saved
from tests.serving import add, client, form, pictures

SECRET = "what the image shows"


class Faulty(TinyEncoder):
    """Does what it is told the next time it encodes, and once it prepares."""

    def __init__(self) -> None:
        super().__init__()
        self.raises: BaseException | None = None
        self.go = threading.Event()
        self.go.set()
        self.held = threading.Event()

    def encode(self, batch, layers):
        if not self.go.is_set():
            self.held.set()
            self.go.wait(60)
        if (error := self.raises) is not None:
            self.raises = None
            raise error
        return super().encode(batch, layers)


def until(holds, within_s=20.0):
    end = time.monotonic() + within_s
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def asked(web, seed=500):
    return web.post("/v1/query", files=form(*pictures(1, since=seed)))


@pytest.mark.parametrize(
    "error", [ValueError(SECRET), StopIteration(SECRET), SystemExit(3), KeyError(SECRET)]
)
def test_whatever_an_encoder_raises_costs_one_request(built, caplog, error):
    encoder = Faulty()
    with client(built, encoder=encoder) as web:
        encoder.raises = error
        failed = asked(web)
        assert failed.status_code == 500
        assert set(failed.json()) == {"error", "message", "hint"}
        assert asked(web).status_code == 200
        assert web.get("/healthz").json()["status"] == "ok"
    assert type(error).__name__ in caplog.text and SECRET not in caplog.text + failed.text


def test_an_image_that_fails_does_not_cost_the_others_of_its_pass(built):
    class Picky(TinyEncoder):
        def encode(self, batch, layers):
            if (np.asarray(batch).std(axis=(1, 2, 3)) == 0).any():
                raise ValueError("an image without any contrast")
            return super().encode(batch, layers)

    flat = saved(Image.new("RGB", (64, 64), (9, 9, 9)), "PNG")
    with client(built, encoder=Picky(), batch_images=4, window_s=3.0) as web, ThreadPoolExecutor(4) as pool:
        given = [*pictures(3), flat]
        answers = list(pool.map(lambda data: web.post("/v1/query", files=form(data)), given))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 500]


def test_an_encoder_that_hangs_is_named_and_ends_no_server(built):
    encoder = Faulty()
    with client(built, encoder=encoder, stuck_s=0.2) as web, ThreadPoolExecutor(1) as pool:
        encoder.go.clear()
        waiting = pool.submit(asked, web)
        assert encoder.held.wait(20)
        stuck = until(lambda: (found := web.get("/healthz")).status_code == 503 and found)
        assert stuck.json()["status"] == stuck.json()["error"] == "stuck"
        assert "encode" in stuck.json()["message"] and stuck.json()["hint"]
        assert web.get("/v1/banks").status_code == 200
        encoder.go.set()
        assert waiting.result(30).status_code == 200
        assert web.get("/healthz").json() == {"status": "ok", "generation": 4}


def test_a_lane_ends_though_one_of_its_threads_does_not():
    lane, go, held = Lane("work"), threading.Event(), threading.Event()
    hanging = lane.submit(lambda: (held.set(), go.wait(60)))
    waiting = lane.submit(lambda: "never begun")
    assert held.wait(10)
    lane.stop(0.2)
    assert not hanging.done()
    with pytest.raises(Stopping):
        waiting.result(1)
    with pytest.raises(Stopping):
        lane.submit(lambda: None)
    go.set()
    hanging.result(10)


def test_decoders_that_cannot_be_started_blame_no_image_and_come_back(built, monkeypatch):
    with client(built, decoders=1) as web:
        assert asked(web).status_code == 200
        process = multiprocessing.get_context("spawn").Process

        def full(*_):
            raise OSError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(process, "start", full)
        (pid,) = web.app_service.decoders.pids
        os.kill(pid, signal.SIGKILL)
        asked(web)
        gone = asked(web)
        assert gone.status_code == 503 and set(gone.json()) == {"error", "message", "hint"}
        assert web.get("/healthz").status_code == 503
        assert "decoding processes are gone" in web.get("/healthz").json()["message"]
        monkeypatch.undo()
        assert asked(web).status_code == 200
        assert web.get("/healthz").json()["status"] == "ok"


def test_a_decoder_that_takes_nothing_is_given_up(built):
    """What is sent is larger than a pipe holds: sending itself would wait for ever."""
    large = pictures(1)[0] + bytes(8 << 20)
    with client(built, decoders=1, decode_s=1.5) as web:
        asked(web)
        (pid,) = web.app_service.decoders.pids
        os.kill(pid, signal.SIGSTOP)
        answer = web.post("/v1/query", files=form(large))
        assert answer.json()["results"][0]["error"] == "decoder-too-slow"
        assert asked(web).status_code == 200


@pytest.mark.parametrize("error", [ValueError(SECRET), MemoryError()])
def test_the_watch_survives_a_generation_that_cannot_be_loaded(folder, monkeypatch, error):
    with client(folder) as web:
        monkeypatch.setattr(Generations, "_ready", lambda *_: (_ for _ in ()).throw(error))
        add(Index.open(folder), folder.parent / "more", "fake", "sdxl", range(150, 153))
        assert until(lambda: web.get("/healthz").json()["status"] == "stale")
        monkeypatch.undo()
        add(Index.open(folder), folder.parent / "yet", "fake", "sdxl", range(153, 156))
        assert until(lambda: web.get("/healthz").json() == {"status": "ok", "generation": 6})
        assert asked(web).json()["results"][0]["index"]["generation"] == 6


def test_an_index_built_anew_under_the_same_number_is_taken_up(folder):
    with client(folder) as web:
        assert web.get("/v1/banks").json()["index"]["generation"] == 4
        index = Index.create(folder.parent / "new", encoder=TinyEncoder())
        for i, (label, name) in enumerate((("real", "cam"), ("real", "tel"), ("fake", "a"), ("fake", "b"))):
            add(index, folder.parent / name, label, name, range(300 + 9 * i, 307 + 9 * i))
        shutil.rmtree(folder)
        index.folder.rename(folder)
        assert until(lambda: web.get("/v1/banks").json()["references"] == {"real": 14, "fake": 14})
        assert web.get("/healthz").json() == {"status": "ok", "generation": 4}
        (verdict,) = asked(web).json()["results"]
        assert {e["source"] or e["generator"] for e in verdict["evidence"]} <= {"cam", "tel", "a", "b"}


def test_any_other_failure_is_answered_in_our_shape(built, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError(SECRET)

    with client(built) as web:
        monkeypatch.setattr("retrieval_detect.web.app.count_by", broken)
        with caplog.at_level(logging.INFO, "retrieval_detect.web"):
            answer = web.get("/v1/banks")
        assert answer.status_code == 500 and set(answer.json()) == {"error", "message", "hint"}
        assert "Content-Security-Policy" in answer.headers
        assert "ZeroDivisionError" in caplog.text and "GET /v1/banks 500" in caplog.text
        assert SECRET not in caplog.text + answer.text
