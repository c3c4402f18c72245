"""``rd fit calibration`` and the verdicts it changes, as people and scripts meet them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from itertools import chain

import jsonschema
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.cli.main import main
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.report.words import NEXT
from retrieval_detect.store.snapshot import Snapshot
from retrieval_detect.store.store import Store
from retrieval_detect.verdicts import Question
from tests.factories import png, write_pictures

VALID = jsonschema.Draft202012Validator(verdict_schema())
EACH = 120


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Two folders of pictures and an index, ``index/default`` without a calibration, ``fitted`` with one."""
    folder = tmp_path_factory.mktemp("built")
    write_pictures(folder / "photos" / "camera", range(EACH))
    write_pictures(folder / "photos" / "phone", range(500, 500 + EACH))
    write_pictures(folder / "generated" / "sdxl", range(1000, 1000 + EACH), fake=True)
    write_pictures(folder / "generated" / "flux", range(1500, 1500 + EACH), fake=True)
    write_pictures(folder / "ask", range(3000, 3004))
    write_pictures(folder / "ask", range(4000, 4004), fake=True)
    (folder / "index").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        both = ["--real", "photos", "--fake", "generated"]
        assert main(["build-index", *both, "--encoder", "tiny", "--plain", "--no-calibration"]) == 0
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
        f"Calibrated density (k 200) on {n_real} photographs of 2 sources and {n_fake} fakes of 2 generators"
        ", provisional"
    )
    assert lines[1].startswith("  photographs of known sources: 5 % false alarms asked for may turn out ")
    assert lines[1].endswith(f" %; less than {100 / (n_real + 1):.2g} % cannot be asked for")
    assert "Cllr" in lines[2] and lines[3].startswith(
        "  photographs of new sources: each of 2 sources left out"
    )
    assert lines[4] == "    2 sources cannot show less than 33 % for one that is new"
    assert " ".join(lines[5].split()) == "flagged if the source is known left out at 10 % as images of"
    assert {line.split()[0] for line in lines[6:8]} == {"camera", "phone"}
    assert all(line.split()[-1] in {"sdxl", "flux"} for line in lines[6:8])
    assert lines[-1] == "  Committed as generation 2. Undo: rd bank rollback 1"


def test_fitting_for_programs(large, run_rd):
    record = json.loads(fit(run_rd, "--method", "mean", "--set", "k=5", "--json").stdout)
    assert (record["method"], record["k"], record["generation"]) == ("mean", 5, 2)
    assert set(record["photographs"]) == {"camera", "phone"} and set(record["fakes"]) == {"sdxl", "flux"}
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
    (answer,) = (a for a in answers(run_rd) if a["input"] == "ask/3000.png")
    assert lines[0].startswith("ask/3000.png  ") and "uncalibrated" not in result.stdout
    assert lines[1] == f"  {NEXT[answer['reason']]}"
    as_high, n = answer["calibration"]["as_high"], set_aside(calibrated, "real")
    assert lines[2] == (
        f"  known sources  {as_high} of {n} calibration photographs (2 sources, provisional) score this "
        f"high, p {(as_high + 1) / (n + 1):.2g}"
    )
    assert lines[3].startswith("  new sources    each of 2 sources left out in turn, ")
    assert lines[5].endswith(f"p {answer['p_values']['new']:.2g}, and 2 sources cannot show less than 0.33")
    assert lines[6].strip() == "too few for any image to be fake-like at 5 %, which takes 19"
    assert lines[7] == "  judged at 5 % false alarms among photographs of new sources (--fpr)"
    assert lines[8].startswith(
        f"  log10 likelihood ratio {answer['log10_lr']:+.1f} of a new generator's image "
    )
    assert "probab" not in result.stdout and "fakes among such images" not in result.stdout


def test_the_rate_the_source_and_the_prior_that_are_asked_for(calibrated, run_rd):
    shown = run_rd(
        "query", "ask/3000.png", "--fpr", "0.1", "--within", "source=camera", "--set", "prior=0.01"
    ).stdout
    assert "calibration photographs (camera, provisional)" in shown
    assert "judged at 10 % false alarms among photographs of known sources" in shown
    assert "  with 1 % fakes among such images, " in shown
    for verdict in answers(run_rd, "--fpr", "0.1", "--within", "source=camera", "--set", "prior=0.01"):
        assert verdict["photographs"] == "known"
        assert verdict["alpha"] == {"real": 0.1, "fake": 0.05} and verdict["calibration"]["sources"] == 1
        assert verdict["prior"] == 0.01 and 0 < verdict["probability"] < 1
    for verdict in answers(run_rd, "--fpr", "0.2,confidence=0.95"):
        assert verdict["alpha"]["real"] < 0.2 and verdict["probability"] is None


def test_a_batch_says_what_the_rate_means(calibrated, run_rd):
    said = run_rd("query", "ask", "--fpr", "0.25").stderr
    judged = Detector.load(calibrated)
    risk = judged.calibration(judged.checked(Question())).risk(0.25)
    assert (
        "If all were photographs of known sources, about 2 of 8 would score this high by chance; of new "
        "sources, about "
        f"{round(8 * risk)}.\n" in said
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
    shown = run_rd("query", "ask/3000.png").stdout
    assert "  UNKNOWN: uncalibrated; nearer to the " in shown and missing in shown
    for verdict in answers(run_rd):
        assert (verdict["verdict"], verdict["reason"]) == ("unknown", "uncalibrated")
        assert verdict["p_values"] is None and any(missing in warning for warning in verdict["warnings"])
    said = run_rd("query", "ask").stderr
    assert "Scores are uncalibrated" in said and said.count(missing) == 1
    said = run_rd("query", "ask", "--fpr", "0.1").stderr
    assert "uncalibrated" not in said and "If all were photographs of known sources, about 1 of 8" in said
    assert missing not in complaint(run_rd("query", "ask", "--fpr", "0.01"))


def test_csv_has_the_p_values(calibrated, run_rd):
    rows = list(csv.DictReader(io.StringIO(run_rd("query", "ask", "--format", "csv").stdout)))
    for row, verdict in zip(rows, answers(run_rd), strict=True):
        assert float(row["p_real"]) == pytest.approx(verdict["p_values"]["real"], abs=1e-6)
        assert float(row["p_new"]) == pytest.approx(verdict["p_values"]["new"], abs=1e-6)
        assert float(row["log10_lr"]) == pytest.approx(verdict["log10_lr"], abs=1e-4)
        assert (row["reason"], row["reach"]) == (verdict["reason"], verdict["reach"] or "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--fpr", "0.001"), "needs 999 calibration photographs, there are "),
        (("--fpr", "0.03,confidence=0.99"), "needs 152 calibration photographs, there are "),
        (("--within", "source=drone"), "no calibration photographs of source 'drone'"),
        (("--fpr", "0"), "--fpr"),
        (("--set", "prior=1"), "prior cannot be '1'"),
        (("--set", "k=7", "--set", "prior=0.5"), "without a calibration of this method"),
        (("--fpr", "0.1,at=1"), "at= stands in the place of a rate and its confidence"),
        (("--fpr", "at=nan"), "a threshold of nan is no score"),
        (("--fpr", "fdr=0.1"), "promised for photographs of known sources alone"),
        (("--fpr", "fdr=0.1", "--photographs", "new"), "Say that these are: --photographs known."),
        (("--photographs", "known", "--fpr", "fdr=0.001"), "needs 999 calibration photographs"),
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
    add = ("bank", "add", "new", "--label", "fake", "--generator", "newgen")
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
    assert run_rd("bank", "compact").stdout.count("was fitted on other references than these") == 3
    told = run_rd("query", "ask/3000.png", "--method", "nearest").stdout
    assert "hold now: rd fit calibration --method nearest --likelihood isotonic\n" in told


# ---------------------------------------------------------------- where photographs are from


@pytest.fixture
def rare(calibrated, bare_folder):
    """Names of images by the reason of their verdict, were they of sources that the index does not know."""
    for seed in range(5000, 5040):
        (bare_folder / f"{seed}.png").write_bytes(png(seed, fake=seed % 2 == 0))
    paths = sorted(bare_folder.glob("5*.png"))
    by_reason: dict[str, list[str]] = {}
    for path, verdict in zip(paths, Detector.load(calibrated).query_many(paths), strict=True):
        by_reason.setdefault(verdict.reason, []).append(path.name)
    assert "rare-among-photographs" not in by_reason  # of two sources left out, no score is rarer than 1 in 3
    assert by_reason["fake-like-if-known-source"] and by_reason["fits-both"]
    return by_reason


def asked(run_rd, name, *args):
    (verdict,) = json.loads(run_rd("query", name, "--format", "json", *args).stdout)
    VALID.validate(verdict)
    return verdict


def test_whose_source_is_not_known_is_not_called_fake_like(rare, run_rd):
    name = rare["fake-like-if-known-source"][0]
    new, known = asked(run_rd, name), asked(run_rd, name, "--photographs", "known")
    assert (new["verdict"], new["reach"], new["photographs"]) == ("uncertain", "known sources", "new")
    assert (known["verdict"], known["reason"]) == ("fake-like", "rare-among-photographs")
    assert (known["reach"], known["photographs"]) == ("known sources", "known")
    for same in ("score", "evidence", "votes", "p_values"):
        assert new[same] == known[same]
    assert new["p_values"]["new"] >= 1 / 3 and known["log10_lr_interval"] is None
    n = new["calibration"]["photographs"]
    rarer = f"rarer than {100 * (n - new['calibration']['as_high']) // n} % of the photographs of 2 sources"
    if not new["calibration"]["as_high"]:
        rarer = f"higher than all {n} photographs of 2 sources"
    told = run_rd("query", name).stdout
    assert f"  UNCERTAIN: {rarer}; for one from elsewhere rd cannot say\n" in told
    assert "say so (--photographs known); else lay 19 or more authentic" in told
    told = run_rd("query", name, "--photographs", "known").stdout
    assert f"  FAKE-LIKE: {rarer}\n" in told and "elsewhere rd cannot say" not in told
    assert "judged at 5 % false alarms among photographs of known sources (--fpr)" in told


def test_a_variable_and_a_file_say_it_too_and_the_flag_has_the_last_word(
    rare, run_rd, bare_folder, monkeypatch
):
    name = rare["fake-like-if-known-source"][0]
    (bare_folder / "rd.toml").write_text('photographs = "known"\n')
    assert asked(run_rd, name)["verdict"] == "fake-like"
    monkeypatch.setenv("RD_PHOTOGRAPHS", "new")
    assert asked(run_rd, name)["verdict"] == "uncertain"
    assert asked(run_rd, name, "--photographs", "known")["verdict"] == "fake-like"
    monkeypatch.setenv("RD_PHOTOGRAPHS", "old")
    assert "RD_PHOTOGRAPHS: photographs must be new or known, not 'old'" in complaint(run_rd("query", name))
    monkeypatch.delenv("RD_PHOTOGRAPHS")
    (bare_folder / "rd.toml").write_text('photographs = "old"\n')
    assert "photographs must be new or known, not 'old'" in complaint(run_rd("query", name))


def test_a_share_of_false_discoveries_among_photographs_of_known_sources(rare, run_rd):
    names = [*chain.from_iterable(rare.values())]
    given = (*names, "--photographs", "known", "--fpr", "fdr=0.5")
    verdicts = json.loads(run_rd("query", *given, "--json").stdout)
    called = [v["input"] for v in verdicts if v["verdict"] == "fake-like"]
    assert called and all(v["fdr"] == 0.5 for v in verdicts)
    said = run_rd("query", *given).stderr
    assert "Of those called fake-like, about 50 % or fewer are photographs" in said
    assert f"{len(verdicts)} images: {len(called)} fake-like" in said


def test_a_threshold_that_stays_and_what_it_comes_to(rare, calibrated, run_rd):
    names = [*chain.from_iterable(rare.values())]
    judged = Detector.load(calibrated)
    at = judged.calibration(judged.checked(Question())).threshold(0.25)
    given = (*names, "--photographs", "known", "--fpr", f"at={at!r}")
    verdicts = json.loads(run_rd("query", *given, "--json").stdout)
    assert {v["verdict"] == "fake-like" for v in verdicts if v["score"] < at} == {False}
    assert any(v["verdict"] == "fake-like" and v["at"] == at for v in verdicts)
    alpha = verdicts[0]["alpha"]["real"]
    assert 0.2 < alpha <= 0.25
    expected = f"about {round(alpha * len(names))} of {len(names)} would score this high"
    assert run_rd("embed", *names, "--out", "q.parquet", "--encoder", "tiny").exit_code == 0
    for command in (("query", *given), ("rescore", "q.parquet", *given[len(names) :])):
        assert expected in run_rd(*command).stderr
    shown = run_rd("query", names[0], *given[len(names) :]).stdout
    assert f"(the threshold {at:+.2f}, --fpr at=SCORE)" in shown


def test_a_chance_among_new_sources_takes_two_generators(calibrated, run_rd):
    assert answers(run_rd, "--set", "prior=0.1")[0]["probability"] is not None
    assert run_rd("bank", "remove", "--among", "generator=flux", "--yes").exit_code == 0
    assert "two generators, each left out in turn" in complaint(run_rd("query", "ask", "--set", "prior=0.1"))
    assert answers(run_rd, "--set", "prior=0.1", "--photographs", "known")[0]["probability"] is not None


def test_stored_vectors_are_judged_alike(rare, run_rd):
    names = [*chain.from_iterable(rare.values())]
    assert run_rd("embed", *names, "--out", "q.parquet", "--encoder", "tiny").exit_code == 0
    for known in ((), ("--photographs", "known")):
        images = json.loads(run_rd("query", *names, "--json", *known).stdout)
        rows = json.loads(run_rd("rescore", "q.parquet", "--json", *known).stdout)
        by_name = {row["input"]: row for row in rows}
        for image in images:
            row = by_name[image["input"]]
            assert all(row[name] == image[name] for name in ("verdict", "reason", "reach"))
            assert row["p_new"] == pytest.approx(image["p_values"]["new"], abs=1e-6)
        table = list(
            csv.DictReader(io.StringIO(run_rd("rescore", "q.parquet", "--format", "csv", *known).stdout))
        )
        assert [(row["reason"], float(row["p_new"])) for row in table] == [
            (row["reason"], row["p_new"]) for row in rows
        ]
    assert run_rd("rescore", "q.parquet", "--exit-code").exit_code == 11
    assert run_rd("rescore", "q.parquet", "--photographs", "known", "--exit-code").exit_code == 10


# ---------------------------------------------------------------- exit codes


def test_exit_codes_follow_calibrated_verdicts(rare, run_rd):
    known = ("--photographs", "known")
    real, both = rare["fits-photographs"], rare["fits-both"]
    fake = rare["fake-like-if-known-source"]
    for names, code in (
        (real, 0),
        ([*real, both[0]], 11),
        ([both[0], fake[0]], 10),
        ([*real, fake[0]], 10),
    ):
        assert run_rd("query", *names, *known, "--exit-code").exit_code == code
        assert run_rd("query", *names, "--exit-code").exit_code == min(code + 1, 11) * bool(code)
        assert run_rd("query", *names, *known).exit_code == 0


# ---------------------------------------------------------------- along with an index


def test_an_index_is_calibrated_as_it_is_built(built, bare_folder, run_rd):
    both = ("build-index", "--real", str(built / "photos"), "--fake", str(built / "generated"))
    (bare_folder / "index").mkdir()
    shutil.copytree(built / "ask", bare_folder / "ask")
    result = run_rd(*both, "--encoder", "tiny")
    assert result.exit_code == 0, result.stderr
    assert "Fitting the projection and the calibration, every source left out in turn\n" in result.stderr
    lines = result.stdout.splitlines()
    folder = bare_folder / "index" / "default"
    n_real, n_fake = set_aside(folder, "real"), set_aside(folder, "fake")
    on = f"{n_real} photographs of 2 sources and {n_fake} fakes of 2 generators"
    at = lines.index(f"  Calibrated density (k 200) on {on}, provisional")
    assert lines[at + 3].startswith("    photographs of new sources: each of 2 sources left out in turn, ")
    table = [line.split() for line in lines[at + 6 : at + 8]]
    assert {row[0] for row in table} == {"camera", "phone"} and all(row.count("%") == 3 for row in table)
    assert lines[-1] == "  Ask: rd query photo.jpg"
    assert all(v["reason"] != "uncalibrated" and v["p_values"] for v in answers(run_rd))
    risk = json.loads(run_rd("index", "info", "--json").stdout)["new_sources"]
    assert set(risk["sources"]) == {"camera", "phone"} and set(risk["generators"]) == {"sdxl", "flux"}
    assert risk["smallest_rate"] == {"known": 1 / (n_real + 1), "new": 1 / 3}
    undone = run_rd("bank", "rollback", "1")
    assert undone.exit_code == 0 and answers(run_rd)[0]["reason"] == "uncalibrated"
    assert "  uncalibrated now: verdicts are unknown until rd fit calibration\n" in undone.stdout


@pytest.mark.parametrize("plain", [(), ("--plain",)])
def test_no_calibration_leaves_an_index_uncalibrated(built, bare_folder, run_rd, plain):
    both = ("build-index", "--real", str(built / "photos"), "--fake", str(built / "generated"))
    (bare_folder / "index").mkdir()
    shutil.copytree(built / "ask", bare_folder / "ask")
    result = run_rd(*both, "--encoder", "tiny", *plain, "--no-calibration")
    assert result.exit_code == 0, result.stderr
    assert "calibration, every source" not in result.stderr
    assert ("Fitting the projection\n" in result.stderr) == (not plain)
    assert "  Uncalibrated: verdicts are unknown until rd fit calibration\n" in result.stdout
    assert json.loads(run_rd("index", "info", "--json").stdout)["calibrations"] == {}
    for verdict in answers(run_rd):
        assert (verdict["verdict"], verdict["reason"]) == ("unknown", "uncalibrated")


def test_too_few_to_calibrate_is_said_as_an_index_is_built(pictures, run_rd):
    shown = run_rd("build-index", "--real", "photos", "--fake", "generated", "--encoder", "tiny").stdout
    assert (
        "  Uncalibrated, verdicts are unknown: 0 photographs and 0 fakes are set aside, a rate of 5 % "
        "takes 19 of each (see rd doctor)\n" in shown
    )
    assert "  No projection yet: 11 of 100 fakes in the bank; what else waits: rd doctor\n" in shown


@pytest.mark.parametrize(
    "change", [("remove", "--row", "3", "--yes"), ("add", "more", "--label", "real", "--source", "drone")]
)
def test_a_change_calibrates_along_with_it_unless_it_is_told_not_to(large, run_rd, bare_folder, change):
    write_pictures(bare_folder / "more", range(8000, 8006))
    assert run_rd("bank", *change, "--no-calibration").exit_code == 0
    assert answers(run_rd)[0]["reason"] == "uncalibrated"
    assert run_rd("bank", "rollback", "1").exit_code == 0
    told = run_rd("bank", *change)
    assert told.exit_code == 0 and "calibration density" in told.stdout, told.stderr
    assert "  calibrated: rare among photographs from score " in told.stdout
    assert answers(run_rd)[0]["reason"] != "uncalibrated"


def test_a_removal_may_leave_a_calibration_as_it_is(calibrated, run_rd):
    told = run_rd("bank", "remove", "--row", "3", "--yes", "--no-calibration").stdout
    assert "calibration density was fitted on other references than these" in told
    assert "threshold" not in told and "uncalibrated" not in told  # it still judges, at the score it had
    assert all(v["p_values"] for v in answers(run_rd))
    assert "\ncalibration  density (stale)\n" in run_rd("index", "info").stdout


def test_a_batch_says_what_to_look_at_first(calibrated, run_rd):
    said = run_rd("query", "ask", "--photographs", "known").stderr
    against = [
        a for a in answers(run_rd, "--photographs", "known") if a["reason"] == "rare-among-photographs"
    ]
    against.sort(key=lambda answer: -answer["score"])
    named = ", ".join(f"{a['input']} ({a['score']:+.2f})" for a in against[:3])
    assert against and f"Look first at {named}.\n" in said
