"""A server over a small index of made-up pictures, in this process or on a port, for tests of the web."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import scan
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.web.settings import ServeSettings
from tests.factories import png, write_pictures

TOKEN = "a token of more than sixteen letters"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
SETTINGS = ServeSettings(token=TOKEN, decoders=2, window_s=0.01, poll_s=0.05)


def small_index(folder: Path) -> Path:
    """20 photographs of two sources, 20 fakes of two generators."""
    index = Index.create(folder / "index", encoder=TinyEncoder())
    for label, name, seeds in (
        ("real", "camera", range(10)),
        ("real", "phone", range(10, 20)),
        ("fake", "gan", range(100, 110)),
        ("fake", "flux", range(110, 120)),
    ):
        add(index, folder / name, label, name, seeds)
    return index.folder


def add(index: Index, pictures: Path, label: str, name: str, seeds: range) -> None:
    write_pictures(pictures, seeds, fake=label == "fake")
    named = {"generator" if label == "fake" else "source": name}
    index.apply(index.plan_add(scan([str(pictures)]), label=label, **named), encoder=TinyEncoder())


def loader(folder: Path, encoder=None):
    """What a server loads its detectors by; ``encoder`` replaces the index's own."""
    return lambda at_hand: Detector.load(folder, encoder=at_hand or encoder or TinyEncoder())


def application(folder: Path, *, encoder=None, **changed):
    from retrieval_detect.web.server import application as build

    return build(loader(folder, encoder), replace(SETTINGS, **changed), device="cpu")


@contextmanager
def client(folder: Path, *, encoder=None, **changed):
    from fastapi.testclient import TestClient

    app = application(folder, encoder=encoder, **changed)
    with TestClient(app, base_url="http://localhost:8321") as made:
        made.app_service = app.state.service
        yield made


@contextmanager
def server(folder: Path, *, encoder=None, **changed):
    """On a port of its own, in a thread; gives its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = application(folder, encoder=encoder, **changed)
        running = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join(30)


def form(*pictures: bytes, names=None):
    """Pictures as the files of a form."""
    return [("images", (names[i] if names else f"{i}.png", data)) for i, data in enumerate(pictures)]


def calibrate(folder: Path) -> Path:
    """The same index with enough references of a camera and a generator, and a calibration."""
    index = Index.open(folder)
    add(index, folder.parent / "many", "real", "camera", range(1000, 1060))
    add(index, folder.parent / "made", "fake", "gan", range(2000, 2060))
    commit_calibration(index.store, fit_calibration(index.snapshot(), device="cpu"))
    return folder


def pictures(n: int, *, since: int = 500, fake: bool = False) -> list[bytes]:
    return [png(seed, fake=fake) for seed in range(since, since + n)]
