"""Can the label be told without looking for traces of generation? Each way to is a ``Shortcut``.

A small model learns the label from facts that have nothing to do with generation and is asked about
images it has not learnt from, groups kept together: once about generators it knows, once about
generators it has never seen. What such a model reaches, no detector may claim for itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from retrieval_detect.evaluate.intervals import Interval, Scored, interval
from retrieval_detect.evaluate.jpeg import SUBSAMPLINGS
from retrieval_detect.evaluate.metrics import auroc
from retrieval_detect.evaluate.pixels import NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.evaluate.material import Material
    from retrieval_detect.types import Bool, Float32, Int64

    Float64: TypeAlias = NDArray[np.float64]

Kind: TypeAlias = Literal["format", "compression", "pixels", "content", "category"]
Level: TypeAlias = Literal["usable", "care", "unusable"]

LIMITS: dict[Kind, tuple[float, float]] = {
    "format": (0.60, 0.75),
    "compression": (0.60, 0.75),
    "pixels": (0.65, 0.90),
    "content": (0.65, 0.90),
    "category": (0.65, 0.90),
}
"""AUC that the lower end of the interval may not reach: for use without care, for use at all. Stricter for
files, which say nothing about generation at all; statistics of pixels are partly its traces."""

LEAST_IMAGES = 20
"""Of each label: with fewer, nothing can be told from chance."""
FOLDS = 5
_RESAMPLES = 400
_NEIGHBOURS = 15
_MOST_CLUSTERS = 60
_PURE = 0.95
_LEAST_CLUSTER = 5


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One way to tell the label. All values are AUC, 0…1, of images the model had not learnt from.

    ``known`` : by the better of the models ``models`` (AUC of each), generators shared between the parts.
    ``unseen`` : the same model asked about generators it had not seen; ``None`` with one generator.
    ``strongest`` : up to three facts that alone tell the most. ``n`` : images.
    """

    kind: Kind
    known: Interval
    unseen: Interval | None
    models: dict[str, float]
    strongest: tuple[tuple[str, float], ...]
    n: int

    @property
    def level(self) -> Level:
        """What this alone makes of the set."""
        care, bad = LIMITS[self.kind]
        if self.known.low >= bad:
            return "unusable"
        return "care" if self.known.low >= care or self.unclear else "usable"

    @property
    def unclear(self) -> bool:
        """Whether there are too few images to rule out that the label can be told."""
        care, bad = LIMITS[self.kind]
        return self.known.low < care and not self.known.high < bad


@dataclass(frozen=True, slots=True)
class Clusters:
    """k-means of the encoder's vectors. ``one_label`` : share of the images in clusters of five or more of
    which 95 % have one label. ``layer`` : what was clustered.
    """

    n: int
    one_label: float
    layer: str


# ---------------------------------------------------------------- facts


def format_facts(material: Material) -> tuple[Float64, tuple[str, ...]]:
    """What is known without a pixel: (n, d) and the names of the columns.

    If every image was read, of the files too; else what a store knows.
    """
    width, height = material.sizes.T.astype(np.float64)
    columns = {
        "width": np.log(width),
        "height": np.log(height),
        "aspect": np.log(width / height),
        **{f"is {name}": material.formats == name for name in np.unique(material.formats)},
    }
    if material.read.all():
        columns |= _file_facts(material, width * height)
    return np.stack([np.asarray(c, np.float64) for c in columns.values()], axis=1), tuple(columns)


def _file_facts(material: Material, n_pixels: Float64) -> dict[str, Any]:
    looks = [look for look in material.looks if look is not None]
    jpegs = [look.jpeg for look in looks]
    return {
        "bytes per pixel": np.log([look.n_bytes for look in looks] / n_pixels),
        "EXIF": [look.exif for look in looks],
        "colour profile": [look.profile for look in looks],
        "JPEG quality": [jpeg.quality if jpeg else 0.0 for jpeg in jpegs],
        "progressive JPEG": [bool(jpeg and jpeg.progressive) for jpeg in jpegs],
        **{
            f"sampling {name}": [bool(jpeg and jpeg.subsampling == number) for jpeg in jpegs]
            for number, name in SUBSAMPLINGS.items()
        },
    }


def pixel_facts(material: Material) -> tuple[Float64, tuple[str, ...]]:
    """The eighteen statistics of ``pixels``."""
    return np.stack([look.statistics for look in material.looks if look]).astype(np.float64), NAMES


def compression_facts(material: Material) -> tuple[Float64, tuple[str, ...]]:
    """The trace of an earlier compression, see ``jpeg.comb``."""
    return np.array([[np.sqrt(look.comb)] for look in material.looks if look]), ("trace",)


# ---------------------------------------------------------------- models


Model: TypeAlias = "Callable[[Float64, Bool, Float64], Float64]"
"""Facts and labels to learn from, facts asked about → scores, positive = fake."""


def logistic(x: Float32 | Float64, fake: Bool, asked: Float32 | Float64) -> Float64:
    """Logistic regression of standardised coordinates, both labels weighing alike."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores: Float64 = model.fit(x, fake).decision_function(asked)
    return scores.astype(np.float64)


def _nearest(x: Float64, fake: Bool, asked: Float64) -> Float64:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), KNeighborsClassifier(min(_NEIGHBOURS, len(x)), algorithm="brute"))
    scores: Float64 = model.fit(x, fake).predict_proba(asked)[:, 1]
    return scores


def _shares(x: Float64, fake: Bool, asked: Float64) -> Float64:
    """Log odds of a fake in each value of the one column, Laplace's rule for those not seen."""
    values, numbers = np.unique(np.r_[x[:, 0], asked[:, 0]], return_inverse=True)
    counts = [
        np.bincount(numbers[: len(x)][fake == label], minlength=len(values)) + 1.0 for label in (False, True)
    ]
    odds: Float64 = np.log(counts[1] / fake.sum()) - np.log(counts[0] / (~fake).sum())
    return odds[numbers[len(x) :]]


MODELS: dict[str, Model] = {"logistic": logistic, "k-NN": _nearest}
SHARES: dict[str, Model] = {"shares": _shares}


def shortcut(
    kind: Kind,
    material: Material,
    facts: tuple[Float64, Sequence[str]],
    *,
    models: dict[str, Model] = MODELS,
) -> Shortcut:
    """How well ``facts``, (n, d) with the names of their columns, tell the label of ``material``."""
    x, names = facts
    fake = material.fake
    parts = group_folds(fake, material.groups)
    scores = {name: out_of_fold(model, x, fake, parts) for name, model in models.items()}
    values = {name: auroc(found, fake) for name, found in scores.items()}
    best = max(values, key=lambda name: values[name])
    by_generator = generator_folds(material)
    return Shortcut(
        kind,
        _interval(scores[best], material),
        _interval(out_of_fold(models[best], x, fake, by_generator), material)
        if by_generator is not None
        else None,
        values,
        _strongest(x, names, fake) if len(names) > 1 else (),
        len(fake),
    )


def _interval(scores: Float64, material: Material) -> Interval:
    scored = Scored(scores, material.fake, material.groups, material.names)
    return interval(auroc, scored, resamples=_RESAMPLES)


def _strongest(x: Float64, names: Sequence[str], fake: Bool) -> tuple[tuple[str, float], ...]:
    alone = {name: auroc(column, fake) for name, column in zip(names, x.T, strict=True)}
    either_way = {name: max(value, 1 - value) for name, value in alone.items()}
    return tuple(sorted(either_way.items(), key=lambda entry: -entry[1])[:3])


# ---------------------------------------------------------------- parts


def group_folds(fake: Bool, groups: Int64) -> Int64:
    """Part of each image, int64 (n,), 0…4: groups whole, labels spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.empty(len(fake), np.int64)
    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(fake, fake, groups)
    with warnings.catch_warnings():  # of a label with fewer images than parts, which some of them then lack
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for number, (_, asked) in enumerate(split):
            folds[asked] = number
    return folds


def generator_folds(material: Material) -> Int64 | None:
    """Part of each image such that no generator is in two, or ``None`` if there is but one.

    Photographs are spread evenly by group: what is unseen is the generator.
    """
    fakes = material.names[material.fake]
    generators = np.unique(fakes)
    n = min(len(generators), 2 * FOLDS)
    if n < 2:
        return None
    folds = np.empty(len(material), np.int64)
    folds[material.fake] = np.searchsorted(generators, fakes) % n
    photographs = np.unique(material.groups[~material.fake], return_inverse=True)[1]
    folds[~material.fake] = np.random.default_rng(0).permutation(photographs.max() + 1)[photographs] % n
    return folds


def out_of_fold(model: Model, x: Float64, fake: Bool, folds: Int64) -> Float64:
    """Scores float64 (n,), each by a model that has learnt from the other parts."""
    scores = np.empty(len(fake))
    for fold in np.unique(folds):
        here = folds == fold
        scores[here] = model(x[~here], fake[~here], x[here])
    return scores


# ---------------------------------------------------------------- content


def clustered(material: Material) -> Int64:
    """The k-means cluster of each image by its vector, int64 (n,); the labels play no part."""
    from sklearn.cluster import KMeans

    n_clusters = int(np.clip(np.sqrt(len(material) / 2), 2, _MOST_CLUSTERS))
    found: Int64 = KMeans(n_clusters, n_init=1, random_state=0).fit_predict(material.vectors[material.layer])
    return found.astype(np.int64)


def describe(clusters: Int64, material: Material) -> Clusters:
    """How many clusters there are, and how much of the images lies in those of one label."""
    pure = 0
    numbers, sizes = np.unique(clusters, return_counts=True)
    for number, size in zip(numbers, sizes, strict=True):
        share = material.fake[clusters == number].mean()
        pure += int(size) * (size >= _LEAST_CLUSTER and max(share, 1 - share) >= _PURE)
    return Clusters(len(numbers), pure / len(material), material.layer)


def content_shortcut(material: Material, clusters: Int64) -> Shortcut:
    """How well the subject alone, by cluster, tells the label."""
    return shortcut("content", material, (clusters[:, None].astype(np.float64), ("cluster",)), models=SHARES)


def category_shortcut(material: Material) -> Shortcut:
    """How well the category stated for each image tells the label."""
    codes = np.unique(material.categories, return_inverse=True)[1]
    return shortcut("category", material, (codes[:, None].astype(np.float64), ("category",)), models=SHARES)
