"""Engines are asked for the canaries once; what a user remembers of that holds for nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders import agreement
from retrieval_detect.encoders.agreement import CANARY_TOLERANCE, REMEMBERED, engine_drift, require_agreement
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import EncoderMismatch
from retrieval_detect.files import user_cache, write_json
from retrieval_detect.store.store import Store


class Counting(TinyEncoder):
    """By another engine than the index's; ``calls`` : how many batches it was given."""

    def __init__(self, *, noise=0.0, **changes):
        super().__init__()
        self._spec = replace(self._spec, **({"precision": "bfloat16"} | changes))
        self._noise, self.calls = noise, 0

    def encode(self, batch, layers):
        self.calls += 1
        rng = np.random.default_rng(0)
        return {
            layer: (rows + self._noise * rows.std() * rng.normal(size=rows.shape)).astype(np.float32)
            for layer, rows in super().encode(batch, layers).items()
        }


def made(folder, *, layers=("proj",)):
    encoder = TinyEncoder()
    return Store.create(folder, encoder.spec, canaries=canary_vectors(encoder, layers)).snapshot()


@pytest.fixture
def snapshot(tmp_path):
    return made(tmp_path / "index")


def calls(snapshot, **changes):
    """How often a new process embeds when it asks the index twice."""
    encoder = Counting(**changes)
    require_agreement(encoder, snapshot)
    require_agreement(encoder, snapshot)
    return encoder.calls


def test_the_second_cold_query_embeds_no_canaries(snapshot):
    detectors = [Detector(snapshot, encoder=Counting()) for _ in range(2)]
    assert [detector.encoder.calls for detector in detectors] == [1, 0]


def test_an_engine_that_the_index_knows_is_not_asked(snapshot):
    assert calls(snapshot, precision="float32") == 0 and not (user_cache() / REMEMBERED).exists()


def test_another_engine_version_or_index_is_asked_anew(snapshot, tmp_path, monkeypatch):
    assert calls(snapshot) == 1
    assert calls(snapshot, precision="float16") == 1
    assert calls(snapshot, runtime="openvino") == 1
    assert calls(made(tmp_path / "same")) == 0
    layer = next(layer for layer in TinyEncoder().spec.layers if layer != "proj")
    assert calls(made(tmp_path / "wider", layers=("proj", layer))) == 1
    assert calls(snapshot) == 0
    monkeypatch.setattr(agreement, "version", lambda _: "0.0.1")
    assert calls(snapshot) == 1


def test_an_engine_that_does_not_agree_never_passes(snapshot):
    encoder = Counting(noise=0.3)
    for n in (1, 2):
        with pytest.raises(EncoderMismatch, match="its canaries differ by"):
            require_agreement(encoder, snapshot)
        assert encoder.calls == n


@pytest.mark.parametrize("entry", [2 * CANARY_TOLERANCE, -1.0, float("nan"), True, None, "0.0", {}, []])
def test_an_entry_that_is_no_agreement_counts_for_nothing(snapshot, entry):
    calls(snapshot)
    path = user_cache() / REMEMBERED
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: entry}))
    assert calls(snapshot) == 1
    assert calls(snapshot) == 0


@pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
def test_a_damaged_cache_costs_one_measurement(snapshot, text):
    path = user_cache() / REMEMBERED
    path.write_bytes(text.encode("latin-1"))
    assert calls(snapshot) == 1 and calls(snapshot) == 0


def test_a_cache_that_cannot_be_written_costs_a_measurement_each_time(snapshot, tmp_path, monkeypatch):
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "file"))
    user_cache().write_text("where a folder should be")
    assert calls(snapshot) == 2


def test_what_a_user_remembers_is_not_what_an_index_records(snapshot):
    calls(snapshot)
    path = user_cache() / REMEMBERED
    write_json(path, dict.fromkeys(json.loads(path.read_text()), 0.004))
    encoder = Counting()
    assert engine_drift(encoder, snapshot) < 1e-6 and encoder.calls == 1
