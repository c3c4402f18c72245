"""``rd build-index`` as its users meet it: folders in, an index out, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders import registry
from retrieval_detect.store.manifest import read_current
from retrieval_detect.store.snapshot import Snapshot
from tests.building import BOTH, TINY, build, one_error
from tests.factories import png

# ---------------------------------------------------------------- two folders


def test_two_folders_become_an_index(pictures, run_rd):
    result = build(run_rd, "--json")
    record = json.loads(result.stdout)
    assert result.exit_code == 0
    assert record["references"] == {"real": 12, "fake": 11}
    assert record["generators"] == {"flux": 5, "sdxl": 6} and record["sources"] == {"camera": 8, "phone": 4}
    assert (record["generation"], record["added"], record["encoder"]) == (1, 23, "tiny")
    assert read_current(pictures / "index" / "default").live_rows("real") == 12


def labelled_list(pictures):
    """A list of the pictures, in which every second fake was made by a generator of another name."""
    rows = ["file,kind,model"]
    rows += [f"{path.relative_to(pictures)},0," for path in sorted(pictures.glob("photos/*/*.png"))]
    fakes = sorted(pictures.glob("generated/*/*.png"))
    rows += [f"{path.relative_to(pictures)},1,g{n % 2}" for n, path in enumerate(fakes)]
    (pictures / "list.csv").write_text("\n".join(rows))
    return "list.csv,label=kind,real=0,fake=1,generator=model"


def test_a_list_says_what_its_images_are(pictures, run_rd):
    args = ("--labelled", labelled_list(pictures), "--fact", "licence=CC0", *TINY)
    record = json.loads(run_rd("build-index", *args, "--json").stdout)
    assert record["references"] == {"real": 12, "fake": 11} and record["generators"] == {"g0": 6, "g1": 5}
    rows = Snapshot.open(pictures / "index" / "default").scan(["uri", "licence"]).to_pylist()
    assert {row["licence"] for row in rows} == {"CC0"}
    assert all(row["uri"].startswith(str(pictures)) for row in rows)
    recipe = (
        "[[references]]",
        'paths = ["list.csv"]',
        "[references.columns]",
        'label = "kind"',
        'fake = "1"',
    )
    (pictures / "r.toml").write_text("\n".join([*recipe, 'real = "0"', 'generator = "model"']))
    again = run_rd("build-index", "r.toml", "--index", "again", *TINY, "--json")
    assert json.loads(again.stdout)["generators"] == record["generators"]


def test_a_list_that_does_not_say_it_builds_nothing(pictures, run_rd):
    given = labelled_list(pictures).replace(",real=0", "")
    assert "row 2: kind is '0', not real or 1" in one_error(
        run_rd("build-index", "--labelled", given, *TINY), 2
    )
    assert list((pictures / "index").iterdir()) == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--real", "photos", "generated"], "'generated' stands behind no option"),
        # What a shell makes of --fake generated/*
        (
            ["--real", "photos", "--fake", "generated/flux", "generated/sdxl"],
            "--real and --fake take one value",
        ),
        (["--fake", *["generated/flux"] * 3], "--fake takes one value each time"),
        (["--real", *["photos/camera"] * 3, "--fake", "generated"], "quote a pattern: --real 'DIR/*'"),
    ],
)
def test_several_paths_behind_one_option(pictures, run_rd, args, said):
    complaint = one_error(run_rd("build-index", *args, *TINY), 2)
    assert said in complaint and "recipe" not in complaint
    assert list((pictures / "index").iterdir()) == []


def test_what_people_read(pictures, run_rd):
    result = build(run_rd)
    assert result.stdout.splitlines()[0] == (
        "default, generation 1: 12 real, 11 fake references (2 generators, 2 sources) · tiny"
    )
    assert "  Ask: rd query photo.jpg\n" in result.stdout
    assert "23 images, 23 new, 0 already known" in result.stderr


def test_building_again_changes_nothing_and_embeds_nothing(index, run_rd, embedded, contents):
    before = contents(index)
    result = build(run_rd, "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["added"] == 0
    assert contents(index) == before and embedded == []


def test_building_again_loads_neither_encoder_nor_banks(index, run_rd, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("loaded, though nothing is new")

    monkeypatch.setattr(registry, "load_encoder", refuse)
    monkeypatch.setattr(Detector, "open_banks", refuse)
    assert build(run_rd).exit_code == 0
    assert run_rd("bank", "add", "photos/camera", "--label", "real").exit_code == 0


def test_building_again_in_a_fresh_process_imports_no_torch(index):
    look = (
        "import sys; from retrieval_detect.cli.main import main; "
        f"code = main({['build-index', *BOTH, *TINY]!r}); "
        "sys.exit(' '.join({'torch', 'faiss', 'timm'} & set(sys.modules)) or code)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_layers_are_refused_even_if_nothing_is_new(index, run_rd, contents):
    before = contents(index)
    complaint = one_error(build(run_rd, "--layers", "proj,pre"), 2)
    assert "stores layers proj, not proj,pre" in complaint and contents(index) == before


def test_only_what_is_new_is_embedded(index, pictures, run_rd, embedded):
    shutil.copytree(pictures / "new", pictures / "generated" / "newgen")
    assert json.loads(build(run_rd, "--json").stdout)["generators"]["newgen"] == 4
    assert sum(embedded) == 4


@pytest.mark.parametrize("exists", [False, True])
def test_a_dry_run_writes_nothing(pictures, run_rd, contents, exists):
    if exists:
        run_rd("build-index", "--real", "photos", *TINY)
    before = contents(pictures)
    result = build(run_rd, "--dry-run", "--json")
    assert result.exit_code == 0 and contents(pictures) == before
    assert json.loads(result.stdout)["new"] == {"real": 0 if exists else 12, "fake": 11}


def test_one_bank_after_the_other(pictures, run_rd):
    first = run_rd("build-index", "--real", "photos", *TINY)
    assert "The fake bank is empty. Fill it: rd bank add DIR --label fake" in first.stdout
    assert run_rd("build-index", "--fake", "generated").exit_code == 0
    assert run_rd("query", "ask/0200.png").exit_code == 0


def test_the_lines_to_type_name_the_index_that_was_built(pictures, run_rd):
    assert "rd query photo.jpg --index trial\n" in build(run_rd, "--index", "trial").stdout
    elsewhere = pictures / "else where"
    shutil.copytree(pictures / "new", pictures / "generated" / "newgen")
    build(run_rd, "--index", str(elsewhere), "--layers", "proj,pre")
    result = run_rd("bank", "remove", "--among", "generator=newgen", "--yes", "--index", str(elsewhere))
    assert f"rd bank rollback 1 --index '{elsewhere}'" in result.stdout


def test_layers_are_chosen_at_build_time(pictures, run_rd):
    assert build(run_rd, "--layers", "pre,block01").exit_code == 0
    snapshot = Snapshot.open(pictures / "index" / "default")
    assert snapshot.manifest.layers == ("pre", "block01")
    assert {shard.vectors("block01").shape[1] for shard in snapshot.shards()} == {24}
    assert run_rd("query", "ask").exit_code == 0


# ---------------------------------------------------------------- recipes

RECIPE = """
name = "reviewed"
encoder = "tiny"
layers = ["proj", "pre"]
[[references]]
label = "real"
paths = ["photos"]
[[references]]
label = "fake"
generator = "sdxl"
family = "latent diffusion"
released_at = "2023-07-26"
licence = "CC0"
paths = ["generated/sdxl", "new/*.png"]
"""


def test_a_recipe_says_all_that(pictures, run_rd):
    (pictures / "recipe.toml").write_text(RECIPE)
    result = run_rd("build-index", "recipe.toml")
    assert result.exit_code == 0 and "rd query photo.jpg --index reviewed" in result.stdout
    manifest = read_current(pictures / "index" / "reviewed")
    assert manifest.layers == ("proj", "pre") and manifest.counts("fake") == {"sdxl": 10}
    assert manifest.generators["sdxl"].family == "latent diffusion"
    assert manifest.generators["sdxl"].released_at == "2023-07-26"


def test_a_recipe_has_its_paths_below_the_root(pictures, run_rd):
    (pictures / "index" / "recipes").mkdir()
    (pictures / "index" / "recipes" / "known.toml").write_text(RECIPE)
    (pictures / "deep").mkdir()
    for name in ("photos", "generated", "new"):
        (pictures / name).rename(pictures / "deep" / name)
    assert run_rd("build-index", "known", "--root", "deep").exit_code == 0
    assert run_rd("build-index", "known").exit_code == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (RECIPE.replace("encoder", "encodr"), "unknown key 'encodr'"),
        (RECIPE.replace("licence", "license"), "unknown key 'license'"),
        (RECIPE.replace('"fake"', '"generated"'), "label must be real or fake"),
        (RECIPE.replace('["proj", "pre"]', '["last"]'), "'last' is not the name of a layer"),
        (RECIPE.replace("2023-07-26", "July"), "'July' is not a date"),
        (RECIPE.replace('label = "fake"', 'label = "real"'), "a photograph has no generator"),
        (RECIPE.replace('paths = ["photos"]', 'paths = "photos"'), "paths must be a list"),
        ("name = 1\n[[references]]\nlabel='real'\npaths=['photos']", "name must be text"),
        ("name = 'x'", "it names no references"),
        ("name = ", "is not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_read(pictures, run_rd, contents, wrong, said):
    (pictures / "recipe.toml").write_text(wrong)
    before = contents(pictures)
    complaint = one_error(run_rd("build-index", "recipe.toml"), 2)
    assert said in complaint and "recipe.toml" in complaint
    assert contents(pictures) == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "there is nothing to build from"),
        (("nosuch",), "there is no recipe 'nosuch'"),
        (("photos",), "photos is a folder, not a recipe"),
        (("recipe.toml", "--real", "photos"), "a recipe already says"),
        ((*BOTH, *TINY, "--layers", "last"), "'last' is not the name of a layer"),
        ((*BOTH, *TINY, "--layers", "proj,block12"), "tiny has no layer block12"),
        ((*BOTH, *TINY, "--set", "workers=0"), "workers must be a whole number above 0"),
    ],
)
def test_a_call_that_cannot_be_meant(pictures, run_rd, args, said):
    (pictures / "recipe.toml").write_text(RECIPE)
    assert said in one_error(run_rd("build-index", *args), 2)
    assert list((pictures / "index").iterdir()) == []


# ---------------------------------------------------------------- other inputs


def pack_tar(pictures):
    with tarfile.open(pictures / "generated.tar", "w") as archive:
        for path in sorted((pictures / "generated").rglob("*.png")):
            archive.add(path, path.relative_to(pictures / "generated"))
    return "generated.tar"


def pack_parquet(pictures):
    rows = [
        {"bytes": p.read_bytes(), "path": p.name} for p in sorted((pictures / "generated").rglob("*.png"))
    ]
    pq.write_table(pa.table({"image": rows}), pictures / "generated.parquet", row_group_size=3)
    return "generated.parquet"


@pytest.mark.parametrize("pack", [pack_tar, pack_parquet, lambda _: "generated/*/*.png"])
def test_the_same_images_in_other_wrapping(pictures, run_rd, pack, embedded):
    given = pack(pictures)
    first = run_rd("build-index", "--real", "photos", "--fake", given, *TINY, "--json")
    assert json.loads(first.stdout)["references"] == {"real": 12, "fake": 11}
    embedded.clear()
    assert json.loads(build(run_rd, "--json").stdout)["known"] == 23
    assert embedded == []


def test_members_of_a_tar_are_named_by_their_folders(pictures, run_rd):
    result = run_rd("build-index", "--real", "photos", "--fake", pack_tar(pictures), *TINY, "--json")
    assert json.loads(result.stdout)["generators"] == {"flux": 5, "sdxl": 6}


def test_an_image_given_twice_is_stored_once(pictures, run_rd):
    shutil.copy(pictures / "generated" / "flux" / "0060.png", pictures / "generated" / "flux" / "again.png")
    result = build(run_rd, "--json")
    record = json.loads(result.stdout)
    assert (record["repeated"], record["references"]["fake"]) == (1, 11)
    assert "1 given twice" in result.stderr


def test_hostile_names_are_kept_apart_from_the_terminal(pictures, run_rd):
    (pictures / "generated" / "a\x1b]0;x\x07.png").write_bytes(png(90, fake=True))
    (pictures / "generated" / os.fsdecode(b"b\xff.png")).write_bytes(png(91, fake=True))
    (pictures / "generated" / "[x]*?.png").write_bytes(png(92, fake=True))
    result = build(run_rd)
    assert result.exit_code == 0 and "\x1b" not in result.stdout + result.stderr
    listed = run_rd("bank", "list", "--by", "row").stdout
    assert "a\\x1b]0;x\\x07.png" in listed and "\x1b" not in listed
    assert json.loads(build(run_rd, "--json").stdout)["added"] == 0


def test_a_folder_whose_name_can_name_no_generator_is_refused(pictures, run_rd):
    folder = pictures / "generated" / "gen\n\x1b[31m"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(90, fake=True))
    result = build(run_rd)
    assert result.exit_code == 2 and "\x1b" not in result.stderr
    assert "generator 'gen\\n\\x1b[31m' holds the invisible character U+000A" in result.stderr
    assert run_rd("bank", "list").exit_code != 0
