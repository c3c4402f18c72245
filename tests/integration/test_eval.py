"""Protocols on planted data: what the index gets wrong is known beforehand, and must be what is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_detect.ask.methods import QUALITY, Methods
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import UsageError
from retrieval_detect.evaluate.cache import Cache, Row, content_ids
from retrieval_detect.evaluate.context import Context, Options, Plan, Result
from retrieval_detect.evaluate.datasets import EVERY, Dataset, Sample
from retrieval_detect.evaluate.protocols import PROTOCOLS
from retrieval_detect.evaluate.robustness import ROBUSTNESS
from retrieval_detect.evaluate.running import run
from retrieval_detect.evaluate.states import neutral, parse_method, threshold_at
from retrieval_detect.images.items import from_bytes
from retrieval_detect.types import ImageItem
from retrieval_detect.verdicts import Question
from tests.factories import add, new_store, png
from tests.kinds import kind, noise

PHOTOGRAPHS, PLAIN, OTHER, NEW = 0, 1, 2, 3
"""The axis about which images of a kind lie."""


class Planted:
    """A cache whose images are made up. ``changed`` : chain → content id → another vector."""

    def __init__(self, images):
        self._rows = {i.content_id: Row(i.phash, 64, 48, "PNG", i.vectors) for i in images}
        self.changed = {}

    def rows(self, items, chain=(), *, progress=None):
        moved = self.changed.get(chain, {})
        found = {identity: self._rows[identity] for identity in items}
        return {i: Row(r.phash, 64, 48, "PNG", moved.get(i, r.vectors)) for i, r in found.items()}, []

    def statistics(self, items, chain=(), *, progress=None):
        """Chance: eighteen numbers that follow from the content alone."""
        seeds = {i: int.from_bytes(i[:8], "big") for i in items}
        return {i: np.random.default_rng(s).normal(size=18).astype(np.float32) for i, s in seeds.items()}


@pytest.fixture
def store(tmp_path):
    """Photographs of two sources; generators ``plain`` and ``other``, each a kind of its own."""
    store = new_store(tmp_path / "index")
    for source in ("camera", "phone"):
        add(store, kind(f"bank-{source}", 130, axis=PHOTOGRAPHS), "real", source)
    add(store, kind("bank-plain", 60, axis=PLAIN), "fake", "plain")
    add(store, kind("bank-other", 60, axis=OTHER), "fake", "other")
    return store


def planted(*groups):
    """Samples and images of (label, name, images)."""
    samples, images = [], []
    for label, name, own in groups:
        column = name if label == "fake" else EVERY
        samples += [Sample(ImageItem(i.item.uri, bytes), label, name, column) for i in own]
        images += own
    return samples, images


@pytest.fixture
def context(store, tmp_path):
    def make(*groups, columns, **options):
        samples, images = planted(*groups)
        identities = [image.content_id for image in images]
        items = {identity: s.item for identity, s in zip(identities, samples, strict=True)}
        dataset = Dataset("planted", tuple(samples), tuple(columns))
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        snapshot, chosen = store.snapshot(), Options(seeds=2, resamples=40, **options)
        cache = Planted(images)
        return Context(snapshot, Question(), dataset, cache, items, identities, ("proj",), chosen, work)

    return make


def unlike_fakes(prefix, n):
    """Images of a generator that lie nearer to photographs than photographs do, but for those who know it."""
    images = kind(prefix, n, axis=PHOTOGRAPHS, pull=20.0)
    for image in images:
        image.vectors["proj"][NEW] += 10.0
    return images


CAMERA = ("real", "camera", kind("ask-camera", 45, axis=PHOTOGRAPHS) + kind("odd-camera", 5, axis=PLAIN))


def result(context, protocol):
    return run(PROTOCOLS[protocol](context), None, context.key)


# ---------------------------------------------------------------- a table by generator


def test_the_table_shows_the_errors_that_were_planted(context):
    """A tenth of the photographs lies among fakes, a fifth of one generator's images among photographs."""
    hidden = kind("ask-other", 32, axis=OTHER) + kind("hidden-other", 8, axis=PHOTOGRAPHS)
    found = result(
        context(
            CAMERA,
            ("fake", "plain", kind("ask-plain", 40, axis=PLAIN)),
            ("fake", "other", hidden),
            columns=("plain", "other"),
            methods=("majority:9",),
        ),
        "generators",
    )
    rows = {row["column"]: row for row in found.rows}
    assert rows["plain"]["fake_acc_fixed"] == 1.0
    assert rows["other"]["fake_acc_fixed"] == pytest.approx(0.8)
    assert {row["real_acc_fixed"] for row in found.rows} == {0.9}
    assert rows["mean"]["acc_fixed"] == pytest.approx((85 / 90 + 77 / 90) / 2, abs=1e-4)
    majority = found.detail["methods"]["majority:9"]["columns"]
    assert majority["other"]["fake_acc_fixed"] == pytest.approx(0.8)
    assert rows["other"]["auroc_low"] < rows["other"]["auroc"] < rows["other"]["auroc_high"]
    assert 0.3 < rows["mean"]["trivial_auroc"] < 0.7
    peers = {"KNeighborsClassifier", "NearestCentroid", "LogisticRegression", "CalibratedClassifierCV"}
    assert peers <= found.detail["methods"].keys() and peers <= found.detail["curves"].keys()
    assert found.detail["curves"]["rd"]["auroc"] == pytest.approx(rows["mean"]["auroc"], abs=1e-4)
    assert any("mean AUROC than rd" in line for line in found.lines)
    assert any("Trivial pixel statistics" in line for line in found.lines)
    json.dumps(found.rows, allow_nan=False)
    json.dumps(found.detail, allow_nan=False)


def test_rivals_never_learn_from_what_they_are_asked(context, monkeypatch):
    """All references are asked about, a fifth at a time."""
    learnt = []

    def spy(known, asked, layer, rival):
        learnt.append((set(known.content_ids), set(asked.content_ids)))
        return np.arange(len(asked), dtype=float)

    monkeypatch.setattr("retrieval_detect.evaluate.protocols.rival_scores", spy)
    monkeypatch.setattr("retrieval_detect.evaluate.states.rival_scores", spy)
    stored = ("real", "camera", [i for s in ("camera", "phone") for i in kind(f"bank-{s}", 130, axis=0)])
    fakes = [i for name, axis in (("plain", 1), ("other", 2)) for i in kind(f"bank-{name}", 60, axis=axis)]
    found = result(context(stored, ("fake", "plain", fakes), columns=("plain",)), "generators")
    assert len(learnt) == 4 * (5 + 1)  # five fifths, and the rows set aside
    assert not any(known & asked for known, asked in learnt)
    assert found.rows[0]["auroc"] > 0.99
    assert any("are references" in line for line in found.lines)


# ---------------------------------------------------------------- robustness


def test_flips_are_those_that_were_planted(context):
    fakes, photographs = kind("ask-plain", 40, axis=PLAIN), kind("ask-camera", 40, axis=PHOTOGRAPHS)
    made = context(("fake", "plain", fakes), ("real", "camera", photographs), columns=("plain",))
    moved = zip(fakes[:10], kind("moved", 10, axis=PHOTOGRAPHS), strict=True)
    made.cache.changed[ROBUSTNESS["JPEG 30"]] = {old.content_id: new.vectors for old, new in moved}
    rows = {row["setting"]: row for row in result(made, "robustness").rows}
    assert rows["as is"]["flipped"] == rows["JPEG 90"]["flipped"] == 0
    assert (rows["JPEG 30"]["flipped_fake"], rows["JPEG 30"]["flipped_real"]) == (0.25, 0.0)
    harmed = [rows["JPEG 30"][key] for key in ("change_low", "auroc_change", "change_high")]
    assert sorted(harmed) == harmed and harmed[-1] < 0 and rows["JPEG 30"]["fake_acc_fixed"] == 0.75
    assert rows["JPEG 90"]["change_low"] == rows["JPEG 90"]["change_high"] == 0  # paired with themselves
    assert rows["JPEG 75"]["settings_of"] == "CLIPping the Deception"


# ---------------------------------------------------------------- teaching


def test_a_new_generator_is_learnt_from_a_few_references(context, store):
    before = {p: p.read_bytes() for p in sorted(store.folder.rglob("*")) if p.is_file()}
    found = result(
        context(
            ("real", "camera", kind("ask-camera", 40, axis=PHOTOGRAPHS)),
            ("fake", "new", unlike_fakes("ask-new", 60)),
            columns=("new",),
            numbers=(0, 10, 1000),
        ),
        "few-shot",
    )
    rd = {row["n"]: row for row in found.rows if row["method"] == "rd"}
    assert sorted(rd) == [0, 10]  # 1000 images there are not
    assert rd[0]["auroc"] < 0.8 and rd[10]["auroc"] > 0.99
    assert rd[10]["recall"] > 0.9 >= rd[0]["recall"]
    assert {p: p.read_bytes() for p in sorted(store.folder.rglob("*")) if p.is_file()} == before


def test_what_was_learnt_first_is_kept_and_a_model_of_the_newest_alone_forgets(context):
    found = result(
        context(
            ("real", "camera", kind("ask-camera", 40, axis=PHOTOGRAPHS)),
            ("fake", "plain", kind("ask-plain", 60, axis=PLAIN)),
            ("fake", "other", kind("ask-other", 60, axis=OTHER)),
            ("fake", "new", unlike_fakes("ask-new", 60)),
            columns=("plain", "other", "new"),
            numbers=(0, 10),
            order=("plain", "other", "new"),
        ),
        "incremental",
    )
    rows = {(row["generator"], row["method"], row["n"]): row for row in found.rows}
    assert {generator for generator, _, _ in rows} == {"other", "new"}  # the banks begin with plain
    assert any("its training data are not known" in line for line in found.lines)
    assert (last := rows["new", "rd", 10])["recall"] > 0.9 > rows["new", "rd", 0]["recall"]
    assert last["transfer"] > -0.05 and last["past"] > 0.9 and last["past_auroc"] > 0.95
    assert rows["new", "LogisticRegression, newest only", 10]["past"] < 0.6
    assert rows["other", "rd", 0]["next_auroc"] < 0.8
    assert last["seconds_an_image"] > 0 and last["worst_old"].split()[0] in ("plain", "other")
    forgetful = rows["new", "LogisticRegression, newest only", 10]
    assert forgetful["transfer"] < -0.3 and forgetful["lost"] == 2 and last["lost"] == 0
    kept = {(k["generator"], k["method"], k["n"], k["old"]): k for k in found.detail["kept"]}
    assert {key[3] for key in kept if key[:3] == ("new", "rd", 10)} == {"plain", "other"}
    for (generator, method, n, _), one in kept.items():
        assert one["low"] <= one["change"] <= one["high"] and one["recall"] + one["change"] <= 1
        if (method, n) == ("rd", 0):
            assert one["change"] == one["low"] == one["high"] == 0, generator


def test_an_order_must_be_known(context):
    made = context(CAMERA, ("fake", "plain", kind("ask-plain", 5, axis=PLAIN)), columns=("plain",))
    with pytest.raises(UsageError, match="when plain came"):
        PROTOCOLS["incremental"](made)


def test_held_out_kinds_are_told_as_far_as_others_resemble_them(context, store):
    """A twin of ``plain`` makes it known still; nothing else is like ``new``."""
    add(store, kind("bank-twin", 60, axis=PLAIN), "fake", "twin")
    add(store, unlike_fakes("bank-new", 60), "fake", "new")
    found = result(
        context(CAMERA, ("fake", "plain", kind("a", 9, axis=PLAIN)), columns=("plain",)), "holdout"
    )
    rows = {row["left out"]: row for row in found.rows}
    assert rows["plain"]["auroc"] > 0.99 > 0.8 > rows["new"]["auroc"]
    assert rows["plain"]["fakes"] == 60 and rows["plain"]["photographs"] == 130
    assert rows["new"]["auroc_low"] < rows["new"]["auroc"] < rows["new"]["auroc_high"]
    assert set(found.detail["curves"]) == {"rd", "LogisticRegression"}


def test_larger_banks_are_measured_too(context):
    made = context(CAMERA, ("fake", "plain", kind("a", 30, axis=PLAIN)), columns=("plain",), numbers=(5, 50))
    rows = result(made, "bank-size").rows
    assert [(row["n"], row["draws"]) for row in rows] == [(5, 2), (50, 2), (120, 1)]
    assert rows[-1]["vectors_bytes"] == 2 * 2 * 120 * 32


# ---------------------------------------------------------------- attribution, calibration


def test_attribution_knows_the_known_and_refuses_the_unknown(context):
    found = result(
        context(
            CAMERA,
            ("fake", "plain", kind("ask-plain", 30, axis=PLAIN)),
            ("fake", "other", kind("ask-other", 30, axis=OTHER)),
            ("fake", "new", kind("ask-new", 30, axis=NEW, pull=0.0)),
            columns=("plain", "other", "new"),
        ),
        "attribution",
    )
    assert found.detail["closed_accuracy"] == 1.0 and found.detail["closed_interval"] == [1.0, 1.0]
    assert found.detail["open_auroc"] > 0.95 and found.detail["oscr"] > 0.95
    assert {row["generator"]: row["known"] for row in found.rows}["new"] is False


def test_calibration_shows_where_a_promise_breaks(context):
    odd = ("real", "odd", kind("odd", 20, axis=PLAIN))
    found = result(
        context(CAMERA, odd, ("fake", "plain", kind("a", 50, axis=PLAIN)), columns=("plain",)), "calibration"
    )
    promised = {row["promised"]: row for row in found.detail["coverage"]}
    assert promised[0.05]["worst_source"] == "odd" and promised[0.05]["worst"] == 1.0
    assert promised[0.05]["flagged"] == pytest.approx((5 + 20) / 70, abs=0.06)
    assert promised[0.001]["possible"] is False
    ends = promised[0.05]["interval"]
    assert ends["low"] < promised[0.05]["flagged"] < ends["high"] and ends["by"]["real"] == "group"
    assert found.detail["risk"][-1]["answered"] == 1.0
    assert {row["map"] for row in found.rows} == {"logistic", "isotonic", "CalibratedClassifierCV"}


# ---------------------------------------------------------------- quality


class Proxy:
    """A head that reads quality off the first coordinate."""

    layers = ("proj",)

    def decision_function(self, vectors):
        return vectors["proj"][:, 0].astype(float)


@pytest.mark.parametrize(("sign", "srcc"), [(1, 1.0), (-1, -1.0)])
def test_quality_is_held_against_opinions(context, monkeypatch, sign, srcc):
    """Opinions rise, or fall, with what the head reads; Pearson's is 1 only where the scale is the same."""
    fakes = [noise(f"q-{i}", 1)[0] for i in range(30)]
    made = context(CAMERA, ("fake", "plain", fakes), columns=("plain",))
    read = dict(zip((f.content_id for f in fakes), (f.vectors["proj"] for f in fakes), strict=True))
    read_off = {i: x[0] for i, x in read.items()}
    samples = [
        replace(s, quality=float(sign * read_off[i] ** 3))
        for s, i in zip(made.dataset.samples, made.identities, strict=True)
        if i in read_off
    ]
    only = Dataset("opinions", tuple(samples), ("plain",))
    made = replace(made, dataset=only, identities=list(read_off), items={i: made.items[i] for i in read_off})
    head = SimpleNamespace(name="q", kind="head", method=QUALITY, digest="")
    monkeypatch.setattr(type(made.snapshot.manifest), "fitted", (head,), raising=False)
    monkeypatch.setattr(Methods, "head", lambda self, name: Proxy())
    (row,) = result(made, "quality").rows
    assert (row["head"], row["images"]) == ("q", 30)
    assert row["srcc"] == pytest.approx(srcc, abs=1e-3)
    assert 0.5 < sign * row["plcc"] < 0.99


# ---------------------------------------------------------------- categories


def test_a_few_of_each_category_are_a_bank(context, tmp_path):
    """Category ``b`` alone shows what ``other`` is like: its draw must be there, and nothing but the draw."""
    store = new_store(tmp_path / "by-category")
    for category, axis in (("a", PLAIN), ("b", OTHER)):
        photographs, fakes = kind(f"r-{category}", 12, axis=PHOTOGRAPHS), kind(f"f-{category}", 12, axis=axis)
        add(store, photographs, "real", f"camera-{category}", category=category)
        add(store, fakes, "fake", f"gan-{category}", category=category)
    add(store, kind("one-sided", 30, axis=PLAIN), "real", "odd", category="photographs only")
    made = context(
        CAMERA,
        ("fake", "plain", kind("ask-plain", 30, axis=PLAIN)),
        ("fake", "other", kind("ask-other", 30, axis=OTHER)),
        columns=("plain", "other"),
        numbers=(1, 8, 50),
        per_category=True,
    )
    found = result(replace(made, snapshot=store.snapshot()), "few-shot")
    rows = {(row["generator"], row["method"], row["n"]): row for row in found.rows}
    assert {n for _, _, n in rows} == {1, 8}  # 50 there are not
    assert rows["other", "rd", 8]["auroc"] > 0.9 and rows["plain", "rd", 8]["auroc"] > 0.9
    assert rows["mean", "rd", 8]["auroc_range"][0] <= rows["mean", "rd", 8]["auroc"]
    assert "of each of 2 categories: 4 references at n = 1, 32 references at n = 8" in found.lines[0]


# ---------------------------------------------------------------- parts


def test_finished_steps_are_kept_when_one_fails(tmp_path):
    done = []

    def step(name):
        if name == "second" and "first" in done and "again" not in done:
            raise KeyboardInterrupt
        done.append(name)
        return {"name": name}

    plan = Plan(
        [(name, lambda name=name: step(name)) for name in ("first", "second")],
        lambda found: Result("p", "P", ("name",), tuple(found.values())),
    )
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "steps", "key")
    done.append("again")
    assert [row["name"] for row in run(plan, tmp_path / "steps", "key").rows] == ["first", "second"]
    assert done == ["first", "again", "second"]
    run(plan, tmp_path / "steps", "another key")
    assert done[-2:] == ["first", "second"]


def test_repeated_images_are_embedded_once_and_kept(tmp_path, monkeypatch):
    calls = []
    encode = TinyEncoder.encode
    monkeypatch.setattr(TinyEncoder, "encode", lambda s, b, n: (calls.append(len(b)), encode(s, b, n))[1])
    images = [from_bytes(png(seed), f"{seed}-{copy}") for copy in range(2) for seed in range(5)]
    found = content_ids([*images, from_bytes(b"no image", "broken")])
    items = dict(zip(found, [*images, from_bytes(b"no image", "broken")], strict=True))
    cache = Cache(tmp_path, TinyEncoder().spec, TinyEncoder, ("proj",))
    rows, failures = cache.rows(items)
    assert (len(rows), sum(calls), [f.uri for f in failures]) == (5, 5, ["broken"])
    again, _ = Cache(tmp_path, TinyEncoder().spec, TinyEncoder, ("proj",)).rows(items)
    assert sum(calls) == 5
    assert all(np.array_equal(again[i].vectors["proj"], row.vectors["proj"]) for i, row in rows.items())
    changed, _ = cache.rows(items, ("jpeg-30",))
    assert sum(calls) == 10
    assert any(not np.allclose(changed[i].vectors["proj"], rows[i].vectors["proj"]) for i in rows)
    both = tuple(TinyEncoder().spec.layers)
    kept, _ = Cache(tmp_path / "all", TinyEncoder().spec, TinyEncoder, ("proj",), kept=both).rows(items)
    assert sum(calls) == 15 and set(kept[found[0]].vectors) == {"proj"}
    for layers in (both, ("proj",), both[-1:]):  # found in the set that holds them all
        read, _ = Cache(tmp_path / "all", TinyEncoder().spec, TinyEncoder, layers).rows(items)
        assert sum(calls) == 15 and set(read[found[0]].vectors) == set(layers)
    once = cache.statistics(items)
    assert len(once) == 5 and np.array_equal(once[found[0]], cache.statistics(items)[found[0]])


def test_thresholds():
    scores = np.arange(100.0)
    assert (scores > threshold_at(scores, 0.05)).sum() == 5
    rng = np.random.default_rng(0)
    both = np.r_[rng.normal(-1, 1, 500), rng.normal(3, 1, 500)]
    assert neutral(both, np.arange(1000) >= 500) == pytest.approx(1.0, abs=0.15)
    assert parse_method("majority:9") == Question("majority", 9, "identity")
    with pytest.raises(UsageError, match="no method"):
        parse_method("majority:many")
