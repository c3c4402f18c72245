"""Heads that tell generators apart attribute by what they learnt, wherever an answer is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.heads.caption import CaptionHead
from retrieval_detect.images.labelled import pixels
from retrieval_detect.images.sources import scan
from retrieval_detect.store.store import Store
from retrieval_detect.teach.heads import commit_head
from tests.cli.layered import build

KNOWN = ["flux", "firefly", "sdxl"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An index with a caption head that knows a generator which the bank does not, and a prototype head."""
    folder = build(tmp_path_factory.mktemp("built"))
    head = CaptionHead()
    rng = np.random.default_rng(3)
    text = rng.normal(size=(len(KNOWN) + 1, 32)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    head.restore({"text": text, "context": text[:0], "logit_scale": np.array([9.0], np.float32)})
    head.restore_facts({"classes": KNOWN})
    commit_head(Store(folder / "index" / "default"), "captions", head, strata=())
    return folder, head


@pytest.fixture
def head(built, bare_folder):
    for name in ("ask", "index"):
        shutil.copytree(built[0] / name, bare_folder / name)
    return built[1]


def asked(run_rd, *args):
    result = run_rd("query", *args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_captions_attribute(head, run_rd):
    """The share of each caption, among them one of a generator that has no reference."""
    verdicts = json.loads(asked(run_rd, "ask", "--method", "captions", "--json"))
    encoder = TinyEncoder()
    batch = np.stack([encoder.prepare(pixels(item)) for item in scan(["ask"])])
    names, shares = head.attribution({"proj": encoder.encode(batch, ["proj"])["proj"]})
    for verdict, own in zip(verdicts, shares, strict=True):
        told = {a["generator"]: a["share"] for a in verdict["attribution"]}
        assert told == pytest.approx(dict(zip(names, own, strict=True)), abs=2e-3)
        assert [a["share"] for a in verdict["attribution"]] == sorted(told.values(), reverse=True)
        assert sum(a["of_nearest_fakes"] for a in verdict["attribution"]) == 10
        assert verdict["attributed_by"] == "captions"
    assert any(verdict["attribution"][0]["generator"] == "firefly" for verdict in verdicts)


def test_people_read_whose_shares_these_are(head, run_rd):
    shown = asked(run_rd, "ask/9000.png", "--method", "captions")
    assert "  by captions  " in shown and "firefly" in shown and "nearest fakes" in shown
    assert "  by captions" not in asked(run_rd, "ask/9000.png")
    asked(run_rd, "ask/9000.png", "--method", "captions", "--report", "page.html")
    assert "% by captions" in Path("page.html").read_text()


@pytest.mark.parametrize("method", ["captions", "prototypes", "density"])
def test_stored_embeddings_are_attributed_alike(head, run_rd, method):
    assert run_rd("train", "prototype", "--name", "prototypes").exit_code == 0
    assert (
        run_rd("embed", "ask", "--out", "q.parquet", "--encoder", "tiny", "--layers", "proj").exit_code == 0
    )
    single = json.loads(asked(run_rd, "ask", "--method", method, "--json"))
    lines = run_rd("rescore", "q.parquet", "--method", method, "--format", "jsonl").stdout
    bulk = [json.loads(line)["top_generator"] for line in lines.splitlines()]
    assert bulk == [verdict["attribution"][0]["generator"] for verdict in single]
    assert {verdict["attributed_by"] for verdict in single} == {None if method == "density" else method}
