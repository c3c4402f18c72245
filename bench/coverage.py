"""Nothing comparable in the bank: what share of a new source is found, and what that costs in recall.

``python -m bench.coverage``. Every source, and every generator, in turn is in no bank, and its images are
asked about; three minutes on two idle cores once images are embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bench._data import Embeddings, Sample, add_data, embedded, encoders_of, workplace
from bench._frame import (
    Clock,
    about,
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
from retrieval_detect.ask.detector import Detector
from retrieval_detect.ask.methods import asked_about
from retrieval_detect.ask.rows import score_rows
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.scoring.conformal import ALPHA, at_least
from retrieval_detect.scoring.coverage import NEAREST, UNCOVERED, Coverage
from retrieval_detect.store.schema import grouping_layer
from retrieval_detect.teach.apart import CLOSE, generators_apart
from retrieval_detect.teach.coverage import nearest_mean
from retrieval_detect.teach.projections import fit_default
from retrieval_detect.types import LABELS
from retrieval_detect.vectors import Rows, unit
from retrieval_detect.verdicts import Question

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from retrieval_detect.types import Bool, Float32, Float64

    Measure: TypeAlias = Callable[[Float32, Float32], Float64]

SHARES = (0.01, 0.02, UNCOVERED, 0.1, 0.2)
"""Of the photographs left out, below which the threshold may lie."""
SPACES = ("as stored", "less the mean")
_AT_MOST = 100
_BACK = (0, 5, 15, 30)
"""Photographs of a subject that was left out, laid back."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("coverage", __doc__)
    add_data(parser)
    options = parser.parse_args(arguments)
    carry_out("coverage", options, lambda: rounded(measure(options)), tables, indent=None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("coverage", command=command_of("coverage", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    given = embedded(load_encoder(name), data=options.data, images=options.images, say=clock.say)
    rows = []
    with workplace() as work:
        for label in ("real", "fake"):
            for left_out in sorted({s.name for s in given.samples if s.facts.label == label}):
                clock.say(f"without {left_out}")
                trial = _Trial.of(given, work / left_out, left_out)
                rows += [{"left_out": left_out, "label": label, **row} for row in trial.rows()]
    layer = grouping_layer(given.layers)
    return {"encoder": name, "layer": layer, "rows": rows, "apart": list(_apart(given, layer))}


def _apart(given: Embeddings, layer: str) -> Iterator[dict[str, Any]]:
    """How close photographs are to each generator's images, without those of a subject, and with some."""
    references = [s for s in given.samples if not s.held]
    names = np.array([s.name for s in references])
    rows = Rows.of(
        vectors={layer: unit(np.stack([s.embedded.vectors[layer] for s in references]))},
        norms={},
        fake=np.array([s.fake for s in references]),
        names=names,
    )
    draw = np.random.default_rng(0).permutation(len(rows))
    for subject, folders in {"": (), **CATEGORIES}.items():
        of_subject = draw[np.isin(names, folders)[draw] & ~rows.fake[draw]]
        rest = rows.fake | ~np.isin(names, folders)
        for n in _BACK if subject else (0,):
            kept = rest.copy()
            kept[of_subject[:n]] = True
            found = generators_apart(rows.take(kept), layer, close=np.inf)
            yield {
                "subject": subject,
                "photographs": n,
                "closeness": {one.generator: one.closeness for one in found},
            }


@dataclass(frozen=True, eq=False)
class _Trial:
    """An index without one name, and the images that are in no index, with all of that name.

    ``flagged`` : whose score is as rare as ``ALPHA`` among the photographs set aside.
    """

    left_out: str
    references: list[Sample]
    asked: list[Sample]
    flagged: Bool
    layer: str

    @classmethod
    def of(cls, given: Embeddings, folder: Path, left_out: str) -> _Trial:
        references = [s for s in given.samples if not s.held and s.name != left_out]
        asked = [s for s in given.samples if s.held or s.name == left_out]
        store = given.index(folder, references)
        fit_default(store, calibrate=False, device="cpu")
        detector = Detector(store.snapshot(), device="cpu")
        question = detector.methods.checked(Question())
        aside = score_rows(store.snapshot(), question, judge=detector.methods)
        photographs = np.sort(aside.scores[~aside.fake])
        block = asked_about([s.embedded for s in asked], detector.methods.layers(question))
        scores = detector.methods.ask(block, question).scores
        layer = grouping_layer(given.layers)
        return cls(left_out, references, asked, at_least(photographs, scores) <= ALPHA, layer)

    def rows(self) -> Iterator[dict[str, Any]]:
        """For either space and each share: the threshold, and what is below it, by name."""
        known = [s for s in self.references if not s.fake]
        bank, names = self._vectors(known), np.array([s.name for s in known])
        x, asked = self._vectors(self.asked), np.array([s.name for s in self.asked])
        for space in SPACES:
            left_out = {}
            for name in sorted(set(names.tolist())):
                mine = bank[names == name]
                left_out[name] = np.sort(
                    _similar(space, mine[:: -(-len(mine) // _AT_MOST)], bank[names != name])
                )
            near = _similar(space, x, bank)
            for share in SHARES:
                threshold = Coverage.of(self.layer, left_out, share=share).threshold
                below = near < threshold
                yield {
                    "space": space,
                    "share": share,
                    "threshold": threshold,
                    "names": {str(n): self._counted(asked == n, below) for n in np.unique(asked)},
                }

    def _counted(self, mine: Bool, below: Bool) -> dict[str, int]:
        flagged = self.flagged & mine
        found = {"images": mine, "uncovered": mine & below, "flagged": flagged, "kept": flagged & ~below}
        return {name: int(which.sum()) for name, which in found.items()}

    def _vectors(self, samples: Sequence[Sample]) -> Float32:
        return unit(np.stack([s.embedded.vectors[self.layer] for s in samples]))


def _similar(space: str, asked: Float32, bank: Float32) -> Float64:
    """As rd measures it, and less the mean of the bank."""
    if space == "less the mean":
        mean = bank.mean(axis=0)
        asked, bank = unit(asked - mean), unit(bank - mean)
    return nearest_mean(asked @ bank.T, NEAREST)


# ---------------------------------------------------------------- what is shown


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    parts = []
    for one in by_encoder(result):
        parts += [
            f"{told([one])}, layer `{one['layer']}`; {origin(result)}.",
            f"**Each source left out**, threshold at the {100 * UNCOVERED:.0f}th percentile of the other "
            "sources' photographs left out in turn, without the strangest. Flagged: a score "
            f"as rare as {100 * ALPHA:.0f} % among photographs set aside. The last column: uncovered by "
            "vectors less the mean of the bank, which were tried first:",
            markdown_table(*_by_source(one["rows"])),
            "**What it finds and what it costs**, by the percentile. New: means over sources, or generators, "
            "left out; known: images in no bank of names that are, over the same indexes:",
            markdown_table(*_curve(one["rows"])),
            "**Generators without photographs of what they show.** How much nearer the nearest photographs "
            "are than any, as a share of how much nearer a generator's images are to one another; listed "
            f"below {CLOSE}. Photographs of a subject left out, and some of them laid back:",
            markdown_table(*_closeness(one["apart"])),
        ]
    return "\n\n".join(parts)


def _by_source(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    head = ["source left out", "photographs", "uncovered", "flagged", "flagged and covered", "less the mean"]
    of = {(row["space"], row["left_out"]): row for row in rows if row["share"] == UNCOVERED}
    body = []
    for name in dict.fromkeys(row["left_out"] for row in rows if row["label"] == "real"):
        own, centred = (of[space, name]["names"][name] for space in SPACES)
        shares = [own["uncovered"], own["flagged"], own["kept"], centred["uncovered"]]
        body.append([name, own["images"], *(_percent(n / own["images"]) for n in shares)])
    return head, sorted(body, key=lambda row: -float(str(row[2]).split()[0]))


def _curve(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    head = ["vectors", "percentile", "new sources uncovered", "flagged", "worst", "known sources uncovered"]
    head += ["recall of known generators", "of new generators"]
    body = [["–", "none", *_what(rows, SPACES[0], UNCOVERED, "flagged")]]
    body += [
        [space, f"{100 * share:.0f} %", *_what(rows, space, share, "kept")]
        for space in SPACES
        for share in SHARES
    ]
    return head, body


def _what(rows: Sequence[Mapping[str, Any]], space: str, share: float, counted: str) -> list[str]:
    """What is uncovered and what is called, with coverage (``kept``) or without (``flagged``)."""
    chosen = [row for row in rows if (row["space"], row["share"]) == (space, share)]
    sources = [row for row in chosen if row["label"] == "real"]
    generators = {row["left_out"] for row in chosen if row["label"] == "fake"}
    own, new = ([row["names"][row["left_out"]] for row in chosen if row["label"] == of] for of in LABELS)
    fakes, photographs = (
        [
            counts
            for row in sources
            for name, counts in row["names"].items()
            if name != row["left_out"] and (name in generators) == wanted
        ]
        for wanted in (True, False)
    )
    shares = [
        _mean(own, "uncovered"),
        _mean(own, counted),
        max(counts[counted] / counts["images"] for counts in own),
        _mean(photographs, "uncovered"),
        _mean(fakes, counted),
        _mean(new, counted),
    ]
    if counted == "flagged":  # without coverage, all is covered
        shares[0] = shares[3] = 0.0
    return [_percent(value) for value in shares]


def _closeness(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    generators = sorted(rows[0]["closeness"])
    body = []
    for row in rows:
        what = f"no {row['subject']}" if row["subject"] else "all there"
        what += f" but {row['photographs']}" * bool(row["photographs"])
        body.append([what, *(f"{row['closeness'][name]:.2f}" for name in generators)])
    return ["photographs", *generators], body


def _mean(counts: Sequence[Mapping[str, int]], what: str) -> float:
    return float(np.mean([n[what] / n["images"] for n in counts]))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.1 else f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
