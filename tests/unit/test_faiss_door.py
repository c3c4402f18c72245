"""Exactly one FAISS, said plainly when it is not so, and its errors in words."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect.errors import FaissUnavailable, SearchError, UsageError, VectorError
from retrieval_detect.search import _faiss


@pytest.fixture
def installed(monkeypatch):
    """Pretend that these distributions, and no others, are installed."""
    real = metadata.version
    found = {}

    def version(name):
        if not name.startswith("faiss"):
            return real(name)
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(metadata, "version", version)
    _faiss.faiss.cache_clear()
    yield found
    _faiss.faiss.cache_clear()


@pytest.mark.parametrize(
    ("found", "says", "mends"),
    [
        ({}, "not installed", "pip install 'retrieval-detect[cpu]'"),
        (
            {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"},
            "faiss-cpu and faiss-gpu are installed over one another",
            "pip uninstall -y faiss-cpu faiss-gpu && pip install --force-reinstall 'faiss-gpu>=1.15,<2'",
        ),
        (
            {"faiss-gpu-cuvs": "1.15.1", "faiss-gpu-cu12": "1.14.1.post1"},
            "faiss-gpu-cuvs and faiss-gpu-cu12",
            "pip uninstall -y faiss-gpu-cuvs faiss-gpu-cu12 "
            "&& pip install --force-reinstall 'faiss-gpu-cuvs>=1.15,<2'",
        ),
        (
            {"faiss-gpu-cu12": "1.14.1.post1"},
            "faiss-gpu-cu12 is not a FAISS that rd supports",
            "pip uninstall -y faiss-gpu-cu12 && pip install 'retrieval-detect[gpu]'",
        ),
        ({"faiss-cpu": "1.9.0"}, "too old", "pip install --upgrade 'faiss-cpu>=1.15,<2'"),
    ],
)
def test_a_wrong_installation_names_the_line_that_mends_it(installed, found, says, mends):
    installed.update(found)
    with pytest.raises(FaissUnavailable, match=says) as caught:
        _faiss.faiss()
    assert caught.value.hint == mends
    status = _faiss.distribution_status()
    assert (status.installed, status.hint) == (found, mends)
    assert says in status.problem


def test_one_distribution_is_fine_and_described():
    status = _faiss.distribution_status()
    assert not status.problem
    assert len(status.installed) == 1
    assert status.compile_options
    assert status.n_gpus == 0 or status.gpu_symbols


def test_a_faiss_that_does_not_load_is_said_to(installed, monkeypatch):
    installed["faiss-cpu"] = "1.15.1"
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(FaissUnavailable, match="cannot be loaded") as caught:
        _faiss.faiss()
    assert "--force-reinstall 'retrieval-detect[cpu]'" in caught.value.hint


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (AssertionError(), "FAISS could not search: AssertionError"),
        (RuntimeError("Error in x\nno memory"), "FAISS could not search: no memory"),
        (MemoryError("bad_alloc"), "bad_alloc"),
    ],
)
def test_errors_of_faiss_become_ours(raised, text):
    with pytest.raises(SearchError, match=text), _faiss.faiss_errors("search"):
        raise raised


def test_our_own_errors_pass_unchanged():
    with pytest.raises(VectorError, match="ours"), _faiss.faiss_errors("search"):
        raise VectorError("ours")


def fake_faiss(monkeypatch, n_gpus):
    symbols = {} if n_gpus is None else {"StandardGpuResources": object, "get_num_gpus": lambda: n_gpus}
    monkeypatch.setattr(_faiss, "faiss", lambda: SimpleNamespace(**symbols))


@pytest.mark.parametrize(
    ("device", "n_gpus", "ordinal"),
    [
        ("cpu", 2, None),
        ("auto", None, None),
        ("auto", 0, None),
        ("auto", 2, 0),
        ("cuda", 1, 0),
        ("cuda:1", 2, 1),
    ],
)
def test_devices(monkeypatch, device, n_gpus, ordinal):
    fake_faiss(monkeypatch, n_gpus)
    assert _faiss.gpu_ordinal(device) == ordinal


@pytest.mark.parametrize(
    ("device", "n_gpus", "says"),
    [
        ("cuda", None, "built for the CPU only"),
        ("cuda", 0, "FAISS sees no GPU"),
        ("cuda:2", 2, "FAISS sees 2 GPUs"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch, device, n_gpus, says):
    fake_faiss(monkeypatch, n_gpus)
    with pytest.raises(FaissUnavailable, match=says) as caught:
        _faiss.gpu_ordinal(device)
    assert "--device" in caught.value.hint


def test_a_word_that_is_no_device():
    with pytest.raises(UsageError, match="'gpu' is no device"):
        _faiss.gpu_ordinal("gpu")


@pytest.mark.parametrize("order", [("torch", "faiss"), ("faiss", "torch")])
def test_torch_and_faiss_live_in_one_process_in_either_order(order):
    imports = {"torch": "import torch", "faiss": "from retrieval_detect.search._faiss import faiss; faiss()"}
    code = "\n".join(
        [
            "import numpy as np",
            *(imports[name] for name in order),
            "import torch",
            "x = torch.randn(256, 32)",
            "index = faiss().IndexFlatIP(32) if 'faiss' in globals() else None",
            "index.add(x.numpy())",
            "assert index.search(x.numpy(), 1)[1].shape == (256, 1)",
            "assert (x @ x.T).shape == (256, 256)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_searching_modules_load_no_faiss_before_the_first_search():
    code = "import sys, retrieval_detect.search.bank as b; assert 'faiss' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_nan_would_be_answered_in_silence():
    """Why queries are checked before FAISS sees them."""
    index = _faiss.faiss().IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    assert index.search(np.full((1, 2), np.nan, np.float32), 1)[1].tolist() == [[-1]]
