"""Banks over HTTP: what they hold, adding in two steps, going back, new generations while requests run."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.sources import from_bytes, scan
from retrieval_detect.images.thumbnails import thumbnail as small
from retrieval_detect.teach import measure
from retrieval_detect.teach.build import Index
from retrieval_detect.teach.mistakes import keep_mistakes
from tests.factories import picture, png, write_pictures
from tests.serving import AUTHORIZED, add, calibrate, client, form, pictures, server

FLUX = {"label": "fake", "generator": "flux"}


def test_what_the_banks_hold(web, built):
    found = web.get("/v1/banks").json()
    assert found["references"] == {"real": 20, "fake": 20}
    counts = {(c["label"], c["name"]): c["bank"] + c["calib"] for c in found["counts"]}
    assert counts == {
        ("real", "camera"): 10,
        ("real", "phone"): 10,
        ("fake", "gan"): 10,
        ("fake", "flux"): 10,
    }
    assert found["index"]["generation"] == found["history"][-1]["generation"] == 4
    assert str(built) not in str(found)


def test_adding_shows_a_table_first_and_then_adds(folder):
    with client(folder) as web:
        new, given = pictures(3, since=700, fake=True), pictures(3, since=700, fake=True)
        known = (folder.parent / "flux" / "0110.png").read_bytes()
        files = form(*given, known, given[0], b"broken")
        planned = web.post("/v1/banks/references", params=FLUX, files=files, headers=AUTHORIZED)
        assert planned.status_code == 200, planned.text
        states = [row["state"] for row in planned.json()["images"]]
        assert states[:5] == ["new"] * 3 + ["already known or refused", "given twice"]
        assert "not an image" in states[5]
        assert web.get("/v1/banks").json()["index"]["generation"] == 4
        path = f"/v1/banks/references/{planned.json()['plan']}"
        done = web.post(path, headers=AUTHORIZED)
        assert (done.status_code, done.json()["added"]) == (200, 3)
        assert web.get("/v1/banks").json()["references"]["fake"] == 23
        (verdict,) = web.post("/v1/query", files=form(new[0])).json()["results"]
        assert verdict["index"]["generation"] == 5
        assert "did not vote" in str(verdict["warnings"])
        again = web.post(path, headers=AUTHORIZED)
        assert again.status_code == 400 and "no such plan" in again.json()["message"]


def test_what_an_addition_changes_is_told(folder, monkeypatch):
    monkeypatch.setattr(measure, "MIN_PHOTOGRAPHS", 10)
    with client(calibrate(folder)) as web:
        files = form(*pictures(3, since=700, fake=True))
        planned = web.post("/v1/banks/references", params=FLUX, files=files, headers=AUTHORIZED).json()
        done = web.post(f"/v1/banks/references/{planned['plan']}", headers=AUTHORIZED)
        assert done.status_code == 200, done.text
    measured, told = done.json()["measured"], "\n".join(done.json()["report"])
    now, then = measured["photographs"], measured["coming"]["photographs"]
    assert now["n"] == then["n"] >= 10 and now["before"] == then["before"]
    assert -100 <= now["low"] <= now["points"] <= now["high"] <= 100
    assert now["after"] == now["before"] + now["gained"] - now["lost"]
    assert "photographs flagged" in told and "recalibrated" in told


def test_generators_of_what_no_photograph_shows_are_named(folder):
    with client(folder) as web:
        asked = {"label": "fake", "generator": "shoemaker"}
        planned = web.post(
            "/v1/banks/references", params=asked, files=form(*alike(12)), headers=AUTHORIZED
        ).json()
        done = web.post(f"/v1/banks/references/{planned['plan']}", headers=AUTHORIZED).json()
        (apart,) = done["apart"]
        assert (apart["generator"], apart["images"]) == ("shoemaker", 12)
        assert "12 images of shoemaker" in done["report"][0] and "photographs" in done["report"][1]
        files = form(*pictures(12, since=700))
        asked = {"label": "real", "source": "phone"}
        planned = web.post("/v1/banks/references", params=asked, files=files, headers=AUTHORIZED).json()
        assert web.post(f"/v1/banks/references/{planned['plan']}", headers=AUTHORIZED).json()["apart"] == []


def alike(n):
    """Generated images with much in common, and no photograph has it."""
    common = np.asarray(picture(9999, fake=True), float)
    made = []
    for i in range(n):
        buffer = io.BytesIO()
        pixels = 0.6 * common + 0.4 * np.asarray(picture(3000 + i, fake=True), float)
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        made.append(buffer.getvalue())
    return made


def test_the_history_names_who_taught_what(folder):
    with client(folder) as web:
        for who, since in (("Ada", 700), ("Ben", 710)):
            files = form(*pictures(2, since=since, fake=True))
            asked = FLUX | {"contributor": who}
            planned = web.post("/v1/banks/references", params=asked, files=files, headers=AUTHORIZED).json()
            web.post(f"/v1/banks/references/{planned['plan']}", headers=AUTHORIZED)
        web.post("/v1/banks/rollback", json={"generation": 4}, headers=AUTHORIZED)
        history = {h["generation"]: h for h in web.get("/v1/banks").json()["history"]}
    assert {n: h["contributors"] for n, h in history.items() if h["contributors"]} == {5: ["Ada"], 6: ["Ben"]}
    assert history[6]["what"] == "+2 flux" and history[4]["contributors"] == []
    in_force = {shard.id for shard in Index.open(folder).snapshot().manifest.shards}
    for shard in (folder / "shards").glob("*.rows.arrow"):  # what only undone generations have
        if shard.name.partition(".")[0] not in in_force:
            shard.unlink()
    with client(folder) as web:
        history = web.get("/v1/banks").json()["history"]
    assert len(history) == 8 and not any(h["contributors"] for h in history)


def test_how_the_banks_can_be_asked(folder):
    with client(folder) as web:
        assert {m["name"]: m["rates"] for m in web.get("/v1/banks").json()["methods"]}["density"] == []
    add(Index.open(folder), folder.parent / "more", "real", "phone", range(4000, 4120))
    add(Index.open(folder), folder.parent / "others", "fake", "flux", range(5000, 5120))
    with client(calibrate(folder)) as web:
        found = web.get("/v1/banks").json()
        rates = {m["name"]: m["rates"] for m in found["methods"]}
        assert rates["mean"] == [] and 0.2 in rates["density"] and 0.001 not in rates["density"]
        assert found["asked"] == {"method": "density", "photographs": "new", "fpr": 0.05}
        for rate in (0.001, *rates["density"]):  # what is offered can be asked, and nothing else
            answer = web.post("/v1/query", params={"fpr": rate}, files=form(*pictures(1)))
            assert answer.status_code == (200 if rate in rates["density"] else 400), answer.text


def test_mistakes_are_counted_after_an_addition(folder):
    index, image = Index.open(folder), (folder.parent / "gan" / "0100.png")
    encoder = TinyEncoder()
    (embedded,) = embed([from_bytes(image.read_bytes(), "mine")], encoder, layers=("proj",))
    keep_mistakes(index.store, [embedded], encoder.spec, label="fake", because="made by gan")
    with client(folder) as web:
        files = form(*pictures(3, since=700, fake=True))
        planned = web.post("/v1/banks/references", params=FLUX, files=files, headers=AUTHORIZED).json()
        done = web.post(f"/v1/banks/references/{planned['plan']}", headers=AUTHORIZED).json()
    assert done["mistakes"]["kept"] == 1 and any("of 1 mistake kept" in line for line in done["report"])


def test_going_back(folder):
    Index.open(folder).remove([0, 1, 2])
    with client(folder) as web:
        assert web.get("/v1/banks").json()["references"]["real"] == 17
        done = web.post("/v1/banks/rollback", json={"generation": 4}, headers=AUTHORIZED)
        assert done.json() == {"generation": 6, "rolled_back_to": 4}
        assert web.get("/v1/banks").json()["references"]["real"] == 20
        wrong = web.post("/v1/banks/rollback", json={"generation": 99}, headers=AUTHORIZED)
        assert wrong.status_code == 400


def test_what_cannot_be_added(folder):
    with client(folder) as web:
        camera = {"label": "real", "source": "camera"}

        def planned(asked, data):
            return web.post("/v1/banks/references", params=asked, files=form(data), headers=AUTHORIZED)

        stored = (folder.parent / "gan" / "0100.png").read_bytes()
        assert planned(camera, stored).status_code == 409
        assert planned(camera | {"generator": "gan"}, pictures(1)[0]).status_code == 400
        assert planned({"label": "maybe"}, pictures(1)[0]).status_code == 422
        assert web.get("/v1/banks").json()["index"]["generation"] == 4


def test_names_are_brought_to_one_spelling_or_refused(folder):
    with client(folder) as web:

        def planned(seed, **described):
            files = form(*pictures(1, since=seed, fake=True))
            return web.post("/v1/banks/references", params=described, files=files, headers=AUTHORIZED)

        for bad in ("two\nlines", "\x1b[31mred", "x" * 201):
            for field in ("generator", "batch", "contributor"):
                answer = planned(850, label="fake", **{field: bad})
                assert answer.status_code == 422, answer.text
                assert answer.json()["message"].startswith(field) and answer.json()["hint"]
        key = planned(850, label="fake", generator="  flu\u0308x ", batch=" b  1").json()["plan"]
        assert web.post(f"/v1/banks/references/{key}", headers=AUTHORIZED).json()["added"] == 1
        assert Index.open(folder).snapshot().manifest.counts("fake")["flüx"] == 1


def test_a_plan_outlives_another_writer(folder):
    with client(folder) as web:
        given = form(pictures(1, since=800)[0])
        planned = web.post("/v1/banks/references", params=FLUX, files=given, headers=AUTHORIZED)
        path = f"/v1/banks/references/{planned.json()['plan']}"
        with Index.open(folder).store.writer():
            locked = web.post(path, headers=AUTHORIZED)
        assert locked.status_code == 409 and "plan is kept" in locked.json()["hint"]
        done = web.post(path, headers=AUTHORIZED)
        assert (done.status_code, done.json()["added"]) == (200, 1)


def test_plans_are_few_and_write_no_file(folder, tmp_path, monkeypatch):
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    with client(folder) as web:
        answers = [
            web.post("/v1/banks/references", params=FLUX, files=form(data), headers=AUTHORIZED)
            for data in pictures(5, since=800, fake=True)
        ]
        assert [a.status_code for a in answers] == [200] * 4 + [400]
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_plan_does_not_bring_back_what_was_purged_meanwhile(folder):
    with client(folder) as web:
        files = form(*pictures(2, since=700, fake=True))
        path, other = (
            "/v1/banks/references/"
            + web.post("/v1/banks/references", params=FLUX, files=files, headers=AUTHORIZED).json()["plan"]
            for _ in range(2)
        )
        assert web.post(path, headers=AUTHORIZED).json()["added"] == 2
        index = Index.open(folder)
        index.remove([max(index.snapshot().scan(["row_id"])["row_id"].to_pylist())])
        with index.store.writer() as writer:
            writer.compact(purge=True)
        done = web.post(other, headers=AUTHORIZED).json()
        assert (done["added"], done["purged"]) == (0, 1)
        assert index.snapshot().manifest.live_rows("fake") == 21


def test_thumbnails_by_row_id(folder):
    with client(folder) as web:
        (verdict,) = web.post("/v1/query", files=form(*pictures(1))).json()["results"]
        row = verdict["evidence"][0]
        found = web.get(f"/v1/references/{row['row_id']}/thumbnail")
        assert found.status_code == 200
        assert found.content[:4] == b"RIFF" and found.content[8:12] == b"WEBP"
        small = web.get(f"/v1/references/{row['row_id']}/thumbnail", params={"side": 16})
        assert Image.open(io.BytesIO(small.content)).size == (16, 16)
        for side in (0, 4096):
            path = f"/v1/references/{row['row_id']}/thumbnail"
            assert web.get(path, params={"side": side}).status_code == 422
        with Path(row["uri"]).open("ab") as file:
            file.write(b"changed")
        assert web.get(f"/v1/references/{row['row_id']}/thumbnail").status_code == 404
        for other in ("999999", str(2**63 - 1)):
            assert web.get(f"/v1/references/{other}/thumbnail").status_code == 404
        for no_id in ("-1", str(2**70), "..%2f..%2fetc%2fpasswd"):
            assert web.get(f"/v1/references/{no_id}/thumbnail").status_code in (404, 422)
    Index.open(folder).remove([row["row_id"]])
    with client(folder) as web:
        assert web.get(f"/v1/references/{row['row_id']}/thumbnail").status_code == 404


def test_plans_are_forgotten_though_nobody_asks(folder, monkeypatch):
    monkeypatch.setattr("retrieval_detect.web.additions.KEPT_S", 0.2)
    with client(folder) as web:
        for _ in range(2):
            for data in pictures(4, since=800, fake=True):
                planned = web.post("/v1/banks/references", params=FLUX, files=form(data), headers=AUTHORIZED)
                assert planned.status_code == 200
            time.sleep(0.4)
        gone = web.post(f"/v1/banks/references/{planned.json()['plan']}", headers=AUTHORIZED)
        assert gone.status_code == 400 and "no such plan" in gone.json()["message"]


def test_refusals_name_what_can_be_done_here(folder):
    with client(folder) as web:
        stored = (folder.parent / "gan" / "0100.png").read_bytes()
        both = web.post(
            "/v1/banks/references",
            params={"label": "real", "source": "camera"},
            files=form(stored),
            headers=AUTHORIZED,
        )
        gone = web.post("/v1/banks/rollback", json={"generation": 99}, headers=AUTHORIZED)
        for answer in (both, gone):
            assert answer.json()["hint"] and "rd " not in answer.json()["hint"]


def test_a_thumbnail_of_what_lies_in_an_archive(tmp_path):
    index = Index.create(tmp_path / "index", encoder=TinyEncoder())
    for label, name, first in (("real", "camera", 0), ("fake", "gan", 100)):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for seed in range(first, first + 4):
                data = png(seed, fake=label == "fake")
                member = tarfile.TarInfo(f"{seed}.png")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        add_items(index, scan([str(tmp_path / f"{name}.tar")]), label, name)
    with client(index.folder) as web:
        assert [web.get(f"/v1/references/{row}/thumbnail").status_code for row in range(8)] == [200] * 8


def test_a_thumbnail_that_the_index_keeps(tmp_path):
    index = Index.create(tmp_path / "index", encoder=TinyEncoder())
    for label, name, first in (("real", "camera", 0), ("fake", "gan", 100)):
        write_pictures(tmp_path / name, range(first, first + 4), fake=label == "fake")
        items = scan([str(tmp_path / name)])
        kept = items if label == "real" else (replace(item, thumbnail=small) for item in items)
        add_items(index, kept, label, name)
        shutil.rmtree(tmp_path / name)
    with client(index.folder) as web:
        found = [web.get(f"/v1/references/{row}/thumbnail") for row in range(8)]
    assert [answer.status_code for answer in found] == [404] * 4 + [200] * 4
    assert Image.open(io.BytesIO(found[7].content)).size == (64, 64)


def add_items(index, items, label, name):
    named = {"generator" if label == "fake" else "source": name}
    index.apply(index.plan_add(items, label=label, **named), encoder=TinyEncoder())


def test_a_new_generation_is_taken_up_without_losing_a_request(folder):
    import httpx

    with server(folder) as url, ThreadPoolExecutor(4) as pool:
        finished, answers = threading.Event(), []

        def ask(seed):
            with httpx.Client(base_url=url, timeout=60) as own:
                while not finished.is_set():
                    answers.append(own.post("/v1/query", files=form(*pictures(1, since=seed))))

        asking = [pool.submit(ask, 900 + i) for i in range(3)]
        while len(answers) < 6:
            time.sleep(0.02)
        add(Index.open(folder), folder.parent / "more", "fake", "sdxl", range(150, 155))
        until = time.monotonic() + 30
        while httpx.get(f"{url}/healthz").json()["generation"] != 5 and time.monotonic() < until:
            time.sleep(0.02)
        after = len(answers)
        while len(answers) < after + 6 and time.monotonic() < until:
            time.sleep(0.02)
        finished.set()
        for one in asking:
            one.result()
    assert {answer.status_code for answer in answers} == {200}
    generations = [answer.json()["results"][0]["index"]["generation"] for answer in answers]
    assert set(generations) == {4, 5}


def test_a_generation_that_cannot_be_used_leaves_the_old_one(folder):
    with client(folder) as web:
        Index.open(folder).remove(list(range(20)))  # no photograph is left
        until = time.monotonic() + 20
        while web.get("/healthz").json()["status"] != "stale" and time.monotonic() < until:
            time.sleep(0.02)
        assert web.get("/healthz").json() == {"status": "stale", "generation": 4}
        assert web.post("/v1/query", files=form(*pictures(1))).status_code == 200
