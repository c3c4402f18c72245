"""The detector against arithmetic by hand: brute-force neighbours, votes written out, own copies left out."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from retrieval_detect import Detector, Index, Verdicts
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.errors import EmptyBank, EncoderMismatch, ImageError, IndexNotFound, UsageError
from retrieval_detect.images.sources import from_bytes, scan
from retrieval_detect.report.json import verdict_schema
from retrieval_detect.types import METHODS, Facts, Failure
from retrieval_detect.verdicts import Question, Verdict
from tests.copies import copies, saved
from tests.factories import add as store_images
from tests.factories import embedded, new_store, picture, png, write_pictures

QUESTIONS = range(200, 206)


def taught(folder, *, generators=("sdxl", "flux"), sources=("camera", "phone"), each=7):
    """An index whose pictures follow from the seed; returns it with the folder of the pictures."""
    index = Index.create(folder / "idx", encoder=TinyEncoder())
    for label, names in (("real", sources), ("fake", generators)):
        for number, name in enumerate(names):
            start = (1000 if label == "fake" else 0) + 100 * number
            write_pictures(
                folder / label / name, range(start, start + each + 2 * number), fake=label == "fake"
            )
            add(index, folder / label / name, label, name)
    return index


def add(index, path, label, name=""):
    facts = {"generator" if label == "fake" else "source": name}
    return index.apply(index.plan_add(scan([path]), label=label, **facts), encoder=TinyEncoder())


@pytest.fixture
def index(tmp_path):
    return taught(tmp_path)


@pytest.fixture
def detector(index):
    return Detector.load(index.folder)


def questions():
    return [from_bytes(png(seed), f"{seed}.png") for seed in QUESTIONS]


def stored_form(image):
    """The query as design §6 has it: unit, rounded to float16, in float32 arithmetic."""
    (embedded,) = embed([image], TinyEncoder(), layers=["proj"])
    vector = embedded.vectors["proj"].astype(np.float64)
    rounded = (vector / np.linalg.norm(vector)).astype(np.float32).astype(np.float16).astype(np.float32)
    return rounded / np.linalg.norm(rounded)


@pytest.fixture
def by_hand(index):
    """(similarities of all fakes, of all photographs, generators, sources) of one image."""
    arrays = index.arrays()

    def compare(image):
        similarities = arrays.X @ stored_form(image)
        fake, names = arrays.y == 1, np.array(arrays.names)
        return similarities[fake], similarities[~fake], names[fake], names[~fake]

    return compare


# ---------------------------------------------------------------- votes


def test_nearest(detector, by_hand):
    for image in questions():
        fake, real, *_ = by_hand(image)
        verdict = detector.query(image, method="nearest")
        assert verdict.score == pytest.approx(fake.max() - real.max(), abs=2e-6)
        assert verdict.nearest == pytest.approx({"fake": fake.max(), "real": real.max()}, abs=2e-6)
        assert verdict.k == 1


@pytest.mark.parametrize("k", [1, 4, 9, 500])
def test_mean(detector, by_hand, k):
    for image in questions():
        fake, real, *_ = by_hand(image)
        used = min(k, len(fake), len(real))
        expected = np.sort(fake)[-used:].mean() - np.sort(real)[-used:].mean()
        verdict = detector.query(image, method="mean", k=k)
        assert verdict.score == pytest.approx(expected, abs=2e-6) and verdict.k == used


@pytest.mark.parametrize("k", [1, 5, 9, 500])
def test_majority(detector, by_hand, k):
    for image in questions():
        fake, real, *_ = by_hand(image)
        merged = sorted([(-s, True) for s in fake] + [(-s, False) for s in real])[:k]
        share_fake = sum(is_fake for _, is_fake in merged) / len(fake)
        share_real = sum(not is_fake for _, is_fake in merged) / len(real)
        verdict = detector.query(image, method="majority", k=k)
        assert verdict.score == pytest.approx(share_fake / (share_fake + share_real) - 0.5, abs=2e-6)


def log_weights(names):
    """pi_g = (n_g/(n_g+5)) / sum of the same, w = pi_g/n_g (design §9); no batches, no large groups here."""
    counts = {name: (names == name).sum() for name in set(names)}
    total = sum(n / (n + 5) for n in counts.values())
    return np.log([1 / (counts[name] + 5) / total for name in names])


def test_density_and_attribution(detector, by_hand):
    for image in questions():
        fake, real, generators, sources = by_hand(image)
        terms_fake, terms_real = fake / 0.2 + log_weights(generators), real / 0.2 + log_weights(sources)
        verdict = detector.query(image)
        expected = np.log(np.exp(terms_fake).sum()) - np.log(np.exp(terms_real).sum())
        assert verdict.method == "density" and verdict.score == pytest.approx(expected, abs=1e-4)
        nearest = generators[np.argsort(-fake)[:10]]
        for entry in verdict.attribution:
            share = np.exp(terms_fake)[generators == entry.generator].sum() / np.exp(terms_fake).sum()
            assert entry.share == pytest.approx(share, abs=1e-4)
            assert entry.of_nearest_fakes == (nearest == entry.generator).sum()
        assert sum(entry.share for entry in verdict.attribution) == pytest.approx(1)


def test_attribution_is_the_same_whatever_the_vote(detector):
    image = questions()[0]
    assert len({detector.query(image, method=method).attribution for method in METHODS}) == 1


def test_evidence_is_the_nearest_of_both_banks(detector, by_hand):
    for image in questions():
        fake, real, *_ = by_hand(image)
        verdict = detector.query(image)
        expected = np.sort(np.concatenate([fake, real]))[::-1][:10]
        assert [e.similarity for e in verdict.evidence] == pytest.approx(expected, abs=2e-6)
        assert [e.rank for e in verdict.evidence] == list(range(1, 11))
        assert verdict.votes.fake == sum(e.label == "fake" for e in verdict.evidence)
        assert verdict.votes.of == 10 and verdict.votes.bank_share_fake == len(fake) / (len(fake) + len(real))


def test_a_batch_is_its_images_one_by_one(detector):
    together = list(detector.query_many(questions(), batch_size=4))
    alone = [detector.query(image) for image in questions()]
    for a, b in zip(together, alone, strict=True):
        assert replace(a, elapsed_s=0.0) == replace(b, elapsed_s=0.0)


def test_verdicts_keep_to_their_schema(detector, index):
    validator = jsonschema.Draft202012Validator(verdict_schema())
    images = [*questions(), *scan([index.folder.parent / "real" / "camera"])]
    for method in METHODS:
        for verdict in detector.query_many(images, method=method):
            validator.validate(json.loads(json.dumps(verdict.to_dict(), allow_nan=False)))


# ---------------------------------------------------------------- the query's own image


@pytest.mark.parametrize("method", METHODS)
def test_copies_of_a_reference_vote_as_if_it_were_not_there(index, method):
    reference = index.folder.parent / "real" / "camera" / "0002.png"
    before = [
        Detector.load(index.folder).query(data, method=method) for data in (reference, *copies(picture(2)))
    ]
    (own,) = before[0].same_image
    assert [[e.row_id for e in verdict.same_image] for verdict in before] == [[own.row_id]] * 4
    index.remove([own.row_id])
    after = [
        Detector.load(index.folder).query(data, method=method) for data in (reference, *copies(picture(2)))
    ]
    for old, new in zip(before, after, strict=True):
        assert new.same_image == () and new.evidence == old.evidence
        if method in ("nearest", "mean"):  # the others know how many references there are
            assert new.score == old.score


def test_all_copies_in_the_bank_are_told_and_none_votes(index):
    folder = index.folder.parent / "copies"
    folder.mkdir()
    for number, data in enumerate(copies(picture(2))):
        (folder / f"copy{number}").with_suffix(".png").write_bytes(data)
    add(index, folder, "real", "camera")
    verdict = Detector.load(index.folder).query(png(2))
    assert len(verdict.same_image) == 4 and verdict.same_image[0].similarity == 1.0
    assert not {e.row_id for e in verdict.same_image} & {e.row_id for e in verdict.evidence}


def test_a_copy_on_the_other_side_is_told_too(index):
    folder = index.folder.parent / "mislabelled"
    folder.mkdir()
    (folder / "copy.jpg").write_bytes(next(copies(picture(2))))
    add(index, folder, "fake", "sdxl")
    verdict = Detector.load(index.folder).query(png(2))
    assert {(e.label, e.uri.rpartition("/")[2]) for e in verdict.same_image} == {
        ("real", "0002.png"),
        ("fake", "copy.jpg"),
    }


def test_a_reference_held_for_calibration_is_told_and_its_group_does_not_vote(tmp_path):
    index = taught(tmp_path, each=60)
    rows = index.snapshot().scan(["row_id", "uri"], split="calib").to_pylist()
    assert rows
    for row in rows[:5]:
        verdict = Detector.load(index.folder).query(row["uri"])
        assert [e.row_id for e in verdict.same_image] == [row["row_id"]]
        assert "this very image is a reference of the index; it did not vote" in verdict.warnings


def test_copies_of_a_copy_do_not_vote_either(tmp_path):
    """The question resembles b, and c resembles b but not the question: all three are one group."""
    store = new_store(tmp_path / "idx")
    v = embedded("v").vectors["proj"]
    b, c = embedded("b", vector=v, phash=0b11111), embedded("c", vector=v, phash=0b1111111111)
    store_images(store, [c, b, embedded("x"), embedded("y")], "real")
    store_images(store, [embedded("z")], "fake")
    verdict = Detector(store.snapshot(), encoder=Another()).judge(embedded("a", vector=v, phash=0))
    assert {e.uri for e in verdict.same_image} == {"b.png", "c.png"}
    assert {e.uri for e in verdict.evidence} == {"x.png", "y.png", "z.png"}


def test_nothing_is_said_of_images_that_are_new(detector):
    for verdict in detector.query_many(questions()):
        assert verdict.same_image == () and not any("reference" in warning for warning in verdict.warnings)


# ---------------------------------------------------------------- asking


def test_ways_to_ask(index, detector, tmp_path):
    path = tmp_path / "q.png"
    path.write_bytes(png(200))
    answers = [detector.query(given) for given in (path, str(path), png(200), from_bytes(png(200), "x"))]
    assert len({answer.score for answer in answers}) == 1
    assert [answer.input for answer in answers] == [str(path), str(path), "-", "x"]


def test_small_and_strange_images_are_told(detector):
    tiny = detector.query(saved(picture(1).resize((20, 20)), "PNG"))
    assert any("20×20 is smaller than the encoder's 32×32" in warning for warning in tiny.warnings)
    glass = picture(1).convert("RGBA")
    glass.putalpha(99)
    assert any("transparent" in warning for warning in detector.query(saved(glass, "PNG")).warnings)


def test_alone_it_raises_in_bulk_it_is_a_value(detector, tmp_path):
    with pytest.raises(ImageError, match="not an image") as caught:
        detector.query(b"no picture")
    assert caught.value.reason == "not-an-image"
    results = list(detector.query_many([png(200), b"no picture", tmp_path / "nowhere.png", png(201)]))
    assert [type(result) for result in results] == [Verdict, Failure, Failure, Verdict]
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/$defs/failure", "$defs": verdict_schema()["$defs"]}
    )
    for failure in results[1:3]:
        validator.validate(failure.to_dict())


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": -1}, {"method": "oracle"}, {"method": "nearest", "k": 3}])
def test_questions_that_cannot_be_meant(detector, wrong):
    with pytest.raises(UsageError):
        detector.query(png(200), **wrong)
    with pytest.raises(UsageError):
        next(detector.stream([png(200)], **wrong))


def test_answers_come_while_questions_are_still_being_read(detector):
    read = []

    def endless():
        for seed in range(100_000):
            read.append(seed)
            yield from_bytes(png(seed % 20 + 200), f"{seed}.png")

    answers = detector.stream(endless(), batch_size=4, workers=2)
    assert next(answers).input == "0.png"
    assert len(read) < 50
    answers.close()


def test_a_detector_keeps_its_generation(index):
    old = Detector.load(index.folder)
    before = old.query(png(200))
    write_pictures(index.folder.parent / "more", range(1300, 1310), fake=True)
    add(index, index.folder.parent / "more", "fake", "newgen")
    assert replace(old.query(png(200)), elapsed_s=0) == replace(before, elapsed_s=0)
    assert Detector.load(index.folder).query(png(200)).index.n_fake == before.index.n_fake + 10


# ---------------------------------------------------------------- what cannot be asked


def test_one_bank_alone(tmp_path):
    index = taught(tmp_path, generators=())
    with pytest.raises(EmptyBank, match="the fake bank of index 'idx' is empty"):
        Detector.load(index.folder)
    with pytest.raises(IndexNotFound):
        Detector.load(tmp_path / "nowhere")


def test_a_bank_that_was_emptied(index):
    rows = index.snapshot().scan(["row_id"], label="fake")["row_id"].to_pylist()
    index.remove(rows)
    with pytest.raises(EmptyBank):
        Detector.load(index.folder)


def test_a_bank_that_holds_nothing_but_copies(tmp_path):
    index = taught(tmp_path, generators=("sdxl",), sources=("camera",), each=1)
    (result,) = Detector.load(index.folder).query_many([png(0)])
    assert isinstance(result, Failure) and result.reason == "no-voters" and "real bank" in result.message


class Another(TinyEncoder):
    def __init__(self, **changes):
        super().__init__()
        self._spec = replace(self._spec, **changes)


class Drifting(Another):
    def encode(self, batch, layers):
        rng = np.random.default_rng(0)
        return {
            layer: (rows + 0.3 * rows.std() * rng.normal(size=rows.shape)).astype(np.float32)
            for layer, rows in super().encode(batch, layers).items()
        }


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (Another(name="other", weights_sha256="0" * 64), "was built with tiny; this is other"),
        (Drifting(precision="float16"), "does not agree with index 'idx': its canaries differ by"),
    ],
)
def test_an_encoder_that_does_not_fit(index, encoder, said):
    with pytest.raises(EncoderMismatch, match=said):
        Detector.load(index.folder, encoder=encoder).query(png(200))


def test_another_engine_that_agrees(index):
    verdict = Detector.load(index.folder, encoder=Another(precision="bfloat16")).query(png(200))
    assert verdict.engine == "cpu-bfloat16-pillow"


def test_a_spoilt_derived_file_changes_no_answer(index, caplog):
    before = Detector.load(index.folder).query(png(200))
    for path in (index.folder / "banks").glob("*.faiss"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        after = Detector.load(index.folder).query(png(200))
    assert replace(after, elapsed_s=0) == replace(before, elapsed_s=0)
    assert "cannot be trusted" in caplog.text


def test_facts_of_the_nearest_references_are_shown(index):
    write_pictures(index.folder.parent / "named", range(2000, 2001), fake=True)
    known = Facts("fake", generator="newgen")
    planned = index.plan_add(scan([index.folder.parent / "named"]), label="fake", generator="newgen")
    assert planned.new[0].facts == known
    index.apply(planned, encoder=TinyEncoder())
    slightly = picture(2000, fake=True).crop((3, 3, 61, 61))
    verdict = Detector.load(index.folder).query(saved(slightly, "PNG"))
    best = (verdict.same_image or verdict.evidence)[0]
    assert best.generator == "newgen" and best.uri.endswith("named/2000.png")


# ---------------------------------------------------------------- by name


def test_an_index_is_named_as_on_the_command_line(index, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "data" / "retrieval-detect" / "index"
    shutil.copytree(index.folder, home / "default")
    for found in (Detector.load("default").snapshot.folder, Index.open("default").folder):
        assert found.absolute() == home / "default"
    shutil.copytree(index.folder, tmp_path / "index" / "default")
    assert Detector.load("default").snapshot.folder == tmp_path / "index" / "default"
    for path in ("default", "./default", "index/nope"):
        with pytest.raises(IndexNotFound):
            Detector.load(Path(path))
    shutil.copytree(index.folder, tmp_path / "default")
    for path in ("default", "./default", Path("default"), tmp_path / "default"):
        assert Detector.load(path).snapshot.folder == tmp_path / "default"
    with pytest.raises(UsageError, match="cannot name an index"):
        Detector.load("no index")


def test_a_wrong_option_is_an_error_at_once(detector):
    with pytest.raises(TypeError, match="methode"):
        detector.query(png(1), methode="mean")


def test_a_name_that_no_index_has_lists_those_there_are(index, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for load in (Detector.load, Index.open):
        with pytest.raises(IndexNotFound, match=r"no index is called 'mine' in .*detect/index"):
            load("mine")
    for name in ("b", "a"):
        shutil.copytree(index.folder, tmp_path / "index" / name)
    with pytest.raises(IndexNotFound, match="no index is called 'mine' in index") as caught:
        Detector.load("mine")
    assert caught.value.hint == "There are: a, b."


def test_what_is_printed_says_which_index(index, detector):
    said = "<index 'idx', generation 4: 16 real, 16 fake (flux, sdxl), encoder tiny>"
    assert repr(detector) == f"Detector({said})" and repr(index.snapshot()) == said


def test_help_lists_what_can_be_asked():
    for method in (Detector.query, Detector.query_many, Detector.stream, Detector.judge):
        asked = inspect.signature(method).parameters
        shown = {name: p.default for name, p in asked.items() if name in {f.name for f in fields(Question)}}
        assert shown == asdict(Question()) and not any(p.kind is p.VAR_KEYWORD for p in asked.values())


def test_images_of_every_kind_in_one_call(detector, tmp_path):
    (tmp_path / "q.png").write_bytes(png(200))
    given = [tmp_path / "q.png", png(200), picture(200), np.asarray(picture(200)), None]
    answers = detector.query_many(given)
    assert isinstance(answers, Verdicts) and len({answer.score for answer in answers[:4]}) == 1
    assert [answer.to_dict()["input"] for answer in answers] == [
        given[0].as_posix(),
        "[1]",
        "[2]",
        "[3]",
        "[4]",
    ]
    assert answers[4].reason == "not-an-image"
    table = answers.to_arrow()
    assert table["error"].is_valid().to_pylist() == [False] * 4 + [True]
    assert len(detector.query_many(tmp_path / "real")) == 16
    with pytest.raises(UsageError, match="one bytes was given where several images are meant"):
        detector.query_many(png(200))
    with pytest.raises(UsageError, match="query takes one image"):
        detector.query([png(200)])
