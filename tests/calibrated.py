"""Made-up stores large enough for a fifth of each name to be set aside, and their calibrations."""

from __future__ import annotations

import numpy as np

from retrieval_detect import Detector
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.verdicts import Question
from tests.factories import D, add, digest, embedded, new_store

EACH = 160


def images(prefix, n, *, shift=0.0, along=0):
    """Made-up images about a common mean; ``shift`` moves them ``along`` one axis: a kind of its own."""
    mean = np.full(D, 0.4, np.float32)
    mean[along] += shift
    made = []
    for i in range(n):
        rng = np.random.default_rng(int.from_bytes(digest(f"{prefix}-{i}")[:8], "big"))
        vector = (mean + rng.normal(size=D)).astype(np.float32)
        made.append(embedded(f"{prefix}-{i}", vector=vector))
    return made


def fakes(prefix, n):
    return images(prefix, n, shift=2.5, along=3)


def taught(folder, *, seed=0):
    store = new_store(folder / f"idx{seed}")
    add(store, images(f"{seed}-camera", EACH), "real", "camera")
    add(store, images(f"{seed}-phone", EACH), "real", "phone")
    add(store, fakes(f"{seed}-sdxl", EACH), "fake", "sdxl")
    add(store, fakes(f"{seed}-flux", EACH), "fake", "flux")
    return store


def calibrate(store, **how):
    likelihood = {"likelihood": how.pop("likelihood")} if "likelihood" in how else {}
    fitted = fit_calibration(store.snapshot(), Question(**how), **likelihood)
    return fitted, commit_calibration(store, fitted)


def detector(store):
    return Detector(store.snapshot())
