"""``rd fit calibration`` and the verdicts it changes, as people and scripts meet them."""

from __future__ import annotations

import csv
import io
import json
import shutil

import jsonschema
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.cli.main import main
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from tests.factories import png, write_pictures

VALID = jsonschema.Draft202012Validator(verdict_schema())
EACH = 120


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two folders of pictures and an index, ``index/default`` before its calibration, ``fitted`` after."""
    folder = tmp_path_factory.mktemp("built")
    write_pictures(folder / "photos" / "camera", range(EACH))
    write_pictures(folder / "photos" / "phone", range(500, 500 + EACH))
    write_pictures(folder / "generated" / "sdxl", range(1000, 1000 + 2 * EACH), fake=True)
    write_pictures(folder / "ask", range(3000, 3004))
    write_pictures(folder / "ask", range(4000, 4004), fake=True)
    (folder / "index").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        both = ["--real", "photos", "--fake", "generated"]
        assert main(["build-index", *both, "--encoder", "tiny", "--plain"]) == 0
        shutil.copytree(folder / "index", folder / "fitted")
        assert main(["fit", "calibration", "--home", "fitted"]) == 0
    return folder


@pytest.fixture
def large(built, bare_folder):
    """An index with enough references of each name for a fifth to be set aside; not calibrated."""
    shutil.copytree(built / "ask", bare_folder / "ask")
    shutil.copytree(built / "index", bare_folder / "index")
    return bare_folder / "index" / "default"


@pytest.fixture
def calibrated(built, bare_folder):
    shutil.copytree(built / "ask", bare_folder / "ask")
    shutil.copytree(built / "fitted", bare_folder / "index")
    return bare_folder / "index" / "default"


def fit(run_rd, *args):
    result = run_rd("fit", "calibration", *args)
    assert result.exit_code == 0, result.stderr
    return result


def answers(run_rd, *args):
    result = run_rd("query", "ask", "--json", *args)
    assert result.exit_code == 0, result.stderr
    verdicts = json.loads(result.stdout)
    for verdict in verdicts:
        VALID.validate(verdict)
    return verdicts


def complaint(result):
    assert result.exit_code == 2 and result.stdout == "", result
    assert result.stderr.count("Error: ") == 1 and "Traceback" not in result.stderr
    return result.stderr


def remove_one(folder):
    store = Store(folder)
    with store.writer() as writer:
        writer.remove(store.snapshot().shards("real", "bank")[0].row_ids[:1].tolist(), reason="x", detail={})


def set_aside(folder, label):
    return Snapshot.open(folder).manifest.live_rows(label, "calib")


# ---------------------------------------------------------------- fitting


def test_fitting_for_people(large, run_rd):
    lines = fit(run_rd).stdout.splitlines()
    n_real, n_fake = set_aside(large, "real"), set_aside(large, "fake")
    assert lines[0] == (
        f"Calibrated density (k 200) on {n_real} photographs of 2 sources and {n_fake} fakes of 1 generator"
    )
    assert lines[1].endswith(f"can be asked for: {100 / (n_real + 1):.2g} %") and "Cllr" in lines[2]
    assert lines[-1] == "  Committed as generation 2. Undo: rd bank rollback 1"


def test_fitting_for_programs(large, run_rd):
    record = json.loads(fit(run_rd, "--method", "mean", "--set", "k=5", "--json").stdout)
    assert (record["method"], record["k"], record["generation"]) == ("mean", 5, 2)
    assert set(record["photographs"]) == {"camera", "phone"} and set(record["fakes"]) == {"sdxl"}
    assert sum(record["photographs"].values()) == set_aside(large, "real")
    assert 0 <= record["cllr"] < 2


def test_a_dry_run_writes_nothing(large, run_rd, contents):
    before = contents(large)
    result = fit(run_rd, "--dry-run")
    assert result.stdout.splitlines()[-1] == "  Nothing was written." and "Committed" not in result.stdout
    assert contents(large) == before
    assert "generation" not in json.loads(fit(run_rd, "--dry-run", "--json").stdout)


def test_too_few_references_to_set_any_aside(index, run_rd):
    said = complaint(run_rd("fit", "calibration"))
    assert "no real references are set aside for calibration" in said and "25 images" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--method", "nearest", "--set", "k=5"), "the nearest vote counts one neighbour, not 5"),
        (("--likelihood", "oracle"), "oracle"),
        (("--method", "oracle"), "has no method 'oracle'"),
    ],
)
def test_a_fit_that_cannot_be_meant(large, run_rd, args, said):
    assert said in complaint(run_rd("fit", "calibration", *args))


def test_undone_by_a_rollback(calibrated, run_rd):
    assert answers(run_rd)[0]["p_values"] is not None
    assert run_rd("bank", "rollback", "1").exit_code == 0
    assert answers(run_rd)[0]["p_values"] is None


def test_the_description_of_an_index_names_what_is_calibrated(calibrated, run_rd):
    assert "\ncalibration  density\n" in run_rd("index", "info").stdout
    remove_one(calibrated)
    assert "\ncalibration  density (stale)\n" in run_rd("index", "info").stdout
    fit(run_rd, "--method", "mean")
    facts = json.loads(run_rd("index", "info", "--json").stdout)
    assert facts["calibrations"] == {"density": {"stale": True}, "mean": {"stale": False}}


# ---------------------------------------------------------------- asking


def test_one_image_for_people(calibrated, run_rd):
    result = run_rd("query", "ask/3000.png")
    lines = result.stdout.splitlines()
    assert "log10 likelihood ratio" in lines[0] and "uncalibrated" not in result.stdout
    assert (
        f"of {set_aside(calibrated, 'real')} calibration photographs (2 sources) score this high" in lines[1]
    )
    assert lines[2] == "  cameras or sites, and is not the chance of a fake"
    assert lines[3] == "  judged at 5 % false alarms among such photographs (--fpr)"
    assert "probab" not in result.stdout and "fakes among such images" not in result.stdout


def test_the_rate_the_source_and_the_prior_that_are_asked_for(calibrated, run_rd):
    shown = run_rd(
        "query", "ask/3000.png", "--fpr", "0.1", "--within", "source=camera", "--prior", "0.01"
    ).stdout
    assert "calibration photographs (camera)" in shown and "judged at 10 % false alarms" in shown
    assert "  with 1 % fakes among such images, " in shown
    for verdict in answers(run_rd, "--fpr", "0.1", "--within", "source=camera", "--prior", "0.01"):
        assert verdict["alpha"] == {"real": 0.1, "fake": 0.05} and verdict["calibration"]["sources"] == 1
        assert verdict["prior"] == 0.01 and 0 < verdict["probability"] < 1
    for verdict in answers(run_rd, "--fpr", "0.2,confidence=0.95"):
        assert verdict["alpha"]["real"] < 0.2 and verdict["probability"] is None


def test_a_batch_says_what_the_rate_means(calibrated, run_rd):
    said = run_rd("query", "ask", "--fpr", "0.25").stderr
    assert (
        "If all 8 were photographs like those of the calibration, about 2 would be called fake-like." in said
    )
    assert "uncalibrated" not in said
    assert "Scores are uncalibrated" in run_rd("query", "ask", "--set", "k=7").stderr


def test_a_calibration_that_is_too_small_for_the_usual_rate_says_so_and_refuses_nothing(large, run_rd):
    store = Store(large)
    rows = store.snapshot().scan(["row_id"], label="real", split="calib")["row_id"].to_pylist()
    with store.writer() as writer:
        writer.remove(rows[18:], reason="x", detail={})
    missing = "needs 19 calibration photographs, there are 18, 1 too few"
    told = [line for line in fit(run_rd).stdout.splitlines() if missing in line]
    assert len(told) == 1 and "uncalibrated" in told[0]
    assert missing in json.loads(fit(run_rd, "--dry-run", "--json").stdout)["lacking"]
    assert "uncalibrated score" in (shown := run_rd("query", "ask/3000.png").stdout) and missing in shown
    for verdict in answers(run_rd):
        assert verdict["p_values"] is None and any(missing in warning for warning in verdict["warnings"])
    said = run_rd("query", "ask").stderr
    assert "Scores are uncalibrated" in said and said.count(missing) == 1
    said = run_rd("query", "ask", "--fpr", "0.1").stderr
    assert "uncalibrated" not in said and "If all 8 were" in said
    assert missing not in complaint(run_rd("query", "ask", "--fpr", "0.01"))


def test_csv_has_the_p_values(calibrated, run_rd):
    rows = list(csv.DictReader(io.StringIO(run_rd("query", "ask", "--format", "csv").stdout)))
    for row, verdict in zip(rows, answers(run_rd), strict=True):
        assert float(row["p_real"]) == pytest.approx(verdict["p_values"]["real"], abs=1e-6)
        assert float(row["log10_lr"]) == pytest.approx(verdict["log10_lr"], abs=1e-4)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--fpr", "0.001"), "needs 999 calibration photographs, there are "),
        (("--fpr", "0.03,confidence=0.99"), "needs 152 calibration photographs, there are "),
        (("--within", "source=drone"), "no calibration photographs of source 'drone'"),
        (("--fpr", "0"), "--fpr"),
        (("--prior", "1"), "--prior"),
        (("--set", "k=7", "--prior", "0.5"), "without a calibration of this method"),
        (("--method", "mean", "--fpr", "0.01"), "rd fit calibration --method mean"),
    ],
)
def test_what_cannot_be_answered_is_said_before_any_image(calibrated, run_rd, args, said):
    assert said in complaint(run_rd("query", "ask", *args))


def test_a_calibration_out_of_date_is_noted(calibrated, run_rd):
    remove_one(calibrated)
    shown = run_rd("query", "ask/3000.png").stdout
    assert "log10 likelihood ratio" in shown
    assert (
        "  note     the calibration is of other references than the banks hold now: rd fit calibration"
        in shown
    )
    assert run_rd("query", "ask").stderr.count("of other references") == 1
    fit(run_rd)
    assert "of other references" not in run_rd("query", "ask/3000.png").stdout
    assert "of other references" not in run_rd("query", "ask").stderr


def test_removing_what_was_added_gives_back_every_number(calibrated, run_rd, bare_folder):
    write_pictures(bare_folder / "new", range(7000, 7030), fake=True)
    before = answers(run_rd)
    add = ("bank", "add", "new", "--label", "fake", "--generator", "newgen", "--accept-unmeasured")
    assert run_rd(*add).exit_code == 0
    assert [a["p_values"] for a in answers(run_rd)] != [a["p_values"] for a in before]
    told = run_rd("bank", "remove", "--among", "generator=newgen", "--dry-run").stdout
    assert "Would be fitted anew along with it: calibration density\n" in told
    told = run_rd("bank", "remove", "--among", "generator=newgen", "--yes").stdout
    assert "Fitted anew along with it: calibration density\n" in told
    assert "other references" not in told
    for now, then in zip(answers(run_rd), before, strict=True):
        for name in ("score", "verdict", "p_values", "log10_lr", "calibration", "warnings"):
            assert now[name] == then[name]


def test_what_a_change_leaves_stale_is_named_with_its_command(calibrated, run_rd):
    fit(run_rd, "--method", "nearest", "--likelihood", "isotonic")
    remove_one(calibrated)
    assert run_rd("bank", "compact").stdout.count("was fitted on other references than these") == 2
    told = run_rd("query", "ask/3000.png", "--method", "nearest").stdout
    assert "hold now: rd fit calibration --method nearest --likelihood isotonic\n" in told


# ---------------------------------------------------------------- exit codes


def test_exit_codes_follow_calibrated_verdicts(calibrated, run_rd, bare_folder):
    judged: dict[str, list[str]] = {}
    for seed in range(5000, 5040):
        path = bare_folder / f"{seed}.png"
        path.write_bytes(png(seed, fake=seed % 2 == 0))
    detector = Detector.load(calibrated)
    paths = sorted(bare_folder.glob("5*.png"))
    for path, verdict in zip(paths, detector.query_many(paths), strict=True):
        judged.setdefault(verdict.verdict, []).append(path.name)
    undecided = judged.get("uncertain", []) + judged.get("unknown", [])
    assert judged["fake-like"] and judged["real-like"] and undecided, judged
    for names, code in (
        (judged["real-like"], 0),
        ([*judged["real-like"], undecided[0]], 11),
        ([undecided[0], judged["fake-like"][0]], 10),
    ):
        assert run_rd("query", *names, "--exit-code").exit_code == code
        assert run_rd("query", *names).exit_code == 0
