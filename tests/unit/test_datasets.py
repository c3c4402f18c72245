"""Sets of images: folders, manifests, published layouts; what is missing is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.context import Result
from retrieval_detect.evaluate.datasets import EVERY, LAYOUTS, NAMES, apart, load
from retrieval_detect.evaluate.published import TABLES, compared, published
from retrieval_detect.images.chains import UNIFIED, rendered
from retrieval_detect.report.tables import compared_rows, markdown_table, method_tables


def touch(folder, *names):
    """Images by name alone: no layout reads one."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def counted(dataset):
    return Counter((s.column, s.label) for s in dataset.samples)


def test_a_tree_has_a_column_for_each_generator_and_shared_photographs(tmp_path):
    touch(tmp_path, "real/camera/1.png", "real/phone/deep/2.png", "fake/sdxl/3.png", "fake/flux/4.png")
    dataset = load(tmp_path)
    assert dataset.columns == ("flux", "sdxl")
    assert counted(dataset) == {(EVERY, "real"): 2, ("flux", "fake"): 1, ("sdxl", "fake"): 1}
    assert {s.name for s in dataset.samples if s.label == "real"} == {"camera", "phone"}


def test_a_flat_tree_has_one_column(tmp_path):
    touch(tmp_path, "real/1.png", "fake/2.png")
    assert load(tmp_path).columns == ("fake",)


def test_a_folder_without_photographs_is_refused(tmp_path):
    touch(tmp_path, "fake/2.png")
    with pytest.raises(UsageError, match="no folder real/"):
        load(tmp_path)


# ---------------------------------------------------------------- manifests

ROWS = """path,label,generator,source,family,released_at
a.png,real,,camera,,
b.png,fake,new,,diffusion,2024-05-01
c.png,Fake,old,,GAN,2019-01-01
"""


def test_a_manifest_orders_generators_by_release(tmp_path):
    (tmp_path / "set.csv").write_text(ROWS)
    dataset = load(tmp_path / "set.csv")
    assert dataset.columns == ("old", "new")
    assert [(s.name, s.family) for s in dataset.samples] == [
        ("camera", ""),
        ("new", "diffusion"),
        ("old", "GAN"),
    ]


def test_a_parquet_manifest_says_the_same(tmp_path):
    (tmp_path / "set.csv").write_text(ROWS)
    header, *rows = [line.split(",") for line in ROWS.splitlines()]
    pq.write_table(
        pa.table({name: [r[i] for r in rows] for i, name in enumerate(header)}), tmp_path / "set.parquet"
    )
    one, other = load(tmp_path / "set.csv"), load(tmp_path / "set.parquet")
    assert [s.name for s in one.samples] == [s.name for s in other.samples]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path\na.png\n", "no column 'label'"),
        ("path,label\n", "lists no image"),
        ("path,label\na.png,maybe\n", "row 2: label is 'maybe'"),
        ("path,label,released_at\na.png,fake,May 2024\n", "not YYYY-MM-DD"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, text, complaint):
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(UsageError, match=complaint):
        load(tmp_path / "set.csv")


def test_ai_genbench_goes_by_periods_of_four_generators(tmp_path):
    rows = [f"{i}.png,fake,g{i},20{10 + i}-06-01" for i in range(6)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,generator,released_at", "r.png,real,,", *rows]))
    dataset = load(tmp_path, "ai-genbench")
    assert dataset.columns == ("1: from 2010-06", "2: from 2014-06")
    assert counted(dataset)["1: from 2010-06", "fake"] == 4


# ---------------------------------------------------------------- published layouts


def test_ufd_shares_photographs_and_lists_what_is_missing(tmp_path):
    touch(
        tmp_path, "CNN/progan/car/0_real/1.png", "CNN/progan/car/1_fake/2.png", "CNN/progan/dog/1_fake/3.png"
    )
    touch(tmp_path, "CNN/seeingdark/0_real/1.png", "CNN/seeingdark/1_fake/2.png")
    touch(tmp_path, "diffusion_datasets/laion/0_real/1.png", "diffusion_datasets/laion/0_real/2.png")
    touch(tmp_path, "diffusion_datasets/ldm_200/1_fake/1.png", "diffusion_datasets/dalle/1.png")
    dataset = load(tmp_path, "ufd")
    assert dataset.columns == ("progan", "sitd", "ldm_200", "dalle")
    counts = counted(dataset)
    assert (counts["progan", "real"], counts["progan", "fake"]) == (1, 2)
    assert [counts[c, label] for c in ("ldm_200", "dalle") for label in ("real", "fake")] == [2, 1, 2, 1]
    assert len(dataset.missing) == 16 and "stylegan2" in dataset.missing and "guided" in dataset.missing


def test_genimage_takes_what_lies_in_val(tmp_path):
    touch(tmp_path, "ADM/imagenet_adm/val/ai/1.png", "ADM/imagenet_adm/val/nature/2.png")
    touch(tmp_path, "ADM/imagenet_adm/train/ai/3.png")
    assert counted(load(tmp_path, "genimage")) == {("adm", "fake"): 1, ("adm", "real"): 1}


def test_genimage_knows_its_folders_by_their_longer_names(tmp_path):
    """As the archives unpack: a generator's folder, another below it that says the same, train and val."""
    for outer, inner in (("Midjourney", "imagenet_midjourney"), ("BigGAN", "imagenet_ai_0419_biggan")):
        touch(
            tmp_path,
            *(
                f"{outer}/{inner}/{part}/{kind}/1.png"
                for part in ("train", "val")
                for kind in ("ai", "nature")
            ),
        )
    dataset = load(tmp_path, "genimage")
    assert dataset.columns == ("midjourney", "biggan")
    assert {s.item.relative.split("/")[-3] for s in dataset.samples} == {"val"}
    assert dataset.missing == ("sd_v1.4", "sd_v1.5", "adm", "glide", "wukong", "vqdm")


def test_aigcdetectbenchmark_counts_sdxl_apart(tmp_path):
    touch(tmp_path, "test/progan/cat/0_real/1.png", "test/progan/cat/1_fake/1.png")
    touch(tmp_path, "test/sd_xl/0_real/1.png", "test/sd_xl/1_fake/1.png", "test/DALLE2/1_fake/1.png")
    dataset = load(tmp_path, "aigcdetectbenchmark")
    assert dataset.columns == ("progan", "sd_xl")
    assert apart("aigcdetectbenchmark") == {"sd_xl"} and apart("auto") == frozenset()
    assert "dalle2" in dataset.missing  # its photographs are gone


def test_clipping_reads_its_numbered_classes(tmp_path):
    touch(tmp_path, "sdxl/n01440764/1.png", "sdxl/n01443537/1.png", "sdxl/n01443537/2.png")
    assert counted(load(tmp_path, "clipping")) == {("sdxl", "real"): 1, ("sdxl", "fake"): 2}


def test_ai_genbench_wants_every_date(tmp_path):
    (tmp_path / "set.csv").write_text("path,label,generator,released_at\nr.png,real,,\nf.png,fake,g,\n")
    with pytest.raises(UsageError, match="released_at is not known of g"):
        load(tmp_path, "ai-genbench")


def test_layouts_are_as_long_as_their_papers_tables():
    assert len([c for c in LAYOUTS["ufd"].columns if not c.apart]) == 19
    clipping = LAYOUTS["clipping"]
    grouped = {m for members in clipping.joint.values() for m in members}
    assert len(clipping.columns) == 25
    assert len(clipping.columns) - len(grouped) + len(clipping.joint) == 21
    assert (len(LAYOUTS["genimage"].columns), len(LAYOUTS["aigcdetectbenchmark"].columns)) == (8, 17)


def test_opinions_find_their_images_and_name_the_others(tmp_path):
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    (tmp_path / "data.csv").write_text("name,mos_quality\na.jpg,3.5\nb.jpg,1\ngone.jpg,2\n")
    (tmp_path / "._data.csv").write_bytes(b"a Mac's notes on it")
    dataset = load(tmp_path, "agiqa")
    assert [s.quality for s in dataset.samples] == [3.5, 1.0]
    assert dataset.missing == ("gone.jpg",)


# ---------------------------------------------------------------- published numbers


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_are_of_columns_that_the_layout_has(name):
    table = published(name)
    known = {c.name for c in LAYOUTS[table.layout].columns} | {"mean", "mean_with_stylegan2"}
    assert table.source and all(row.source for row in table.rows)
    for row in table.rows:
        for values in row.values.values():
            assert set(values) <= known
            assert all(0 <= value <= 100 for value in values.values())


def test_ours_is_compared_in_points():
    (row, mean) = compared(published("ufd"), "acc", {"rd": {"progan": 0.99, "mean": 0.9}})
    assert row["published"]["NN k=9"] == 99.54
    assert row["difference"]["rd"]["NN k=9"] == pytest.approx(-0.54)
    assert mean["difference"]["rd"]["LC"] == pytest.approx(90 - 81.38)
    flat = compared_rows([row])
    assert flat[0]["rd (ours)"] == 99.0 and flat[0]["rd less NN k=9"] == -0.54


def result_of(**methods):
    columns = {name: {"columns": columns} for name, columns in methods.items()}
    return Result(
        "generators", "By generator", (), (), (), {"methods": columns | {"gone": {"left out": "why"}}}
    )


def test_methods_stand_under_one_another_ours_before_the_published():
    own = {
        "progan": {"auroc": 0.9, "acc_fixed": 0.99, "ap": 0.5},
        "mean": {"auroc": 0.9, "acc_fixed": 0.9, "ap": 0.5},
    }
    result = result_of(rd=own)
    (alone,) = method_tables(result)
    assert alone.columns == ("method", "mean", "progan")
    assert [row["method"] for row in alone.rows] == ["rd"] and alone.rows[0]["progan"] == 0.9
    acc, points, ap = method_tables(result, published("ufd"), differences=True)
    assert acc.columns == ap.columns == ("method", "whose", "mean", "progan")
    by_name = {row["method"]: row for row in acc.rows}
    assert by_name["rd"]["progan"] == 99 and by_name["rd"]["whose"] == "ours"
    assert (by_name["NN k=9"]["progan"], by_name["NN k=9"]["whose"]) == (99.54, "published")
    # What is stated of no column that is there has no row; the differences are of columns, not of the mean.
    assert "LC, released weights run again" not in by_name and by_name["RINE, 4 classes"]["progan"] is None
    assert points.rows[0]["NN k=9"] == pytest.approx(-0.54) and "RINE, 4 classes" not in points.columns


# ---------------------------------------------------------------- changes, tables


def test_a_chain_is_done_step_by_step():
    rgb = np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8)
    assert rendered(rgb, UNIFIED).shape == (256, 768, 3)
    assert rendered(rgb, ("longest-150", "resize-50")).shape == (25, 75, 3)
    assert rendered(rgb, ("longest-900",)) is rgb
    with pytest.raises(UsageError, match="no view"):
        rendered(rgb, ("polish-3",))


def test_markdown_keeps_hostile_names_inside_their_cell():
    text = markdown_table(
        ("name", "auroc"), [{"name": "a|b", "auroc": 0.91234}, {"name": "c", "auroc": None}]
    )
    assert text.splitlines()[1:] == ["| --- | ---: |", "| a\\|b | 0.912 |", "| c |  |"]


# ---------------------------------------------------------------- as the guide shows them

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
LISTED = "path,label,generator,released_at\na/1.png,real,,\nb/2.png,fake,sdxl,2023-07-26\n"
LISTS = {"list.csv": LISTED, "data.csv": "name,mos_quality\n1.png,3.5\n"}


def shown_layouts():
    """Layout and files of each tree in the guide."""
    (block,) = (text for text in GUIDE.read_text().split("```") if text.startswith("\nauto\n"))
    for tree in block.strip().split("\n\n"):
        layout, *lines = tree.splitlines()
        yield pytest.param(
            layout.partition(",")[0], [line.split()[1] for line in lines], id=layout.partition("(")[0].strip()
        )


@pytest.mark.parametrize(("layout", "files"), list(shown_layouts()))
def test_layouts_are_as_the_guide_shows_them(tmp_path, layout, files):
    touch(tmp_path, *files)
    for name, text in LISTS.items():
        if name in files:
            (tmp_path / name).write_text(text)
    own = tmp_path / "list.csv" if layout == "auto" and "list.csv" in files else tmp_path
    found = load(own, layout)
    images = sum(name.endswith(".png") for name in files)
    assert len({sample.item.uri for sample in found.samples}) == images and found.columns


def test_the_guide_shows_every_layout():
    assert {shown.values[0] for shown in shown_layouts()} == set(NAMES)
