"""Whether a verdict outlives what happens to a picture on its way, and what laundered references change.

An index of references as they are is held against one that stores laundered copies beside each
(``--views jpeg,resize``): the same images, references of neither, are judged as they are and after
every chain of ``CHAINS``. Each is asked as a new index is, through all its layers whitened, and by logistic
regression on the same rows of each layer; all are calibrated in the same way.
``python -m bench.accuracy.views`` embeds some 4,400 pictures once, and keeps their vectors in the user's
cache: half an hour on two cores with CLIP, and some minutes from then on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bench._data import Listed, Sample, add_data, embedded, encoders_of, workplace
from bench._frame import (
    Clock,
    about,
    beside,
    by_encoder,
    carry_out,
    command_of,
    markdown_table,
    origin,
    parser_of,
    rounded,
    told,
)
from bench._machine import commit
from retrieval_detect.ask.detector import Detector
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.metrics import auroc
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.teach.again import DEFAULT
from retrieval_detect.teach.calibrate import commit_calibration, fit_calibration
from retrieval_detect.teach.heads import commit_head, training_set
from retrieval_detect.teach.projections import commit_projection, fit_default, fitted_projection
from retrieval_detect.types import Failure
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrieval_detect.images.chains import Chain
    from retrieval_detect.store.store import Store

    Float64 = NDArray[np.float64]
    Bool = NDArray[np.bool_]

CHAINS: Mapping[str, Chain] = {
    **{f"JPEG {q}": (f"jpeg-{q}",) for q in (80, 60, 35)},
    **{f"WebP {q}": (f"webp-{q}",) for q in (80, 55, 30)},
    **{f"AVIF {q}": (f"avif-{q}",) for q in (75, 50, 30)},
    **{f"resize × {p / 100:g}": (f"resize-{p}",) for p in (75, 50, 30)},
    **{f"upscaled × {p / 100:g}": (f"resize-{p}",) for p in (150, 200)},
    "thumbnail upscaled: × 0.4, × 2": ("resize-40", "resize-200"),
    **{f"crop: {p / 10:g} % of each side off": (f"inset-{p}",) for p in (100, 200, 400)},
    **{f"blur σ {t / 10:g}": (f"blur-{t}",) for t in (5, 10, 20)},
    **{f"noise σ {t / 10:g}": (f"noise-{t}-1",) for t in (30, 70, 150)},
    "screenshot × 0.9, JPEG 85": ("screenshot-90-85",),
    "screenshot × 0.6, JPEG 70": ("screenshot-60-70",),
    "screenshot, cut and saved as WebP": ("inset-100", "resize-80", "webp-75"),
    "screenshot of a screenshot": ("screenshot-80-85", "screenshot-80-75"),
    "social: JPEG 85, then 70": ("jpeg-85", "jpeg-70"),
    "social: × 0.75, JPEG 75, WebP 70": ("resize-75", "jpeg-75", "webp-70"),
    "messenger: × 0.6, JPEG 60": ("resize-60", "jpeg-60"),
    "messenger twice": ("resize-80", "jpeg-70", "resize-80", "jpeg-60"),
    "forum: WebP 75, AVIF 55": ("webp-75", "avif-55"),
    "upscaled × 2, JPEG 75": ("resize-200", "jpeg-75"),
    "photographed screen: blur, noise, JPEG 60": ("inset-80", "blur-12", "noise-60-1", "jpeg-60"),
    "meme: five saves": ("jpeg-80", "webp-70", "resize-80", "jpeg-65", "screenshot-90-70"),
}
"""Chain by name → its steps. None of the numbers is one that the stored views are bound to have."""
VIEWS = ("jpeg", "resize")
ASKED, REFERENCES = 30, 100
"""Images a label that are asked about; references of each folder."""
AIM_TURNED, AIM_LOST = 0.02, 0.02
"""At most: decided verdicts turned into their opposite; AUROC lost in the mean over chains."""
ALONE, BESIDE = "as they are", "with views"
"""What an index stores of its references."""
OURS, WHITENED, TRIVIAL = "rd", "rd, all layers whitened", "logistic regression"
ASKED_SO = Question(photographs="known")
"""All are of sources in the index; of new ones nothing could be called fake-like at 5 % by so few sources."""
SHRINKAGE = "0.5"
"""Of all layers whitened, as in ``bench.methods``."""
_RESAMPLES = 2000

Image = TypeVar("Image", bound=Listed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("accuracy.views", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("accuracy-views", options, lambda: rounded(measure(options)), tables, indent=None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What every image was called after every chain; all else follows from it."""
    clock = Clock()
    head = about("accuracy/views", command=command_of("accuracy.views", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    given = embedded(load_encoder(name), data=options.data, images=options.images, say=clock.say)
    known, asked = chosen(given.samples)
    questions = [asked]
    for title, chain in CHAINS.items():
        clock.say(f"asked about: {title}")
        questions.append(given.after(asked, chain))
    copies = []
    for view in VIEWS:
        clock.say(f"references: {view}")
        copies += given.after(known, (view,))
    judged = []
    with workplace() as work:
        for stored, references in ((ALONE, known), (BESIDE, [*known, *copies])):
            clock.say(f"references {stored}")
            store = given.index(work / stored.replace(" ", "-"), references)
            judged += [{"stored": stored, **one} for one in _judged(store, questions)]
    return {
        "encoder": name,
        "fake": [sample.fake for sample in asked],
        "names": [sample.name for sample in asked],
        "chains": {title: "+".join(chain) for title, chain in CHAINS.items()},
        "references": {label: sum(s.facts.label == label for s in known) for label in ("real", "fake")},
        "judged": judged,
    }


def chosen(samples: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """References, and images to ask about: spread over each folder; no image is both."""
    known, asked = [], []
    for label in (False, True):
        names = sorted({s.name for s in samples if s.fake == label})
        for name in names:
            own = [s for s in samples if s.fake == label and s.name == name]
            known += _spread([s for s in own if not s.held], REFERENCES)
            asked += _spread([s for s in own if s.held], ASKED // len(names))
    return known, asked


def _spread(images: Sequence[Image], n: int) -> list[Image]:
    n = min(n, len(images))
    return [images[i * len(images) // n] for i in range(n)]


def _judged(store: Store, questions: Sequence[Sequence[Sample]]) -> Iterator[dict[str, Any]]:
    """By rd and by logistic regression, all calibrated on what the index set aside.

    ``scores`` and ``verdicts`` : of each of ``questions`` a list, an entry an image.
    """
    judges = list(_judges(store))  # all are fitted before any is calibrated, which would be fitted anew
    for title, question in judges:
        commit_calibration(store, fit_calibration(store.snapshot(), question, device="cpu"))
        detector = Detector.load(store.folder, device="cpu")
        scores, verdicts = [], []
        for samples in questions:
            images = [[sample.embedded] for sample in samples]
            found = detector.judge_all(images, detector.checked(question), started=[0.0] * len(images))
            if failed := [one for one in found if isinstance(one, Failure)]:
                raise SystemExit(f"{failed[0].uri}: {failed[0].message}")
            scores.append([one.score for one in found])
            verdicts.append([one.verdict for one in found])
        yield {"by": title, "scores": scores, "verdicts": verdicts}


def _judges(store: Store) -> Iterator[tuple[str, Question]]:
    """Who judges and how it is asked; what a new index gets comes first."""
    fit_default(store, calibrate=False, device="cpu")
    yield OURS, replace(ASKED_SO, projection=DEFAULT)
    layers = store.snapshot().manifest.layers
    for layer in layers:
        head = LinearHead(layer=layer)
        head.fit(training_set(store.snapshot(), head))
        commit_head(store, f"linear-{layer}", head, device="cpu")
        yield f"{TRIVIAL}, {layer}", replace(ASKED_SO, method=f"linear-{layer}")
    whitened = fitted_projection(store.snapshot(), "whiten", layers, options={"shrinkage": SHRINKAGE})
    commit_projection(store, "whitened", whitened, device="cpu")
    yield WHITENED, replace(ASKED_SO, projection="whitened")


# ---------------------------------------------------------------- what became of verdicts


@dataclass(frozen=True, eq=False)
class Outcome:
    """What n images were called as they are (row 0) and after each chain.

    ``scores`` float64 and ``verdicts`` text (1 + chains, n), ``fake`` bool (n,). ``weights``, where they are
    asked for, are float64 (n,): how often an image is counted.
    """

    scores: Float64
    verdicts: NDArray[np.str_]
    fake: Bool

    @cached_property
    def decided(self) -> Bool:
        """Which images have a verdict that has an opposite: bool (n,)."""
        return np.isin(self.verdicts[0], ("fake-like", "real-like"))

    @cached_property
    def turned(self) -> Bool:
        """After which chains that verdict is its opposite: bool (chains, n)."""
        after = np.isin(self.verdicts[1:], ("fake-like", "real-like"))
        return self.decided & after & (self.verdicts[1:] != self.verdicts[0])

    @cached_property
    def changed(self) -> Bool:
        """After which chains the verdict is any other: bool (chains, n)."""
        return self.verdicts[1:] != self.verdicts[0]

    @cached_property
    def wins(self) -> Float64:
        """How often a fake scores above a photograph, ties half: float64 (2, fakes, photographs).

        Of the images as they are, and in the mean over chains.
        """
        margins = self.scores[:, self.fake][:, :, None] - self.scores[:, ~self.fake][:, None]
        above = (np.sign(margins) + 1) / 2
        return np.stack([above[0], above[1:].mean(axis=0)])

    def share_turned(self, weights: Float64) -> float:
        """Of decided verdicts, over all chains; 0 where none is."""
        return float(weights @ self.turned.mean(axis=0) / max(weights @ self.decided, 1.0))

    def turned_of(self, label: bool) -> float:
        """Of the decided verdicts on one label, over all chains; 0 where none is."""
        return self.share_turned((self.fake == label).astype(float))

    def share_changed(self, weights: Float64) -> float:
        """Of all verdicts, over all chains."""
        return float(weights @ self.changed.mean(axis=0) / weights.sum())

    def aurocs(self, weights: Float64) -> Float64:
        """As they are, and in the mean over chains: float64 (2,)."""
        of_fakes, of_photographs = weights[self.fake], weights[~self.fake]
        return (of_fakes @ self.wins @ of_photographs) / (of_fakes.sum() * of_photographs.sum())

    def auroc_after(self) -> Float64:
        """Of each chain: float64 (chains,)."""
        return np.array([auroc(scores, self.fake) for scores in self.scores[1:]])

    def called_fake(self, label: bool) -> tuple[float, float]:
        """Share of one label that is fake-like, as they are and in the mean over chains."""
        called = (self.verdicts == "fake-like")[:, self.fake == label]
        return float(called[0].mean()), float(called[1:].mean())


def outcomes(found: Mapping[str, Any]) -> dict[tuple[str, str], Outcome]:
    """What is stored of the references, and who judged → what became of the verdicts."""
    fake = np.array(found["fake"], bool)
    return {
        (one["stored"], one["by"]): Outcome(np.array(one["scores"]), np.array(one["verdicts"]), fake)
        for one in found["judged"]
    }


def interval(statistic: Callable[[Float64], float], fake: Bool) -> tuple[float, float, float]:
    """A figure and its 95 % interval over the draw of the images, each with all its chains; labels apart."""
    rng = np.random.default_rng(0)
    drawn = np.zeros((_RESAMPLES, len(fake)))
    for label in (False, True):
        n = int((fake == label).sum())
        drawn[:, fake == label] = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    low, high = np.nanquantile([statistic(weights) for weights in drawn], (0.025, 0.975))
    return statistic(np.ones(len(fake))), float(low), float(high)


# ---------------------------------------------------------------- words


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    found = by_encoder(result)
    first = found[0]
    n_fake, n = sum(first["fake"]), len(first["fake"])
    known = " and ".join(f"{n:,} {name}" for name, n in _named(first["references"]))
    parts = [
        f"{told(found)}; {n - n_fake} photographs and {n_fake} fakes of known sources and generators, each "
        f"as it is and after {len(first['chains'])} chains; {known} as references, in one index as they are "
        f"and in the other with {', '.join(VIEWS)} beside each. Pictures of 256 pixels. Verdicts at 5 % "
        f"false alarms among known sources, calibrated on photographs as they are. {origin(result)}.",
        _table(beside(found, _overall)),
        *(_judgement(one) for one in found),
        "AUROC after each chain, and the share of decided verdicts that it turns into their opposite; the "
        "hardest first:",
        _table(beside(found, _by_chain)),
    ]
    return "\n\n".join(parts)


def _named(references: Mapping[str, int]) -> list[tuple[str, int]]:
    return [("photographs", references["real"]), ("fakes", references["fake"])]


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def _overall(found: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    titles = list(found["chains"])
    for (stored, by), outcome in outcomes(found).items():
        lost = interval(lambda w, o=outcome: float(np.diff(o.aurocs(w))[0]), outcome.fake)
        clean, mean = outcome.aurocs(np.ones(len(outcome.fake)))
        after = outcome.auroc_after()
        yield {
            "references": stored,
            "judged by": by,
            "AUROC as they are": f"{clean:.3f}",
            "mean over chains": f"{mean:.3f} ({_signed(lost, 3)})",
            "worst chain": f"{after.min():.3f}, {titles[int(after.argmin())]}",
            "decided": f"{int(outcome.decided.sum())} of {len(outcome.fake)}",
            "turned into the opposite": _percent(interval(outcome.share_turned, outcome.fake)),
            "of photographs, of fakes": _percents(outcome.turned_of(False), outcome.turned_of(True)),
            "changed at all": _percent(interval(outcome.share_changed, outcome.fake)),
            "photographs called fake-like": _then(outcome.called_fake(False)),
            "fakes called fake-like": _then(outcome.called_fake(True)),
        }


def _judgement(found: Mapping[str, Any]) -> str:
    """What views change, and whether what was aimed at is reached."""
    of = outcomes(found)
    lines = []
    for by in (OURS, WHITENED):
        alone, beside_ = of[ALONE, by], of[BESIDE, by]
        everyone = np.ones(len(alone.fake))
        gained = interval(lambda w, a=alone, b=beside_: float(b.aurocs(w)[1] - a.aurocs(w)[1]), alone.fake)
        turned = interval(lambda w, a=alone, b=beside_: b.share_turned(w) - a.share_turned(w), alone.fake)
        lines.append(
            f"- `{found['encoder']}`, {by}: views change AUROC after chains by {_signed(gained, 3)}, "
            f"verdicts turned into their opposite by {_points(turned)}. "
            f"{_by_kind(found, alone.auroc_after(), beside_.auroc_after())}"
        )
        for stored, outcome in ((ALONE, alone), (BESIDE, beside_)):
            share, lost = outcome.share_turned(everyone), -float(np.diff(outcome.aurocs(everyone))[0])
            lines[-1] += (
                f" References {stored}: at most {100 * AIM_TURNED:.0f} % turned is "
                f"{_met(share <= AIM_TURNED)} ({100 * share:.1f} %), at most {AIM_LOST:.2f} of AUROC lost is "
                f"{_met(lost <= AIM_LOST)} ({lost:.3f})."
            )
    return "\n".join(lines)


def _by_kind(found: Mapping[str, Any], alone: Float64, beside_: Float64) -> str:
    """Whether views help against more than what they are."""
    kinds = [{step.partition("-")[0] for step in steps.split("+")} for steps in found["chains"].values()]
    same = np.array([own <= set(VIEWS) for own in kinds])
    told_of = [
        f"the {int(which.sum())} {what} {alone[which].mean():.3f}, with views {beside_[which].mean():.3f}"
        for which, what in ((same, "of these kinds alone"), (~same, "with others in them"))
        if which.any()
    ]
    return f"Mean AUROC over chains: {'; '.join(told_of)}."


def _met(reached: bool) -> str:
    return "reached" if reached else "**not reached**"


def _by_chain(found: Mapping[str, Any]) -> list[dict[str, object]]:
    of = outcomes(found)
    aurocs = {key: outcome.auroc_after() for key, outcome in of.items()}
    ours = [(stored, by) for stored in (ALONE, BESIDE) for by in (OURS, WHITENED)]
    others = [(ALONE, by) for stored, by in of if stored == ALONE and by not in (OURS, WHITENED)]
    rows = [
        {"after": f"{title} (`{steps}`)"}
        | {f"AUROC, {by}, {stored}": f"{aurocs[stored, by][i]:.3f}" for stored, by in (*ours, *others)}
        | {f"turned, {by}, {stored}": _share_of(of[stored, by], i) for stored, by in ours}
        for i, (title, steps) in enumerate(found["chains"].items())
    ]
    return [rows[i] for i in np.argsort(aurocs[ALONE, OURS], kind="stable")]


def _share_of(outcome: Outcome, i: int) -> str:
    decided = max(int(outcome.decided.sum()), 1)
    return f"{100 * outcome.turned[i].sum() / decided:.0f} %"


def _signed(found: tuple[float, float, float], digits: int) -> str:
    value, low, high = (f"{x:+.{digits}f}" for x in found)
    return f"{value} [{low}, {high}]"


def _percent(found: tuple[float, float, float]) -> str:
    value, low, high = (f"{100 * x:.1f}" for x in found)
    return f"{value} % [{low}, {high}]"


def _percents(*shares: float) -> str:
    return ", ".join(f"{100 * share:.1f} %" for share in shares)


def _points(found: tuple[float, float, float]) -> str:
    value, low, high = (f"{100 * x:+.1f}" for x in found)
    return f"{value} points [{low}, {high}]"


def _then(shares: tuple[float, float]) -> str:
    before, after = (f"{100 * share:.0f} %" for share in shares)
    return f"{before} → {after}"


if __name__ == "__main__":
    main()
