"""``rd train KIND`` and asking what it trained, as people and scripts meet them."""

from __future__ import annotations

import json
import shutil

import pytest

from retrieval_detect.ask.fitted import load_head
from retrieval_detect.cli.main import main
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.training import load_training_set
from tests.building import one_error
from tests.cli.layered import build
from tests.factories import write_pictures

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture
def index(built, bare_folder):
    for name in ("ask", "new", "drone", "index"):
        shutil.copytree(built / name, bare_folder / name)
    return bare_folder / "index" / "default"


def train(run_rd, *args, exit_code=0):
    result = run_rd("train", *args)
    assert result.exit_code == exit_code, result.stderr
    return result


def verdicts(run_rd, *args):
    result = run_rd("query", "ask", "--json", *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def info(run_rd):
    return json.loads(run_rd("index", "info", "--json").stdout)


SMALL = {"layers": ("--set", "width=8", "--set", "epochs=2"), "ensemble": ("--members", "density,mean")}
QUICK = ("linear", "svm", "prototype", "layers", "ensemble")


@pytest.mark.parametrize("kind", QUICK)
def test_trained_and_asked(index, run_rd, kind):
    shown = train(run_rd, kind, "--name", "mine", *SMALL.get(kind, ())).stdout
    assert shown.startswith(f"Head mine ({kind}): ")
    assert "  Committed as generation 3. Undo: rd bank rollback 2" in shown.splitlines()
    assert "  Use it: rd query photo.jpg --method mine" in shown.splitlines()
    plain = verdicts(run_rd)
    for verdict, other in zip(verdicts(run_rd, "--method", "mine"), plain, strict=True):
        assert verdict["method"] == "mine" and verdict["score"] != other["score"]
        assert verdict["evidence"] == other["evidence"] and verdict["p_values"] is None
    assert run_rd("fit", "calibration", "--method", "mine").exit_code == 0
    assert all(verdict["p_values"] for verdict in verdicts(run_rd, "--method", "mine"))
    assert info(run_rd)["heads"] == {"mine": {"kind": kind, "stale": False}}
    assert f"\nheads        mine ({kind})\n" in run_rd("index", "info").stdout


@pytest.mark.parametrize("kind", QUICK)
def test_a_dry_run_writes_nothing(index, run_rd, contents, kind):
    before = contents(index)
    result = train(run_rd, kind, *SMALL.get(kind, ()), "--dry-run")
    assert "Nothing was trained or written." in result.stdout
    assert contents(index) == before


def test_for_programs(index, run_rd):
    record = json.loads(train(run_rd, "linear", "--set", "layer=pre", "--json").stdout)
    assert (record["name"], record["kind"], record["layers"]) == ("linear", "linear", ["pre"])
    assert record["photographs"] + record["fakes"] == sum(
        counts["bank"] for counts in info(run_rd)["references"].values()
    )
    assert 0.6 < record["auc_calib"] <= 1 and record["generation"] == 3
    record = json.loads(train(run_rd, "layers", "--set", "epochs=1", "--set", "width=4", "--json").stdout)
    assert record["layers"] == ["proj", "pre", "block01"]


def test_the_seed_decides(index, run_rd):
    quick = ("--set", "width=8", "--set", "epochs=2")
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        train(run_rd, "layers", *quick, "--name", name, "--set", f"seed={seed}")
    scores = {name: [v["score"] for v in verdicts(run_rd, "--method", name)] for name in "abc"}
    assert scores["a"] == scores["b"] != scores["c"]


def test_an_ensemble_of_votes_and_heads(index, run_rd):
    train(run_rd, "linear", "--name", "lr")
    result = train(run_rd, "ensemble", "--members", "density, lr ,lr", "--set", "rule=soft-or")
    assert "scoring with density" in result.stderr and "scoring with lr" in result.stderr
    again = "rd train ensemble --name ensemble --members density,lr"
    assert again in run_rd("index", "fitted", "list").stdout
    assert all(v["method"] == "ensemble" for v in verdicts(run_rd, "--method", "ensemble"))


def test_cheap_heads_follow_an_addition_and_others_warn(index, run_rd):
    train(run_rd, "linear", "--name", "lr")
    train(run_rd, "layers", "--name", "lay", *SMALL["layers"])
    for method in ("lr", "lay"):
        assert run_rd("fit", "calibration", "--method", method).exit_code == 0
    added = run_rd("bank", "add", "new", "--label", "fake", "--generator", "new")
    assert added.exit_code == 0, added.stderr
    assert {name: facts["stale"] for name, facts in info(run_rd)["heads"].items()} == {
        "lr": False,
        "lay": True,
    }
    assert "lay (layers, stale)" in run_rd("index", "info").stdout
    for method, n in (("lr", 0), ("lay", 1)):
        for verdict in verdicts(run_rd, "--method", method):
            assert sum("rd train" in warning for warning in verdict["warnings"]) == n
            assert verdict["p_values"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("linear", "--name", "density"), "'density' cannot name a head"),
        (("linear", "--name", "a--b"), "cannot name"),
        (("linear", "--set", "layer=block07"), "does not store layer 'block07'"),
        (("linear", "--set", "c=0"), "c cannot be '0'"),
        (("linear", "--set", "c=nan"), "c is nan"),
        (("linear", "--set", "seed=-1"), "seed cannot be '-1'"),
        (("linear", "--set", "optimizer=sgd"), "optimizer cannot be 'sgd'"),
        (("linear", "--set", "shots=5"), "nothing called shots to set"),
        (("svm", "--set", "shots=5000"), "5000 of each are needed"),
        (("layers", "--set", "layers-read=block07"), "does not store layer 'block07'"),
        (("prototype", "--set", "family=cauchy"), "family cannot be 'cauchy'"),
        (("ensemble",), "--members"),
        (("ensemble", "--members", " , "), "needs members"),
        (("ensemble", "--members", "density,nope"), "no head 'nope'"),
        (("ensemble", "--members", "density,lr", "--name", "lr"), "member of itself"),
        (("quality",), "--scores"),
        (("linaer",), "Did you mean 'linear'?"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(index, run_rd, contents, args, said):
    before = contents(index)
    assert said in one_error(run_rd("train", *args), 2)
    assert contents(index) == before


@pytest.mark.parametrize("kind", ["prompt", "adapter", "caption", "quality"])
def test_an_encoder_without_a_text_tower(index, run_rd, contents, bare_folder, kind):
    pytest.importorskip("torch")
    scores = bare_folder / "scores.csv"
    rows = json.loads(run_rd("bank", "list", "--by", "row", "--json").stdout)
    scores.write_text("\n".join(["image,score", *(f"{row['uri']},1" for row in rows)]))
    before = contents(index)
    args = ("--scores", "scores.csv") if kind == "quality" else ()
    result = run_rd("train", kind, *args)
    assert "tiny has no text tower" in one_error(result, result.exit_code)
    assert result.exit_code in (1, 2) and contents(index) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no table of scores"),
        ("image,score\nx,1\n", "is a reference"),
        ("image,score\nx,nan\n", "'nan'"),
    ],
)
def test_scores_that_cannot_be_used(index, run_rd, contents, bare_folder, text, said):
    (bare_folder / "scores.csv").write_text(text)
    before = contents(index)
    assert said in one_error(run_rd("train", "quality", "--scores", "scores.csv"), 2)
    assert contents(index) == before


def test_one_label_only(pictures, run_rd, contents):
    assert run_rd("build-index", "--real", "photos", "--encoder", "tiny").exit_code == 0
    before = contents(pictures / "index" / "default")
    for args in (("train", "linear"), ("fit", "projection", "x", "--kind", "lda")):
        assert "no fake references" in one_error(run_rd(*args), 2)
    assert contents(pictures / "index" / "default") == before


def test_no_index(bare_folder, run_rd):
    assert "there is no index" in one_error(run_rd("train", "linear"), 1)


def test_the_list_of_kinds(run_rd):
    shown = run_rd("train", "--help").stdout
    for kind in ("linear", "prompt", "quality", "ensemble"):
        assert f"  {kind} " in shown


# ---------------------------------------------------------------- with a text tower


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP model of random weights, an index over it, and weights of another model of the same shape."""
    from tests.text_towers import saved, torch

    folder = tmp_path_factory.mktemp("clip")
    name = saved("clip", folder / "clip")
    file = folder / "clip" / "open_clip_model.safetensors"
    for label, where, fake in (("camera", "photos", False), ("sdxl", "generated", True)):
        write_pictures(folder / where / label, range(fake * 1000, fake * 1000 + 30), fake=fake)
    (folder / "index").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        assert main(["build-index", "--real", "photos", "--fake", "generated", "--encoder", name]) == 0
    from safetensors.torch import load_file, save_file

    state = load_file(file)
    save_file(
        {key: value + torch.ones_like(value) for key, value in state.items()}, folder / "other.safetensors"
    )
    return folder


@pytest.fixture
def clip_index(clip, bare_folder, caplog):
    caplog.set_level("CRITICAL")
    shutil.copytree(clip / "index", bare_folder / "index")
    return bare_folder / "index" / "default"


@pytest.mark.parametrize("kind", ["prompt", "adapter", "caption", "quality"])
def test_heads_with_a_text_tower(clip, clip_index, run_rd, bare_folder, kind):
    lines = [f"{path.resolve()},{int(path.stem)}" for path in sorted((clip / "photos" / "camera").iterdir())]
    (bare_folder / "scores.csv").write_text("\n".join(["image,score", *lines]))
    args = ("--scores", "scores.csv") if kind == "quality" else ()
    shown = train(run_rd, kind, "--name", "mine", "--set", "epochs=1", *args).stdout
    assert f"Head mine ({kind})" in shown and ("Use it" in shown) == (kind != "quality")
    asked = run_rd("query", str(clip / "photos" / "camera" / "0000.png"), "--method", "mine", "--json")
    (told,) = json.loads(asked.stdout)
    assert told["method"] == "mine" and ("verdict" in told) == (kind != "quality")
    said = one_error(run_rd("train", "ensemble", "--members", "density,mine"), 2)
    assert f"a {kind} head cannot be trained again" in said


def test_a_quality_head_says_how_good_images_look(clip, clip_index, run_rd, bare_folder):
    """What it predicts of each, as of the vectors that are stored; and no verdict."""
    folder = (clip / "photos" / "camera").resolve()
    lines = [f"{path},{i % 7}" for i, path in enumerate(sorted(folder.iterdir()))]
    (bare_folder / "scores.csv").write_text("\n".join(["image,score", *lines]))
    train(run_rd, "quality", "--name", "looks", "--set", "epochs=2", "--scores", "scores.csv")
    asked = ("query", str(folder), "--method", "looks")
    told = {rating["input"]: rating["quality"] for rating in json.loads(run_rd(*asked, "--json").stdout)}

    snapshot = Snapshot.open(clip_index)
    rows = load_training_set(snapshot, ("proj",))
    uris = [row["uri"] for row in snapshot.take(rows.row_ids.tolist(), ["uri"])]
    predicted = load_head(snapshot, "looks").decision_function({"proj": rows.as_encoded("proj")})
    stored = {uri: quality for uri, quality in zip(uris, predicted, strict=True) if uri in told}
    assert len(stored) > 20 and len(set(stored.values())) > 20
    assert {uri: told[uri] for uri in stored} == pytest.approx(stored, abs=2e-3)

    (bare_folder / "broken.png").write_text("no image")
    result = run_rd("query", "broken.png", str(folder / "0003.png"), "--method", "looks")
    assert result.exit_code == 3 and "broken.png" in result.stderr
    assert result.stdout.startswith("quality ") and "0003.png" in result.stdout
    assert "nothing about fakes" in result.stderr and "bank" not in result.stdout
    table = run_rd(*asked, "--format", "csv").stdout.splitlines()
    assert table[0] == "input,quality,sha256,index,generation,warnings,error" and len(table) == 31


@pytest.mark.parametrize(
    "option", ["--fpr=0.1", "--exit-code", "--report=p.html", "--stability", "--evidence=blind", "--set=k=3"]
)
def test_what_is_asked_of_a_verdict_is_not_asked_of_quality(clip, clip_index, run_rd, bare_folder, option):
    lines = [f"{path.resolve()},{path.stem}" for path in (clip / "photos" / "camera").iterdir()]
    (bare_folder / "scores.csv").write_text("\n".join(["image,score", *lines]))
    train(run_rd, "quality", "--name", "looks", "--set", "epochs=1", "--scores", "scores.csv")
    asked = ("query", str(clip / "photos" / "camera"), "--method", "looks", option)
    assert "means nothing for looks" in one_error(run_rd(*asked), 2)
    assert not (bare_folder / "p.html").exists()


def test_a_text_tower_of_another_model(clip, clip_index, run_rd, contents):
    before = contents(clip_index)
    result = run_rd(
        "train", "prompt", "--set", "epochs=1", "--set", f"encoder-weights={clip / 'other.safetensors'}"
    )
    assert "the text tower is of other weights" in one_error(result, 1)
    assert contents(clip_index) == before
