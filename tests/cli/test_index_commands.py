"""``rd index``: what is there, and whether it is whole."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from retrieval_detect.encoders.tiny import TinyEncoder
from tests.factories import write_pictures


def said(run_rd, *args, exit_code=0):
    result = run_rd("index", *args)
    assert result.exit_code == exit_code, result.stderr
    return result


def record(run_rd, *args, exit_code=0):
    return json.loads(said(run_rd, *args, "--json", exit_code=exit_code).stdout)


def test_listing_indexes(index, run_rd):
    shutil.copytree(index, index.with_name("second"))
    (index.with_name("recipes")).mkdir()
    rows = record(run_rd, "info", "--all")
    assert [(r["name"], r["encoder"], r["real"], r["fake"], r["generators"]) for r in rows] == [
        ("default", "tiny", 12, 11, 2),
        ("second", "tiny", 12, 11, 2),
    ]
    assert rows[0]["size_bytes"] == sum(p.stat().st_size for p in index.rglob("*") if p.is_file())


def test_a_damaged_index_does_not_hide_the_others(index, run_rd):
    shutil.copytree(index, index.with_name("second"))
    (index / "CURRENT").write_text("")
    result = said(run_rd, "info", "--all")
    assert "second" in result.stdout
    assert "Warning: index default: " in result.stderr and "CURRENT is missing or damaged" in result.stderr


def test_no_indexes(pictures, run_rd):
    result = said(run_rd, "info", "--all")
    assert "There is no index in index" in result.stderr and record(run_rd, "info", "--all") == []


def test_describing(index, run_rd):
    run_rd("bank", "add", "new", "--label", "fake")
    run_rd("bank", "remove", "--among", "generator=flux", "--yes")
    facts = record(run_rd, "info")
    assert facts["references"] == {"real": {"bank": 12, "calib": 0}, "fake": {"bank": 10, "calib": 0}}
    assert facts["generators"] == {"": 4, "sdxl": 6} and facts["sources"] == {"camera": 8, "phone": 4}
    assert (facts["generation"], facts["removed"], facts["layers"]) == (3, 5, {"proj": 32})
    assert (facts["format_version"], facts["shards_of_format_1"]) == (2, 0)
    text = said(run_rd, "info").stdout
    assert "format       2\n" in text
    assert "generators   unnamed 4, sdxl 6\n" in text and "toy encoder for tests" in text
    assert "calibration  none: scores say which bank is nearer, not how sure that is" in text


def test_describing_what_is_set_aside(index, pictures, run_rd):
    write_pictures(pictures / "photos" / "large", range(300, 340))
    built = run_rd("build-index", "--real", "photos")
    counts = record(run_rd, "info")["references"]["real"]
    assert counts["calib"] > 0 and sum(counts.values()) == 52
    assert f"{counts['calib']} of them are set aside for calibration and do not vote" in built.stdout
    assert f"{counts['bank']} real ({counts['calib']} more set aside" in said(run_rd, "info").stdout


# ---------------------------------------------------------------- verify


def test_a_whole_index(index, run_rd):
    assert ", generation 1, format 2)\n" in said(run_rd, "verify").stdout
    assert record(run_rd, "verify")["problems"] == []
    assert run_rd("index", "verify", "--index", "nosuch").exit_code == 1


def cut(index):
    path = next((index / "shards").glob("*.rows.arrow"))
    path.write_bytes(path.read_bytes()[:-20])


def flip(index):
    path = next((index / "shards").glob("*.near.npy"))
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(bytes(data))


def lose(index):
    next((index / "canaries").iterdir()).unlink()


@pytest.mark.parametrize("damage", [cut, flip, lose])
def test_damage_is_named_and_nothing_is_mended(index, run_rd, contents, damage):
    damage(index)
    before = contents(index)
    (problem,) = record(run_rd, "verify", exit_code=1)["problems"]
    assert problem.endswith("is missing, truncated or altered")
    text = said(run_rd, "verify", exit_code=1).stdout
    assert "default: 1 problem\n" in text and "rd bank list --by generation" in text
    assert contents(index) == before


def test_damage_is_found_behind_a_remembered_checksum(index, run_rd):
    """Same size, same times: the digest cache is fooled, verify is not."""
    import os

    run_rd("query", "ask")
    path = next((index / "shards").glob("*.proj.npy"))
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(bytes(data))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run_rd("query", "ask").exit_code == 0
    said(run_rd, "verify", exit_code=1)


def test_embedding_some_references_again(index, pictures, run_rd):
    result = record(run_rd, "verify", "--sample", "8")
    assert (result["sampled"], result["compared"], result["problems"]) == (8, 8, [])
    shutil.rmtree(pictures / "generated")
    (pictures / "photos" / "camera" / "0000.png").write_bytes(b"another file by now")
    result = record(run_rd, "verify", "--sample", "100")
    assert (result["sampled"], result["compared"]) == (23, 11)
    text = said(run_rd, "verify", "--sample", "100").stdout
    assert "11 of 23 sampled images embedded again: they agree" in text
    assert "12 could not be: their files are gone or have changed" in text


def test_an_encoder_that_changed_under_the_same_name(index, run_rd, monkeypatch):
    encode = TinyEncoder.encode

    def otherwise(self, batch, layers):
        rng = np.random.default_rng(0)
        return {
            layer: rows + rng.normal(size=rows.shape).astype(np.float32)
            for layer, rows in encode(self, batch, layers).items()
        }

    monkeypatch.setattr(TinyEncoder, "encode", otherwise)
    problems = record(run_rd, "verify", "--sample", "100", exit_code=1)["problems"]
    assert len(problems) > 15 and all("embeds otherwise now: cosine distance" in p for p in problems)
