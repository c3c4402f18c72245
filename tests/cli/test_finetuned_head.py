"""From images to a fine-tuned encoder, an index of it, and its own classifier asked: a paper's baseline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval_detect.cli.main import main
from retrieval_detect.heads.base import FORMAT, VERSION
from tests.building import one_error
from tests.factories import write_pictures

ENCODER = ("--encoder", "timm:test_resnet")
FINETUNE = ("finetune", "--real", "photos", "--fake", "generated", *ENCODER, "--scratch")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``new.safetensors`` and its head, trained by a process that had loaded nothing before."""
    folder = tmp_path_factory.mktemp("trained")
    for number, name in enumerate(("camera", "phone")):
        write_pictures(folder / "photos" / name, range(100 * number, 100 * number + 12))
    for number, name in enumerate(("sdxl", "flux")):
        start = 500 + 100 * number
        write_pictures(folder / "generated" / name, range(start, start + 12), fake=True)
    (folder / "index").mkdir()
    few = (
        "--set",
        "epochs=8",
        "--set",
        "batch=8",
        "--set",
        "lr=1e-2",
        "--device",
        "cpu",
        "--out",
        "new.safetensors",
    )
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RD_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_detect", *FINETUNE, *few, "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "report.json").write_text(done.stdout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        built = ["build-index", "--real", "photos", "--fake", "generated", *ENCODER]
        assert main([*built, "--set", "encoder-weights=new.safetensors", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def folder(trained, bare_folder):
    shutil.copytree(trained, bare_folder, dirs_exist_ok=True)
    return bare_folder


@pytest.fixture
def rd(run_rd):
    def run(*args):
        return run_rd(*args, "--set", "encoder-weights=new.safetensors")

    return run


def done(result):
    assert result.exit_code == 0, result.stderr
    return result


def scores_in_training(folder):
    """By the network and the two arrays themselves."""
    from safetensors.numpy import load_file

    from retrieval_detect.encoders.registry import load_encoder
    from retrieval_detect.images.labelled import pixels
    from retrieval_detect.images.sources import scan

    encoder = load_encoder("timm:test_resnet", weights=folder / "new.safetensors", device="cpu")
    batch = np.stack([encoder.prepare(pixels(item)) for item in scan([folder / "photos"])])
    learnt = load_file(folder / "new.head.safetensors")
    return encoder.encode(batch, ["proj"])["proj"] @ learnt["weight"] + learnt["bias"]


def test_the_classifier_scores_as_it_did_in_training(folder, run_rd, rd):
    said = done(run_rd("head", "import", "new.head.safetensors", "--name", "paper")).stdout
    assert "as paper, generation" in said
    verdicts = json.loads(done(rd("query", "photos", "--method", "paper", "--json")).stdout)
    expected = scores_in_training(folder)
    assert [v["score"] for v in verdicts] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert np.ptp(expected) > 0.05
    assert {v["method"] for v in verdicts} == {"paper"}


def test_it_is_measured_by_name(folder, run_rd, rd):
    done(run_rd("head", "import", "new.head.safetensors"))
    for label, where in (("real", "photos"), ("fake", "generated")):
        shutil.copytree(folder / where, folder / "set" / label)
    told = json.loads(done(rd("eval", "set", "--method", "finetuned", "--json", "--cache", "kept")).stdout)
    verdicts = [
        json.loads(done(rd("query", where, "--method", "finetuned", "--json")).stdout)
        for where in ("photos", "generated/sdxl", "generated/flux")
    ]
    photographs, *generators = ([verdict["score"] for verdict in asked] for asked in verdicts)
    assert [row["column"] for row in told["rows"][:2]] == ["flux", "sdxl"]
    for row, fakes in zip(told["rows"], reversed(generators), strict=False):
        right = [*(score <= 0 for score in photographs), *(score > 0 for score in fakes)]
        assert row["acc_fixed"] == pytest.approx(np.mean(right), abs=1e-4)


def test_an_index_of_another_encoder_refuses_it(folder, run_rd, contents):
    built = ("build-index", "--real", "photos", "--fake", "generated", "--encoder", "tiny", "--index", "toy")
    done(run_rd(*built))
    before = contents(folder / "index")
    said = one_error(run_rd("head", "import", "new.head.safetensors", "--index", "toy"), 1)
    assert "trained for another encoder than tiny" in said and "--set encoder-weights=FILE" in said
    assert contents(folder / "index") == before


def spoilt_facts(known):
    """What the JSON says where it does not say what it should."""
    return {
        "deep": "[" * 100_000,
        "kind": json.dumps(known | {"kind": "evil"}),
        "ensemble": json.dumps(known | {"kind": "ensemble"}),
        "options": json.dumps(known | {"options": {"layer": 5, "optimizer": "adamw"}}),
        "nobody": json.dumps(known | {"about": {}}),
        "other": json.dumps({"format": FORMAT, "version": VERSION}),
    }


def spoilt_arrays(known):
    """What the arrays are where they are no head of this encoder."""
    from safetensors.numpy import save

    return {
        "pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
        "huge": save(known | {"bias": np.array([1e300])}),
        "nan": save(known | {"bias": np.array([np.nan], np.float32)}),
        "width": save(known | {"weight": known["weight"][:-1]}),
    }


def spoil(folder, how):
    from safetensors.numpy import load_file

    head, facts = folder / "new.head.safetensors", folder / "new.head.json"
    if how == "alone":
        facts.unlink()
    elif how in (others := spoilt_facts(json.loads(facts.read_text()))):
        facts.write_text(others[how])
    else:
        head.write_bytes(spoilt_arrays(load_file(head))[how])


@pytest.mark.parametrize(
    ("how", "code"),
    [
        *(("alone", 2), ("pickle", 2), ("deep", 2), ("huge", 2), ("nan", 2), ("width", 1), ("kind", 2)),
        *(("ensemble", 2), ("options", 2), ("nobody", 1), ("other", 2)),
    ],
)
def test_files_of_anybody_are_read_and_never_run(folder, run_rd, contents, how, code):
    spoil(folder, how)
    before = contents(folder / "index")
    one_error(run_rd("head", "import", "new.head.safetensors"), code)
    assert contents(folder / "index") == before and not (folder / "owned").exists()


def test_a_layer_is_of_pth_files(folder, run_rd):
    said = one_error(run_rd("head", "import", "new.head.safetensors", "--layer", "pre"), 2)
    assert "says which layer it reads" in said
