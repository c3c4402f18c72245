"""The small parts by themselves: ``python -m pytest bench/speed/test_parts.py --benchmark-json FILE``.

Needs pytest-benchmark; ``make test`` does not collect it. Each checks its answer once, so that what is fast
is also right.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from bench.speed.search import PROJECTION, made, wide
from retrieval_detect.encoders.preprocess import prepare
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.images.content_id import content_id, phash
from retrieval_detect.images.decode import decode
from retrieval_detect.images.items import from_bytes
from retrieval_detect.scoring.conformal import Conformal, at_least, at_most, verdict
from retrieval_detect.scoring.neighbours import NearestImages
from retrieval_detect.scoring.vote import vote
from retrieval_detect.search.bank import Bank, BankFiles
from retrieval_detect.search.projection import query_codes
from retrieval_detect.store.store import Store
from retrieval_detect.teach.build import Index
from retrieval_detect.types import METHODS, Preprocessing
from tests.scenes import picture
from tests.verdicts import CALIBRATED

SIDE, ROWS, K = 512, 10_000, 10
CLIP = Preprocessing("clip", 224, "bicubic", (0.5,) * 3, (0.5,) * 3)


def encoded(kind, *, seed=0, side=SIDE):
    picture(side, side, seed=seed).save(file := io.BytesIO(), kind)
    return file.getvalue()


# ---------------------------------------------------------------- file to network input


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_decode(benchmark, kind):
    assert benchmark(decode, encoded(kind)).rgb.shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("decoder", ["torch", "pillow"])
def test_resize(benchmark, decoder):
    rgb = decode(encoded("JPEG")).rgb
    assert benchmark(prepare, rgb, CLIP, decoder=decoder).shape == (224, 224, 3)


def test_content_id(benchmark):
    assert len(benchmark(content_id, encoded("JPEG"))) == 32


def test_phash(benchmark):
    assert 0 < benchmark(phash, decode(encoded("JPEG")).rgb) < 2**64


# ---------------------------------------------------------------- vector to neighbours


@pytest.mark.parametrize("q", [1, 1024])
def test_unit_and_rounding(benchmark, q):
    queries = 3 * wide(made(q, seed=2).vectors)
    codes = benchmark(query_codes, queries, PROJECTION)
    assert codes.dtype == np.float16 and np.allclose(
        np.linalg.norm(codes.astype(float), axis=1), 1, atol=1e-3
    )


@pytest.mark.parametrize("q", [1, 32])
def test_scan(benchmark, q):
    shard = made(ROWS, seed=1)
    bank = Bank.open([shard], label="fake", files=BankFiles(None, PROJECTION))
    found = benchmark(bank.search, wide(shard.vectors[:q]), K)
    assert found.row_ids[:, 0].tolist() == list(range(q))


# ---------------------------------------------------------------- neighbours to verdict


def neighbours(k, *, seed):
    rng = np.random.default_rng(seed)
    ids = np.arange(k)[None, :]
    similarities = np.sort(rng.uniform(0, 1, (1, k)).astype(np.float32)).astype(np.float64)[:, ::-1]
    return NearestImages(similarities, np.zeros((1, k)), ids % 8, ids, np.array([k]), 5 * k)


@pytest.mark.parametrize("method", METHODS)
def test_vote(benchmark, method):
    fake, real = neighbours(200, seed=1), neighbours(200, seed=2)
    assert np.isfinite(benchmark(vote, fake, real, method=method).scores).all()


def test_conformal_judgement(benchmark):
    rng = np.random.default_rng(3)
    scores = [np.sort(rng.normal(mean, 1, 200)) for mean in (-1, -1, 1, 1)]
    known = Conformal(
        dict(zip("ab", scores[:2], strict=True)), dict(zip("cd", scores[2:], strict=True)), scores[0]
    )

    def judge():
        (photographs,) = known.compared(0.05, within=None, source=None, traits={}).values()
        p_real, p_typical = at_least(photographs, 4.0), at_most(known.typical, 0.0)
        return verdict(float(p_real), float(known.p_fake([4.0])[0]), float(p_typical))

    assert benchmark(judge) == "fake-like"


def test_verdict_to_json(benchmark):
    text = benchmark(lambda: json.dumps(CALIBRATED.to_dict()))
    assert json.loads(text)["schema"] == 1


# ---------------------------------------------------------------- opening


def test_open_an_index(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "cache"))
    index = Index.create(tmp_path / "index", encoder=TinyEncoder())
    for label in ("real", "fake"):
        items = [from_bytes(encoded("PNG", seed=i, side=64), f"{label}{i}") for i in range(20)]
        items = items[::2] if label == "real" else items[1::2]
        index.apply(index.plan_add(items, label=label), encoder=TinyEncoder())
    snapshot = benchmark(Store(index.folder).snapshot)
    assert snapshot.manifest.live_rows("fake") == 10
