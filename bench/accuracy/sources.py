"""What a handful of authentic photographs teaches about a source that the index does not know.

``python -m bench.accuracy.sources``. Each source in turn is left out; 0 to 30 of its photographs are then
laid beside the image for the question alone (rd query --beside), or added to the index, which is fitted anew
(rd bank add); its other photographs are asked about. Embeds nothing that is in the user's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._data import ORDER, Embeddings, Sample, add_data, embedded, encoders_of, workplace
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
from bench.accuracy._common import CATEGORIES
from retrieval_detect.ask.beside import Beside, Lot, scenes_of
from retrieval_detect.ask.methods import Methods, asked_about
from retrieval_detect.ask.rows import score_rows
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.heads.linear import LinearHead
from retrieval_detect.scoring.answers import PValues, answer
from retrieval_detect.scoring.calibration import Calibration
from retrieval_detect.scoring.conformal import at_least, at_most
from retrieval_detect.scoring.likelihood import fit_likelihood_ratio
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.store.training import load_training_set
from retrieval_detect.teach.calibrate import commit_calibration
from retrieval_detect.teach.projections import fit_default
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    import argparse

    from retrieval_detect.scoring.answers import Answer
    from retrieval_detect.types import Embedded, Float64

NUMBERS = (0, 3, 5, 10, 15, 30)
DRAWS = 3
RATE = 0.05
_EACH = 20
"""Fakes of each generator that are asked about."""
_KNOWN = Question(photographs="known", fpr=RATE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("accuracy.sources", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("accuracy-sources", options, lambda: rounded(measure(options)), tables)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("accuracy/sources", command=command_of("accuracy.sources", options), git_commit=commit())
    found = []
    for name in encoders_of(options):
        given = embedded(load_encoder(name), data=options.data, images=options.images, say=clock.say)
        sources = sorted({s.name for s in given.samples if not s.fake})
        rows = [
            row
            for number, source in enumerate(sources)
            for row in _measured(_Case(given, source, ORDER[number % len(ORDER)]), clock)
        ]
        found.append({"encoder": name, "rows": rows})
    return {**head, "rate": RATE, "draws": DRAWS, "encoders": found, "elapsed_s": clock.elapsed_s}


@dataclass(frozen=True)
class _Case:
    """A source left out; ``unknown`` : the generator left out besides, where new ones are asked about."""

    given: Embeddings
    source: str
    unknown: str

    def references(self, *, without: str = "") -> list[Sample]:
        return [s for s in self.given.samples if not s.held and s.name not in (self.source, without)]

    def held(self, *names: str) -> list[Embedded]:
        """The first few that are only asked about, of each of ``names``."""
        return [
            s.embedded
            for name in names
            for s in [s for s in self.given.samples if s.held and s.name == name][:_EACH]
        ]

    @cached_property
    def photographs(self) -> list[Embedded]:
        """All of the source that are only asked about."""
        return [s.embedded for s in self.given.samples if s.held and s.name == self.source]

    @cached_property
    def generators(self) -> list[str]:
        return sorted({s.name for s in self.given.samples if s.fake})

    @cached_property
    def same_subject(self) -> list[str]:
        """Generators of the very subject that the source shows, if there is one."""
        subject = next((names for names in CATEGORIES.values() if self.source in names), ())
        return [name for name in self.generators if name in subject]

    def drawn(self, n: int, draw: int) -> list[Sample]:
        """``n`` photographs of the source."""
        pool = [s for s in self.given.samples if s.name == self.source and not s.held]
        return [pool[i] for i in np.random.default_rng(draw).permutation(len(pool))[:n]]

    @property
    def asked(self) -> dict[str, list[Embedded]]:
        """Who is asked about, by what they are."""
        groups = {"photographs": self.photographs, "known": self.held(*self.generators)}
        return groups | ({"same subject": self.held(*self.same_subject)} if self.same_subject else {})


def _measured(case: _Case, clock: Clock) -> Iterator[dict[str, Any]]:
    clock.say(f"without {case.source}")
    with workplace() as work:
        laid = _BesideIndex(case, work / "known", case.references(), case.asked)
        new = _BesideIndex(
            case,
            work / "new",
            case.references(without=case.unknown),
            {"unknown": case.held(case.unknown)},
        )
        for n in NUMBERS:
            ways: dict[str, list[dict[str, float]]] = {"beside": [], "added": [], "regression": []}
            for draw in range(DRAWS if n else 1):
                pictures = case.drawn(n, draw)
                ways["beside"].append(laid.with_pictures(pictures) | new.with_pictures(pictures))
                added, regression = _added(case, work / f"{n}-{draw}", pictures)
                ways["added"].append(added)
                ways["regression"].append(regression)
            clock.say(f"  {n} photographs of it")
            means = {way: _mean(found) for way, found in ways.items()}
            yield {"source": case.source, "unknown": case.unknown, "n": n, **means}


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


class _BesideIndex:
    """A calibrated index, asked with pictures beside."""

    def __init__(
        self, case: _Case, folder: Path, references: Sequence[Sample], asked: Mapping[str, Sequence[Embedded]]
    ) -> None:
        store = case.given.index(folder, references)
        fit_default(store, device="cpu")
        commit_calibration(store, _of_known(Methods(store.snapshot(), device="cpu")))
        self._methods = Methods(store.snapshot(), device="cpu")
        self._question = self._methods.checked(_KNOWN)
        self._asked = asked
        self._without = {key: self._judged(images) for key, images in asked.items()}

    def _judged(self, images: Sequence[Embedded]) -> list[Answer]:
        calibration = self._methods.calibration(self._question)
        assert calibration is not None
        answers = self._methods.ask(self._as_block(images), self._question)
        traits = {"format": [i.format for i in images], "size": [""] * len(images)}
        return list(
            calibration.judge(
                answers.scores,
                answers.typical,
                self._question,
                traits=traits,
                covered=np.ones(len(images), bool),
            ).answers
        )

    def _as_block(self, images: Sequence[Embedded]) -> Any:
        return asked_about(images, self._methods.layers(self._question))

    def with_pictures(self, pictures: Sequence[Sample]) -> dict[str, float]:
        """What share of each of ``asked`` is called fake-like, 0…1, and how many scenes the pictures show."""
        if not pictures:
            shares = {k: [a.verdict == "fake-like" for a in said] for k, said in self._without.items()}
            return {"scenes": 0.0} | {key: float(np.mean(calls)) for key, calls in shares.items()}
        usable = Beside(self._methods, self._question, [s.embedded for s in pictures]).pictures
        scenes = scenes_of(usable, grouping_layer(self._methods.snapshot.manifest.layers))
        calibration = self._methods.calibration(self._question)
        assert calibration is not None
        lot = Lot(self._methods, self._question, calibration, usable, scenes)
        found = {"scenes": float(scenes.max() + 1)}
        for key, images in self._asked.items():
            block = self._as_block(images)
            said = lot.ask(block, [i.format for i in images], [(i.width, i.height) for i in images])
            calls = [
                lot.answer(said, i, known, block.take(np.array([i])), clears_fakes=False).verdict
                for i, known in enumerate(self._without[key])
            ]
            found[key] = float(np.mean([call == "fake-like" for call in calls]))
        return found


def _of_known(methods: Methods) -> Calibration:
    """Of photographs of known sources alone: leaving each out takes ten fits, and says nothing here."""
    question, snapshot = methods.checked(_KNOWN), methods.snapshot
    rows = score_rows(snapshot, question, judge=methods)
    return Calibration(
        method=question.method,
        k=question.k or 0,
        projection=question.projection or "",
        scorer=methods.scorer(question),
        rows_digest=snapshot.rows_digest(),
        conformal=rows.conformal,
        likelihood=fit_likelihood_ratio(rows.scores[rows.fake], rows.scores[~rows.fake]),
        likelihood_method="logistic",
        quality={},
    )


def _added(
    case: _Case, folder: Path, pictures: Sequence[Sample]
) -> tuple[dict[str, float], dict[str, float]]:
    """The same shares once the pictures are references and all is fitted anew; by rd, by regression."""
    store = case.given.index(folder, [*case.references(), *pictures])
    fit_default(store, device="cpu")
    methods = Methods(store.snapshot(), device="cpu")
    question = methods.checked(_KNOWN)
    conformal = score_rows(methods.snapshot, question, judge=methods).conformal
    photographs = np.sort(np.concatenate([*conformal.real.values()]))
    by_rd = {}
    for key, images in case.asked.items():
        answers = methods.ask(asked_about(images, methods.layers(question)), question)
        p_real, p_fake = at_least(photographs, answers.scores), conformal.p_fake(answers.scores)
        p_typical = at_most(conformal.typical, answers.typical)
        values = zip(p_real.tolist(), p_fake.tolist(), p_typical.tolist(), strict=True)
        said = [
            answer(PValues(real, None, fake, usual), alpha=RATE, known=True) for real, fake, usual in values
        ]
        by_rd[key] = float(np.mean([one.verdict == "fake-like" for one in said]))
    return by_rd, _by_regression(case, methods)


def _by_regression(case: _Case, methods: Methods) -> dict[str, float]:
    """Logistic regression on the same references; a threshold on the same photographs set aside."""
    head = LinearHead()
    layers = head.layers or methods.snapshot.manifest.layers
    head = head.fit(load_training_set(methods.snapshot, layers))
    aside = load_training_set(methods.snapshot, layers, split="calib")
    aside = aside.take(~aside.fake)
    photographs = np.sort(head.decision_function({layer: aside.as_encoded(layer) for layer in head.layers}))

    def scores(images: Sequence[Embedded]) -> Float64:
        return head.decision_function(
            {layer: np.stack([i.vectors[layer] for i in images]) for layer in head.layers}
        )

    return {
        key: float(np.mean(at_least(photographs, scores(images)) <= RATE))
        for key, images in case.asked.items()
    }


# ---------------------------------------------------------------- tables


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    found, percent = by_encoder(result), 100 * result["rate"]
    return "\n\n".join(
        [
            f"{told(found)}; {origin(result)}. Mean of {result['draws']} draws; {percent:.0f} % false alarms "
            "asked for; every image judged as if its source were known.",
            "**Photographs of a source that was left out, called fake-like**, by how many others of it are "
            "laid beside the image (for that question alone) or added to the index (which is fitted anew). "
            "Below them: logistic regression trained anew with the same photographs.",
            _table(beside(found, _flagged)),
            "**What that costs in recall**: fakes called fake-like with the same photographs laid beside. "
            "Of known generators; of known generators that show the subject of the source "
            "(Midjourney's shoes, StyleGAN2's faces); of a generator that is not in the index.",
            _table(beside(found, _recall)),
        ]
    )


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


_WAYS = {"beside": "laid beside", "added": "added", "regression": "logistic regression"}
_FAKES = {"known": "known generators", "same subject": "of the same subject", "unknown": "a new generator"}


def _by_number(
    rows: Sequence[Mapping[str, Any]], way: str, key: str, names: Sequence[str]
) -> dict[str, object]:
    """A column for each number of photographs; the mean over ``names``, sources."""
    columns = {}
    for n in NUMBERS:
        own = [row[way][key] for row in rows if row["n"] == n and row["source"] in names and key in row[way]]
        columns[f"{n}"] = f"{100 * np.mean(own):.0f} %" if own else "–"
    return columns


def _sources(found: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["source"] for row in found["rows"]))


def _flagged(found: Mapping[str, Any]) -> list[dict[str, object]]:
    names = _sources(found)
    sets = [*((name, [name]) for name in names), ("mean", names)]
    return [
        {"source left out": name, "its photographs": said} | _by_number(found["rows"], way, "photographs", of)
        for name, of in sets
        for way, said in _WAYS.items()
    ]


def _recall(found: Mapping[str, Any]) -> list[dict[str, object]]:
    names = _sources(found)
    sets = [*((name, [name]) for name in names), ("mean", names)]
    return [
        {"source left out": name, "fakes": said} | _by_number(found["rows"], "beside", key, of)
        for name, of in sets
        for key, said in _FAKES.items()
        if any(key in row["beside"] for row in found["rows"] if row["source"] in of)
    ]


if __name__ == "__main__":
    main()
