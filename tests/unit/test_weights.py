"""Weights are found without waiting for a network that is not there, and read without running them."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from retrieval_detect.encoders import _weights
from retrieval_detect.encoders.registry import DEFAULT_ENCODER, load_encoder
from retrieval_detect.errors import EncoderError, WeightsUnavailable

NOWHERE = "http://127.0.0.1:9"
REPOSITORY = "timm/vit_large_patch14_clip_224.openai"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No hub, nothing cached, and the digests of this test alone."""
    hub = tmp_path / "hub"
    monkeypatch.setenv("RD_CACHE", str(tmp_path / "digests"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("RD_OFFLINE", raising=False)
    return hub


def cache(hub, repository, **files):
    """Lay files out as the hub's client does."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    for name, content in files.items():
        (snapshot / name.replace("__", ".")).write_bytes(content)
    return snapshot


@pytest.fixture
def server():
    """A local HTTP server that answers every HEAD with ``server.code``."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(self.server.code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.code, server.url = 200, f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# ---------------------------------------------------------------- the hub


def test_without_a_network_the_default_encoder_fails_and_says_what_to_do():
    with pytest.raises(WeightsUnavailable) as caught:
        load_encoder(DEFAULT_ENCODER, device="cpu")
    message, hint = caught.value.message, caught.value.hint
    assert DEFAULT_ENCODER in message
    assert f"{REPOSITORY}/open_clip_model.safetensors" in message
    assert "cannot be reached" in message
    assert "--set encoder-weights=FILE" in hint
    assert "--encoder efficientnet-lite0" in hint


@pytest.mark.parametrize("variable", [{"RD_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": NOWHERE}])
def test_a_whole_process_ends_without_retrying(variable, tmp_path):
    """Interpreter, imports and error together; nothing is printed but the traceback."""
    code = (
        "import time; time.sleep = None;"  # what is tried again waits first, and would end in another error
        "from retrieval_detect.encoders.registry import load_encoder;"
        f"load_encoder({DEFAULT_ENCODER!r}, device='cpu')"
    )
    environment = {
        "PATH": "",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **variable,
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("retrieval_detect.errors.WeightsUnavailable: ")


@pytest.mark.parametrize("how", ["argument", "RD_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked(how, monkeypatch):
    if how == "RD_OFFLINE":
        monkeypatch.setenv("RD_OFFLINE", "1")
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(_weights, "reachable", lambda _: pytest.fail("the hub was asked"))
    with pytest.raises(WeightsUnavailable, match="offline"):
        _weights.fetch("some:thing", REPOSITORY, ("a.safetensors",), offline=how == "argument")


@pytest.mark.parametrize("name", ["ViT-B-32:openai", "timm:vit_tiny_patch16_224", "hf-hub:some/repository"])
def test_every_kind_of_name_fails_alike_without_a_network(name):
    with pytest.raises(WeightsUnavailable, match="cannot be reached") as caught:
        load_encoder(name, device="cpu")
    assert name in caught.value.message


def test_cached_files_need_no_network(empty_cache):
    snapshot = cache(empty_cache, REPOSITORY, second__bin=b"weights")
    assert _weights.fetch("x", REPOSITORY, ("first.safetensors", "second.bin")) == snapshot / "second.bin"


def test_the_hub_is_asked_for_each_file_in_turn(server, monkeypatch, tmp_path):
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(repository, name):
        asked.append((repository, name))
        if name.endswith(".safetensors"):
            raise EntryNotFoundError("404")
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert _weights.fetch("x", "a/b", ("w.safetensors", "w.bin")) == tmp_path / "w.bin"
    assert asked == [("a/b", "w.safetensors"), ("a/b", "w.bin")]
    with pytest.raises(WeightsUnavailable, match="no such file"):
        _weights.fetch("x", "a/b", ("w.safetensors",))


@pytest.mark.parametrize("error", [OSError("connection reset"), RuntimeError("no"), ValueError("no")])
def test_a_failing_download_is_one_error(error, server, monkeypatch):
    def download(*_):
        raise error

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(WeightsUnavailable, match=str(error)):
        _weights.fetch("x", "a/b", ("w.bin",))


@pytest.mark.parametrize(("code", "answer"), [(200, True), (404, True), (503, False)])
def test_reachable_by_status(server, code, answer):
    server.code = code
    assert _weights.reachable(server.url) is answer


@pytest.mark.parametrize("url", [NOWHERE, "http://host.invalid", "no url"])
def test_unreachable(url):
    assert not _weights.reachable(url)


def test_a_name_lookup_that_hangs_is_not_waited_for(monkeypatch):
    released, ended = threading.Event(), threading.Event()

    def hang(*_, **__):
        released.wait(30)
        ended.set()
        raise OSError

    monkeypatch.setattr(_weights, "urlopen", hang)
    try:
        assert not _weights.reachable("http://hub.example", timeout_s=0.2)
        assert not ended.is_set()
    finally:
        released.set()


# ---------------------------------------------------------------- reading files


def test_a_missing_file_is_named(tmp_path):
    for name in ("ViT-B-32", "timm:resnet18", "efficientnet-lite0"):
        with pytest.raises(WeightsUnavailable, match=r"missing\.pt' does not exist"):
            load_encoder(name, weights=tmp_path / "missing.pt", device="cpu")


def damaged_files(folder):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.save({"weight": torch.zeros(1000)}, folder / "whole.pt")
    save_file({"weight": torch.zeros(1000)}, folder / "whole.safetensors")
    for suffix in (".pt", ".safetensors"):
        data = (folder / f"whole{suffix}").read_bytes()
        (folder / f"cut{suffix}").write_bytes(data[: len(data) // 2])
        (folder / f"text{suffix}").write_text("hello, this is no weights file")
        (folder / f"empty{suffix}").write_bytes(b"")
    torch.save([1, 2], folder / "list.pt")
    torch.save({}, folder / "nothing.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "program.pt")


WRONG = [
    *[("whole.pt", "another architecture"), ("whole.safetensors", "another architecture")],
    *[
        (f"{kind}{suffix}", "damaged")
        for kind in ("cut", "text", "empty")
        for suffix in (".pt", ".safetensors")
    ],
    *[("list.pt", "damaged"), ("nothing.pt", "damaged"), ("program.pt", "more than weights")],
]


@pytest.mark.parametrize("name", ["RN50", "timm:resnet18", "efficientnet-lite0"])
def test_files_that_are_no_weights_of_this_network(name, tmp_path):
    damaged_files(tmp_path)
    for file, words in WRONG:
        with pytest.raises(EncoderError, match=words) as caught:
            load_encoder(name, weights=tmp_path / file, device="cpu")
        assert file in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint


def test_a_torchscript_program_is_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is leaving TorchScript behind; files of it remain
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(EncoderError, match="TorchScript program"):
        load_encoder("RN50", weights=path, device="cpu")


def test_folders_without_what_is_needed(tmp_path):
    with pytest.raises(WeightsUnavailable, match=r"open_clip_config\.json"):
        load_encoder("ViT-B-32", weights=tmp_path, device="cpu")
    config = tmp_path / "open_clip_config.json"
    config.write_text("{")
    with pytest.raises(EncoderError, match=r"open_clip_config\.json"):
        load_encoder(f"local-dir:{tmp_path}", device="cpu")
    config.write_text('{"model_cfg": {"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": {}}}')
    with pytest.raises(WeightsUnavailable, match="no weights file"):
        load_encoder(f"local-dir:{tmp_path}", device="cpu")


def test_a_folder_of_another_model_is_refused(tmp_path):
    import json

    from retrieval_detect.encoders._libraries import ensure_torchvision

    ensure_torchvision()
    import open_clip

    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": open_clip.get_model_config("RN50")})
    )
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(EncoderError, match="holds RN50, not ViT-B-32"):
        load_encoder("ViT-B-32", weights=tmp_path, device="cpu")


def test_the_digest_is_remembered(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"abc")
    assert _weights.digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert "ba7816bf" in (tmp_path / "digests" / "digests.json").read_text()
