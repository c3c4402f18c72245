from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from retrieval_detect.cli.commands.doctor import DISTRIBUTIONS, examine
from retrieval_detect.cli.settings import SETTING_NAMES, Settings
from retrieval_detect.search import _faiss
from retrieval_detect.search._faiss import FaissStatus
from tests.building import one_error

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def faiss_works(monkeypatch):
    status = FaissStatus({"faiss-cpu": "1.15.1"})
    monkeypatch.setattr(_faiss, "distribution_status", lambda: status)


def findings(name: str, settings: Settings | None = None):
    return [check for check in examine(settings or Settings()) if check.name == name]


def finding(name: str, settings: Settings | None = None):
    (check,) = findings(name, settings)
    return check


def test_json_holds_every_check_and_every_setting(run_rd, monkeypatch):
    monkeypatch.setenv("RD_K", "5")
    result = run_rd("doctor", "--json", "--home", "h")
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["usable"] else 1)
    assert {"rd", "packages", "FAISS", "torch", "GPU", "torchvision", "encoder", "home", "indexes"} <= {
        check["name"] for check in found["checks"]
    }
    assert found["settings"].keys() == set(SETTING_NAMES)
    assert found["settings"]["k"] == {"value": 5, "origin": "RD_K"}
    assert found["settings"]["home"] == {"value": "h", "origin": "--home"}
    assert found["settings"]["index"] == {"value": "default", "origin": "default"}


def test_every_finding_that_is_not_well_says_what_to_do(bare_folder):
    for check in examine(Settings(encoder="ViT-L-14:none", home=bare_folder)):
        assert check.state == "ok" or check.advice


def test_people_see_states_and_origins(run_rd, bare_folder):
    (bare_folder / "rd.toml").write_text('index = "mine"\n')
    result = run_rd("doctor")
    assert result.stderr == ""
    assert "\nok       FAISS        faiss-cpu 1.15.1, CPU only\n" in result.stdout
    assert f"  index            mine                          {bare_folder / 'rd.toml'}\n" in result.stdout
    assert "  batch-size       chosen by rd                  default\n" in result.stdout


def test_quiet_answers_whether_rd_is_usable(run_rd):
    assert run_rd("doctor", "-q").stdout in {"True\n", "False\n"}


def test_without_a_faiss_rd_is_unusable(run_rd, monkeypatch):
    broken = FaissStatus({}, problem="FAISS is not installed", hint="pip install 'retrieval-detect[cpu]'")
    monkeypatch.setattr(_faiss, "distribution_status", lambda: broken)
    result = run_rd("doctor")
    assert result.exit_code == 1
    assert "missing  FAISS        FAISS is not installed\n" in result.stdout
    assert "pip install 'retrieval-detect[cpu]'\n" in result.stdout


def test_without_torch_rd_is_unusable(bare_folder):
    program = "import sys; sys.modules['torch'] = None\n"
    program += "from retrieval_detect.cli.main import main; sys.exit(main(['doctor', '--json']))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    torch = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "torch")
    assert (torch["state"], torch["fatal"], torch["advice"]) == ("missing", True, "pip install torch")


def test_a_missing_package_is_named(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "simplejpeg":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    check = finding("packages")
    assert (check.state, check.fatal, check.advice) == ("missing", True, "pip install simplejpeg")


def test_packages_are_those_of_pyproject():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert [line.partition(">=")[0] for line in pyproject["project"]["dependencies"]] == list(DISTRIBUTIONS)


def test_a_gpu_that_faiss_cannot_use_is_a_warning(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _n: "H200")
    check = finding("GPU")
    assert (check.state, check.detail) == ("warn", "H200: torch can use it, FAISS cannot")
    assert "retrieval-detect[gpu]" in check.advice


def test_weights_given_are_looked_for(bare_folder):
    weights = bare_folder / "clip.pt"
    missing = findings("encoder", Settings(encoder_weights=weights))[-1]
    assert (missing.state, missing.advice) == ("missing", "Correct encoder-weights.")
    weights.write_bytes(b"x")
    assert findings("encoder", Settings(encoder_weights=weights))[-1].state == "ok"


def test_weights_that_are_not_here_are_a_warning_with_both_ways_out(bare_folder, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(bare_folder / "empty"))
    check = findings("encoder")[-1]
    assert (check.state, check.detail) == ("warn", "ViT-L-14:openai: weights are not here yet")
    assert "rd build-index" in check.advice
    assert "--encoder efficientnet-lite0" in check.advice


def test_a_home_that_cannot_be_written_is_a_warning(bare_folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    check = finding("home", Settings(home=bare_folder / "new"))
    assert (check.state, check.detail) == ("warn", f"{bare_folder / 'new'} cannot be written")


def test_a_full_disk_is_a_warning(bare_folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    check = finding("home", Settings(home=bare_folder))
    assert (check.state, check.detail) == ("warn", f"{bare_folder}, 1 kB free")


def test_indexes_are_listed(bare_folder):
    assert finding("indexes", Settings(home=bare_folder)).detail == "none yet"
    (bare_folder / "mine").mkdir()
    (bare_folder / "mine" / "CURRENT").write_text("1\n")
    assert finding("indexes", Settings(home=bare_folder)).detail == "mine"


def test_a_variable_that_nothing_reads_is_named(monkeypatch):
    monkeypatch.setenv("RD_INDX", "a")
    monkeypatch.setenv("RD_DEBUG", "1")
    check = finding("variable")
    assert check.detail == "RD_INDX is set, and nothing reads it"
    assert "RD_INDEX" in check.advice


def test_what_the_index_in_use_is_large_enough_for(run_rd, index):
    found = json.loads(run_rd("doctor", "--json").stdout)["index"]
    reached = {size["what"]: size["reached"] for size in found}
    assert reached["a vote, with the references that say so"] and not all(reached.values())
    shown = run_rd("doctor").stdout
    assert "\nIndex default, what it is large enough for" in shown
    assert "\nnot yet  5 % for photographs of new sources (2 sources of photographs, 19 needed)\n" in shown


def test_an_index_that_is_named_and_is_not_there(run_rd):
    assert "there is no index" in one_error(run_rd("doctor", "--index", "nosuch"), 1)
    assert json.loads(run_rd("doctor", "--json").stdout)["index"] == []
