"""Changed images on their way through the cache: nothing twice, and nothing mistaken for another."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_detect.encoders.tiny import TinyEncoder
from retrieval_detect.evaluate.cache import Cache, content_ids
from retrieval_detect.evaluate.context import Context, Options
from retrieval_detect.evaluate.datasets import Dataset, Sample
from retrieval_detect.evaluate.robustness import ROBUSTNESS
from retrieval_detect.images.chains import rendered, with_numbers
from retrieval_detect.images.items import from_bytes
from retrieval_detect.images.labelled import pixels
from retrieval_detect.images.perturbations import drawn
from retrieval_detect.verdicts import Question
from tests.factories import png

N = 24


@pytest.fixture
def calls(monkeypatch):
    made = []
    encode = TinyEncoder.encode
    monkeypatch.setattr(TinyEncoder, "encode", lambda s, b, n: (made.append(len(b)), encode(s, b, n))[1])
    return made


@pytest.fixture
def evaluation(tmp_path):
    """Makes an evaluation of pictures of 64 × 64 pixels; all share one folder of embeddings."""
    images = [from_bytes(png(seed), f"{seed}.png") for seed in range(N)]
    identities = content_ids(images)
    dataset = Dataset("made", tuple(Sample(image, "real", "camera") for image in images), ())

    def make(**options):
        cache = Cache(tmp_path / "kept", TinyEncoder().spec, TinyEncoder, ("proj",))
        items = dict(zip(identities, images, strict=True))
        parts = (None, Question(), dataset, cache, items, identities, ("proj",), Options(**options))
        return Context(*parts, tmp_path)

    return make


@pytest.mark.parametrize("unified", [False, True])
def test_settings_that_do_the_same_to_an_image_embed_it_once(evaluation, calls, unified):
    made = evaluation(unified=unified)
    once, _ = made.changed(ROBUSTNESS["JPEG 60"])
    n = sum(calls)
    assert n == 2 * N  # as they are, and changed
    screenshot, _ = made.changed(ROBUSTNESS["screenshot: 768 pixels, JPEG 60"])
    assert sum(calls) == n
    assert np.array_equal(screenshot.vectors["proj"], once.vectors["proj"])
    made.changed(ROBUSTNESS["screenshot: 512 pixels, JPEG 40"])
    assert sum(calls) == n + N
    fresh = evaluation(unified=unified)
    fresh.changed(ROBUSTNESS["JPEG 60"])
    assert sum(calls) == n + N


@pytest.mark.parametrize("step", ["rine-blur", "rine-crop", "rine-compress", "rine-noise", "rine-combined"])
def test_every_image_gets_its_own_numbers_and_half_of_them_none(evaluation, calls, step):
    made = evaluation()
    before, _ = made.changed(())
    after, samples = made.changed((step,))
    assert samples.tolist() == list(range(N))
    changed = np.array([bool(drawn(step, identity)) for identity in made.identities])
    assert 0 < changed.sum() < N and sum(calls) == N + changed.sum()
    moved = np.abs(after.vectors["proj"] - before.vectors["proj"]).max(axis=1)
    assert np.array_equal(moved > 0, changed)
    i = int(np.flatnonzero(changed)[0])
    encoder, rgb = TinyEncoder(), pixels(made.items[made.identities[i]])
    square = encoder.prepare(rendered(rgb, with_numbers((step,), made.identities[i], rgb.shape[1::-1])))
    alone = encoder.encode(square[None], ["proj"])["proj"][0]
    # Kept vectors are rounded to float16.
    assert np.allclose(after.vectors["proj"][i], alone, rtol=2e-3, atol=2e-3 * np.abs(alone).max())


def test_a_part_of_the_images_can_be_asked_for(evaluation, calls):
    made = evaluation()
    only = frozenset(made.identities[3:8])
    found, samples = made.changed(("jpeg-30",), only=only)
    assert samples.tolist() == [3, 4, 5, 6, 7] and sum(calls) == N + 5
    assert found.content_ids.tolist() == made.identities[3:8]
