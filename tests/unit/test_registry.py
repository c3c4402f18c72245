"""Encoders by name, plug-ins, devices, precisions, and what is said about names nobody knows."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from retrieval_detect.encoders.registry import (
    CLIP_ENCODER,
    DEFAULT_ENCODER,
    ENTRY_POINT_GROUP,
    OFFLINE_ENCODER,
    known_encoders,
    load_encoder,
)
from retrieval_detect.errors import EncoderError, UsageError, WeightsUnavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "cache"))


def test_known_encoders_start_with_rds_own():
    assert known_encoders()[:4] == (DEFAULT_ENCODER, CLIP_ENCODER, OFFLINE_ENCODER, "tiny")


def test_the_tiny_encoder_needs_no_torch():
    code = (
        "import sys; from retrieval_detect.encoders import registry; registry.known_encoders();"
        "name = registry.load_encoder('tiny').spec.name;"
        "print(name, sorted({'torch', 'timm', 'open_clip', 'faiss'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "tiny []\n"


def test_loading_leaves_the_root_logger_and_torch_as_they_were():
    torch = pytest.importorskip("torch")
    before = list(logging.getLogger().handlers), list(logging.getLogger().filters), torch.get_num_threads()
    with pytest.raises(WeightsUnavailable):
        load_encoder(DEFAULT_ENCODER, device="cpu", offline=True)
    load_encoder(OFFLINE_ENCODER, device="cpu")
    assert before == (logging.getLogger().handlers, logging.getLogger().filters, torch.get_num_threads())


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("ViT-L-14:openia", "ViT-L-14:openai"),
        ("VIT-L-14:openai", "ViT-L-14:openai"),
        ("ViT-B-23", "ViT-B-32"),
        ("timm:resnet81", "timm:resnet18"),
        ("efficientnet-lite1", OFFLINE_ENCODER),
        ("tinny", "tiny"),
        ("qqqq", "MODEL:TAG"),
    ],
)
def test_unknown_names_bring_close_ones(name, suggestion):
    with pytest.raises(EncoderError, match=name.removeprefix("timm:")) as caught:
        load_encoder(name, device="cpu")
    assert not isinstance(caught.value, WeightsUnavailable)
    assert suggestion in caught.value.hint


def test_a_model_without_a_tag_names_no_weights():
    with pytest.raises(WeightsUnavailable, match="names no weights") as caught:
        load_encoder("ViT-B-32", device="cpu")
    assert "MODEL:TAG" in caught.value.hint


def test_only_networks_can_be_told_to_crop():
    with pytest.raises(UsageError, match="@crop"):
        load_encoder("tiny@crop")
    encoder = load_encoder(f"{OFFLINE_ENCODER}@crop", device="cpu")
    assert encoder.spec.preprocessing.mode == "crop"
    assert load_encoder(encoder.spec.name, device="cpu").spec == encoder.spec


# ---------------------------------------------------------------- devices and precisions


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:99"])
def test_a_gpu_that_is_not_there(device, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        EncoderError, match=f"{device} was asked for, and torch finds no CUDA devices"
    ) as caught:
        load_encoder(OFFLINE_ENCODER, device=device)
    assert "--device cpu" in caught.value.hint


def test_devices_are_resolved(monkeypatch):
    torch = pytest.importorskip("torch")
    from retrieval_detect.encoders._torch import resolve_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(EncoderError, match="torch finds 2 CUDA devices"):
        resolve_device("cuda:2")
    for nonsense in ("gpu", "cuda:x", "cuda:-1", ""):
        with pytest.raises(UsageError, match="no device"):
            resolve_device(nonsense)


def test_precisions_are_resolved(monkeypatch):
    torch = pytest.importorskip("torch")
    from retrieval_detect.encoders import _torch

    plain, normalised = torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    for fast in (True, False):
        monkeypatch.setattr(_torch, "cpu_multiplies_bfloat16", lambda fast=fast: fast)
        assert _torch.resolve_precision("auto", "cpu", plain) == ("bfloat16" if fast else "float32")
        assert _torch.resolve_precision("auto", "cuda:0", plain) == "float16"
        assert _torch.resolve_precision("auto", "cuda:0", normalised) == "float32"
        assert _torch.resolve_precision("bfloat16", "cpu", normalised) == "bfloat16"
    with pytest.raises(UsageError, match="no precision"):
        _torch.resolve_precision("float8", "cpu", plain)


def test_calls_that_cannot_be_meant():
    import numpy as np

    for encoder in (load_encoder("tiny"), load_encoder(OFFLINE_ENCODER, device="cpu")):
        size = encoder.spec.preprocessing.size
        batch = np.zeros((1, size, size, 3), np.uint8)
        for layers in (["block99"], [], ["proj", "nothing"]):
            with pytest.raises(UsageError, match="layer"):
                encoder.encode(batch, layers)
        for wrong in (batch[0], batch[:0], batch[:, 1:], batch.astype(np.float32)):
            with pytest.raises(UsageError, match="takes uint8"):
                encoder.encode(wrong, ["proj"])


# ---------------------------------------------------------------- torchvision


def test_a_torchvision_that_works_is_not_touched(monkeypatch):
    from retrieval_detect.encoders import _libraries

    monkeypatch.setattr(_libraries, "import_module", lambda name: None)
    monkeypatch.setattr(_libraries, "_declare_operators", lambda: pytest.fail("declared twice"))
    _libraries.ensure_torchvision()


def test_a_cuda_torchvision_beside_a_cpu_torch_is_mended_once(monkeypatch):
    from retrieval_detect.encoders import _libraries

    calls = []

    def import_module(name):
        calls.append(name)
        if calls.count(name) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(_libraries, "import_module", import_module)
    monkeypatch.setattr(_libraries, "_declare_operators", lambda: calls.append("declared"))
    _libraries.ensure_torchvision()
    assert calls == ["torchvision", "declared", "torchvision"]


def test_a_torchvision_broken_otherwise_is_an_error(monkeypatch):
    from retrieval_detect.encoders import _libraries

    def import_module(name):
        raise RuntimeError("undefined symbol")

    monkeypatch.setattr(_libraries, "import_module", import_module)
    with pytest.raises(EncoderError, match="undefined symbol") as caught:
        _libraries.ensure_torchvision()
    assert "torchvision" in caught.value.hint


# ---------------------------------------------------------------- plug-ins


@pytest.fixture
def plug_ins(tmp_path, monkeypatch):
    """A package with entry points, as if it were installed."""
    (tmp_path / "acme_encoders.py").write_text(
        "from retrieval_detect.testing import TinyEncoder\n"
        "asked = []\n"
        "def load(name, *, weights, device, precision, offline):\n"
        "    asked.append((name, weights, device, precision, offline))\n"
        "    return TinyEncoder()\n"
        "def nonsense(name, **_):\n"
        "    return name\n"
    )
    information = tmp_path / "acme_encoders-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-encoders\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nacme = acme_encoders:load\nnonsense = acme_encoders:nonsense\n"
        "gone = acme_encoders:gone\nmissing = no_such_module_here:load\ntimm = acme_encoders:nonsense\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "acme" in entry_points(group=ENTRY_POINT_GROUP).names
    yield
    sys.modules.pop("acme_encoders", None)


def test_plug_ins_are_asked_for_their_names(plug_ins, tmp_path):
    encoder = load_encoder("acme", device="cpu")
    load_encoder("acme:large", weights=str(tmp_path), device="cpu", precision="float32", offline=True)
    assert encoder.spec.name == "tiny"
    assert sys.modules["acme_encoders"].asked == [
        ("acme", None, "cpu", "auto", False),
        ("acme:large", tmp_path, "cpu", "float32", True),
    ]
    assert {"acme", "nonsense", "gone"} <= set(known_encoders())


@pytest.mark.parametrize(
    ("name", "words"),
    [("gone", "cannot be loaded"), ("missing", "cannot be loaded"), ("nonsense", "no encoder")],
)
def test_broken_plug_ins_are_named(plug_ins, name, words):
    with pytest.raises(EncoderError, match=f"{name}.*{words}"):
        load_encoder(name, device="cpu")


def test_plug_ins_do_not_replace_rds_own(plug_ins):
    with pytest.raises(EncoderError, match="timm knows no model"):
        load_encoder("timm:no_such_model", device="cpu")
