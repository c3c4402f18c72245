"""``rd bank``: teaching, unlearning and undoing, seen from the verdicts before and after."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from hashlib import sha256

import click
import pytest

from retrieval_detect.store.manifest import read_current
from tests.factories import png, write_pictures

NEW = ("bank", "add", "new", "--label", "fake", "--generator", "newgen")


def facts(**said: str) -> tuple[str, ...]:
    """Options that say so."""
    return tuple(
        part for name, value in said.items() for part in ("--fact", f"{name.replace('_', '-')}={value}")
    )


def verdicts(run_rd, *args):
    """Verdicts on the questions, without what names the moment."""
    result = run_rd("query", "ask", "new", "--format", "jsonl", *args)
    assert result.exit_code == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    for answer in answers:
        del answer["elapsed_s"], answer["index"]["generation"]
    return answers


def done(run_rd, *args):
    result = run_rd(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# ---------------------------------------------------------------- teach


def test_a_new_generator_is_learnt(index, pictures, run_rd, embedded):
    write_pictures(pictures / "later", range(80, 81), fake=True)
    (pictures / "later" / "0080.png").write_bytes(png(80, fake=True, side=96))
    (before,) = json.loads(run_rd("query", "later/0080.png", "--json").stdout)
    embedded.clear()
    record = done(run_rd, *NEW, *facts(family="diffusion", released_at="2026-10-01", batch="b7"))
    assert (record["added"], record["generation"], record["generators"]["newgen"]) == (4, 2, 4)
    assert sum(embedded) == 4
    (after,) = json.loads(run_rd("query", "later/0080.png", "--json").stdout)
    assert "newgen" not in {a["generator"] for a in before["attribution"]}
    assert "newgen" in {a["generator"] for a in after["attribution"]}
    assert after["index"] == before["index"] | {"generation": 2, "n_fake": 15, "n_generators": 3}
    manifest = read_current(index)
    assert manifest.generators["newgen"].released_at == "2026-10-01"
    assert manifest.operation.detail["command"] == "bank add"


def test_what_people_read_when_they_teach(index, run_rd):
    result = run_rd(*NEW)
    assert "default, generation 2: 12 real, 15 fake references (3 generators, 2 sources)" in result.stdout
    assert "Undo: rd bank rollback 1\n" in result.stdout


def test_adding_twice_is_adding_once(index, run_rd, contents, embedded):
    done(run_rd, *NEW)
    before = contents(index)
    embedded.clear()
    record = done(run_rd, *NEW)
    assert (record["added"], record["known"], record["generation"]) == (0, 4, 2)
    assert contents(index) == before and embedded == []


def test_sub_folders_name_generators(index, run_rd):
    assert done(run_rd, "bank", "add", "generated", "new", "--label", "fake")["generators"] == {
        "": 4,
        "flux": 5,
        "sdxl": 6,
    }
    assert "no generator for" not in run_rd("bank", "add", "generated", "--label", "fake").stderr


def test_facts_are_kept(index, run_rd):
    done(run_rd, *NEW, *facts(licence="CC0", contributor="me", category="cats", tags="a b"))
    rows = run_rd("bank", "list", "--by", "contributor", "--json").stdout
    assert {row["contributor"]: row["references"] for row in json.loads(rows)} == {"": 23, "me": 4}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--label", "real", "--generator", "x"), "a photograph has no generator"),
        (("--label", "real", "--fact", "released-at=2026-01-01"), "a photograph has no generator"),
        (("--label", "maybe"), "'maybe' is not one of"),
        ((), "Missing option '--label'"),
        (
            ("--label", "fake", "--fact", "released-at=2026-02-30"),
            "--fact released-at: '2026-02-30' is not a date",
        ),
    ],
)
def test_a_lesson_that_cannot_be_meant(index, run_rd, contents, args, said):
    before = contents(index)
    result = run_rd("bank", "add", "new", *args)
    assert result.exit_code == 2 and said in result.stderr and contents(index) == before


def test_a_stored_image_cannot_change_sides(index, run_rd, contents):
    before = contents(index)
    result = run_rd("bank", "add", "photos/camera/0001.png", "--label", "fake")
    assert result.exit_code == 1
    assert (
        "0001.png (fake) and a stored reference (real)" in result.stderr and "rd bank remove" in result.stderr
    )
    assert contents(index) == before
    identity = sha256(png(1)).hexdigest()
    done(run_rd, "bank", "remove", "--id", identity, "--yes")
    assert run_rd("bank", "add", "photos/camera/0001.png", "--label", "fake").exit_code == 0


@pytest.mark.parametrize(
    "args",
    [
        NEW,
        ("bank", "remove", "--among", "generator=flux"),
        ("bank", "rollback", "0"),
        ("bank", "compact"),
        ("bank", "compact", "--purge"),
        ("embed", "ask", "--out", "v.parquet", "--encoder", "tiny"),
    ],
    ids=lambda args: " ".join(args[:2]),
)
def test_a_dry_run_writes_nothing(index, pictures, run_rd, contents, args):
    done(run_rd, "bank", "remove", "--row", "3", "--yes")
    before = contents(pictures)
    result = run_rd(*args, "--dry-run")
    assert result.exit_code == 0 and "Nothing was written." in result.stdout
    assert contents(pictures) == before


@pytest.mark.parametrize("args", [("rollback", "7"), ("remove", "--row", "99"), ("remove",)])
def test_a_dry_run_refuses_what_the_run_would_refuse(index, run_rd, args):
    wet, dry = (
        run_rd("bank", *args, "--yes" if args[0] == "remove" else "--"),
        run_rd("bank", *args, "--dry-run"),
    )
    assert wet.exit_code == dry.exit_code == 2 and wet.stderr == dry.stderr


# ---------------------------------------------------------------- unlearn


def test_unlearning_is_exact(index, run_rd):
    before = verdicts(run_rd)
    done(run_rd, *NEW)
    taught = verdicts(run_rd)
    assert [a["score"] for a in taught] != [a["score"] for a in before]
    assert done(run_rd, "bank", "remove", "--among", "generator=newgen", "--yes")["removed"] == 4
    assert verdicts(run_rd) == before
    done(run_rd, "bank", "compact")
    assert verdicts(run_rd) == before


@pytest.mark.parametrize("method", ["density", "nearest", "mean", "majority"])
def test_undoing_is_exact(index, run_rd, method):
    before = verdicts(run_rd, "--method", method)
    done(run_rd, *NEW)
    taught = verdicts(run_rd, "--method", method)
    assert done(run_rd, "bank", "rollback", "1")["generation"] == 3
    assert verdicts(run_rd, "--method", method) == before
    done(run_rd, "bank", "rollback", "2")
    assert verdicts(run_rd, "--method", method) == taught


def test_removing_and_adding_again_comes_to_the_same(index, run_rd):
    def seen():
        answers = verdicts(run_rd)
        for answer in answers:
            for row in (*answer["evidence"], *answer["same_image"]):
                del row["row_id"], row["added_at"]
        return answers

    done(run_rd, *NEW)
    before = seen()
    done(run_rd, "bank", "remove", "--among", "generator=newgen", "--yes")
    done(run_rd, *NEW)
    assert seen() == before


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (("--among", "generator=flux"), {"real": 12, "fake": 6}),
        (("--among", "source=phone"), {"real": 8, "fake": 11}),
        (("--among", "label=fake", "--row", "20"), {"real": 12, "fake": 10}),
        (("--id", sha256(png(2)).hexdigest()), {"real": 11, "fake": 11}),
        (("--id", sha256(png(2)).hexdigest().upper(), "--among", "label=real"), {"real": 11, "fake": 11}),
        (("--row", "0", "--row", "22"), {"real": 11, "fake": 10}),
        (("--among", "source=phone", "--among", "licence="), {"real": 8, "fake": 11}),
    ],
)
def test_choosing_what_goes(index, run_rd, args, left):
    done(run_rd, "bank", "remove", *args, "--yes", "--reason", "wrong")
    manifest = read_current(index)
    assert {label: manifest.live_rows(label) for label in ("real", "fake")} == left
    assert manifest.operation.detail["reason"] == "wrong"


def test_sums_as_sha256sum_prints_them(index, pictures, run_rd):
    lines = [f"{sha256(png(seed)).hexdigest()}  photos/camera/000{seed}.png" for seed in (1, 2)]
    (pictures / "sums").write_text("\n".join(lines) + "\n\n")
    (pictures / "marked").write_bytes("\r\n".join(lines).encode("utf-16"))
    assert done(run_rd, "bank", "remove", "--from-file", "marked", "--dry-run")["would_remove"] == 2
    assert done(run_rd, "bank", "remove", "--from-file", "sums", "--yes")["removed"] == 2


def test_photographs_do_not_lack_a_generator(index, run_rd):
    """What has no generator because it is a photograph is not what was meant by an empty one."""
    done(run_rd, "bank", "add", "new", "--label", "fake")
    assert done(run_rd, "bank", "remove", "--among", "generator=", "--dry-run")["would_remove"] == 4
    assert run_rd("bank", "remove", "--among", "source=", "--yes").exit_code == 2
    for by, names in (("generator", {"", "flux", "sdxl"}), ("source", {"camera", "phone"})):
        assert {row[by] for row in json.loads(run_rd("bank", "list", "--by", by, "--json").stdout)} == names


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "nothing says which references"),
        (("--among", "generator=nosuch"), "no reference matches"),
        (("--among", "generator=flux", "--among", "label=real"), "no reference matches"),
        (("--row", "99"), "there is no reference with row id 99"),
        (("--among", "generator"), "--among takes KEY=VALUE, not 'generator'"),
        (("--among", "row=3"), "--among takes KEY=VALUE, not 'row=3'"),
        (("--among", "source=a", "--among", "source=b"), "--among says source twice"),
        (("--id", "3a7b"), "'3a7b' is not a sha256"),
        (("--id", "0" * 64), "1 of these images are not in the index"),
        (("--from-file", "nowhere"), "does not exist"),
    ],
)
def test_removing_what_cannot_be_meant(index, run_rd, contents, args, said):
    before = contents(index)
    result = run_rd("bank", "remove", *args, "--yes")
    assert result.exit_code == 2 and said in result.stderr and contents(index) == before


def test_nobody_to_ask(index, run_rd, contents):
    before = contents(index)
    result = run_rd("bank", "remove", "--among", "generator=flux")
    assert result.exit_code == 2
    assert "Remove 5 references (flux)? Nobody is here to answer.\n  Add --yes to go ahead." in result.stderr
    assert contents(index) == before


@pytest.mark.parametrize("args", [("remove", "--among", "generator=flux"), ("compact", "--purge")])
def test_somebody_who_says_no(index, run_rd, monkeypatch, contents, args):
    before = contents(index)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    result = run_rd("bank", *args, "--no-color")
    assert result.exit_code == 1 and result.stderr == "Nothing was changed.\n" and contents(index) == before


def test_names_that_are_not_unicode(index, run_rd):
    done(run_rd, "bank", "add", "new", "--label", "fake", "--generator", "a\udcff", "--fact", "tags=\udcff")
    assert read_current(index).counts("fake")["a\\xff"] == 4
    done(run_rd, "bank", "remove", "--among", "generator=a\udcff", "--reason", "\udcff", "--yes")
    assert read_current(index).counts("fake") == {"flux": 5, "sdxl": 6}


NFC, NFD = "g\u00e9n\u00e9", "ge\u0301ne\u0301"


def test_names_have_one_spelling_at_every_door(index, pictures, run_rd):
    for name, seeds in ((NFD, range(300, 302)), (f"{NFC} ", range(302, 304))):
        write_pictures(pictures / "named" / name, seeds, fake=True)
    done(run_rd, "bank", "add", "named", "--label", "fake")
    write_pictures(pictures / "more", range(304, 306), fake=True)
    done(
        run_rd, "bank", "add", "more", "--label", "fake", "--generator", f" {NFD}", "--fact", f"family={NFD} "
    )
    manifest = read_current(index)
    assert manifest.counts("fake")[NFC] == 6 and manifest.generators[NFC].family == NFC
    assert done(run_rd, "bank", "remove", "--among", f"generator={NFD}", "--yes")["removed"] == 6


@pytest.mark.parametrize("name", ["generator", "family", "source", "batch", "tags", "licence"])
@pytest.mark.parametrize("bad", ["two\nlines", "\x1b[31mred", "x" * 201])
def test_a_name_that_is_none_changes_nothing(index, run_rd, contents, name, bad):
    before = contents(index)
    said = (f"--{name}", bad) if name in ("generator", "source") else facts(**{name: bad})
    result = run_rd("bank", "add", "new", "--label", "fake", *said)
    assert result.exit_code == 2 and result.stderr.count("Error: ") == 1
    assert f"Error: {name} " in result.stderr and "\x1b" not in result.stderr
    assert contents(index) == before


def test_a_folder_that_can_name_no_generator(index, pictures, run_rd, contents):
    write_pictures(pictures / "named" / "two\nlines", range(300, 301), fake=True)
    before = contents(index)
    result = run_rd("bank", "add", "named", "--label", "fake")
    assert result.exit_code == 2 and "invisible character U+000A" in result.stderr
    assert contents(index) == before


# ---------------------------------------------------------------- look


def test_listing(index, run_rd):
    rows = json.loads(run_rd("bank", "list", "--json").stdout)
    assert {(row["label"], row["name"]): row["references"] for row in rows} == {
        ("real", "camera"): 8,
        ("real", "phone"): 4,
        ("fake", "flux"): 5,
        ("fake", "sdxl"): 6,
    }
    for by, counts in [
        ("label", {"real": 12, "fake": 11}),
        ("split", {"bank": 23}),
        ("view", {"original": 23}),
        ("batch", {"": 23}),
    ]:
        rows = json.loads(run_rd("bank", "list", "--by", by, "--json").stdout)
        assert {row[by]: row["references"] for row in rows} == counts
    whole = list(csv.DictReader(io.StringIO(run_rd("bank", "list", "--by", "row", "--format", "csv").stdout)))
    assert [int(row["row_id"]) for row in whole] == list(range(23))
    assert Counter(row["generator"] for row in whole) == {"": 12, "sdxl": 6, "flux": 5}


def test_no_index(pictures, run_rd):
    for args in (
        ("list",),
        ("list", "--by", "generation"),
        ("rollback", "1"),
        ("compact",),
        NEW[1:],
        ("remove", "--row", "1"),
    ):
        result = run_rd("bank", *args)
        assert result.exit_code == 1 and "there is no index at" in result.stderr
    assert list((pictures / "index").iterdir()) == []


# ---------------------------------------------------------------- undo and erase


def test_going_back_past_damage(index, run_rd, contents):
    before = verdicts(run_rd)
    old = set(contents(index / "shards"))
    done(run_rd, *NEW)
    (fresh,) = (name for name in contents(index / "shards") if name not in old and name.endswith("proj.npy"))
    (index / "shards" / fresh).write_bytes(b"")
    assert run_rd("query", "ask").exit_code == run_rd("index", "verify").exit_code == 1
    assert "bank add" in run_rd("bank", "list", "--by", "generation").stdout
    assert run_rd("bank", "rollback", "1").exit_code == 0
    assert verdicts(run_rd) == before and run_rd("index", "verify").exit_code == 0


def test_damage_that_goes_back_further(index, run_rd):
    done(run_rd, *NEW)
    next((index / "shards").glob("*.proj.npy")).unlink()
    for path in (index / "shards").glob("*.ids.npy"):
        path.unlink()
    result = run_rd("bank", "rollback", "1")
    assert result.exit_code == 1 and "is missing, truncated or altered" in result.stderr
    assert read_current(index).generation == 2


def test_compacting(index, run_rd, contents):
    before = contents(index)
    assert done(run_rd, "bank", "compact")["generation"] == 1 and contents(index) == before
    done(run_rd, "bank", "remove", "--among", "generator=flux", "--yes")
    record = done(run_rd, "bank", "compact")
    assert (record["dropped"], record["generation"]) == (5, 3)
    assert sum(shard.rows for shard in read_current(index).shards) == 18
    done(run_rd, "bank", "rollback", "1")
    assert read_current(index).counts("fake") == {"flux": 5, "sdxl": 6}


def test_a_purge_erases_and_refuses_for_ever(index, pictures, run_rd, contents):
    done(run_rd, *NEW)
    done(run_rd, "bank", "remove", "--among", "generator=newgen", "--yes")
    done(run_rd, "bank", "compact")
    assert done(run_rd, "bank", "compact", "--purge", "--dry-run") == {"would_drop": 4, "purge": True}
    before = verdicts(run_rd)
    record = done(run_rd, "bank", "compact", "--purge", "--yes")
    assert record["dropped"] == 4 and record["size_bytes"] < record["size_bytes_before"]
    everything = b"".join(contents(index).values())
    assert b"new/0080.png" not in everything and sha256(png(80, fake=True)).digest() not in everything
    assert run_rd("bank", "rollback", "1").exit_code == 2
    assert verdicts(run_rd) == before
    result = run_rd(*NEW, "--json")
    assert result.exit_code == 3 and "refused 4 images, purged from this index before" in result.stderr
    assert json.loads(result.stdout)["purged"] == 4 and json.loads(result.stdout)["added"] == 0
    assert verdicts(run_rd) == before
    write_pictures(pictures / "new", range(84, 86), fake=True)
    result = run_rd(*NEW, "--json")
    assert result.exit_code == 3 and json.loads(result.stdout)["added"] == 2
