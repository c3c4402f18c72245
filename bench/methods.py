"""Every projection, vote and head in one nested table: ``python -m bench.methods``.

Embeds each image once; README.md says what the protocol is. About half an hour on two idle cores.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._contest import Contest, Entry, VoteEntry, entries, layers_of
from bench._data import add_data, embedded, encoders_of, workplace
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
from bench._nested import INNER_N, OUTER_N, SEEDS, Fold, World, inner_folds, outer_folds, thinned
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.metrics import auroc, average_precision, calibration_metrics, tpr_at_fpr
from retrieval_detect.evaluate.shortcuts import logistic
from retrieval_detect.scoring.likelihood import fit_likelihood_ratio

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

CHOSEN, CHOSEN_OF_ALL = (
    "chosen by the inner folds, of what may be the default",
    "chosen by the inner folds, of all",
)
PIXELS = "trivial pixel statistics"
_COLUMNS = {
    **{f"AUC at n = {n}" if not n else f"{n}": ("auc", n) for n in OUTER_N},
    **{f"recall {n}" if not n else f"{n} ": ("recall", n) for n in OUTER_N},
    "AP 20": ("ap", 20),
    "Cllr 20": ("cllr", 20),
    "ECE 20": ("ece", 20),
    "AUC 20, unseen source": ("auc_unseen_source", 20),
    "recall 20 as calibrated": ("recall_calibrated", 20),
    "flagged, known sources": ("flagged_known", 20),
    "flagged, unseen source": ("flagged_unseen", 20),
    "known generators 20": ("recall_known", 20),
    "fakes above 0, 5": ("fakes_above", 5),
    "photographs above 0, 5": ("photographs_above", 5),
}
"""Head of a column → measure and number of references; a blank keeps two heads apart."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("methods", __doc__)
    add_data(parser)
    parser.add_argument(
        "--entries", default="", metavar="REGEX", help="Only entries whose names it is found in."
    )
    parser.add_argument("--seeds", type=int, help=f"Draws of sources and references (default: {len(SEEDS)}).")
    parser.add_argument(
        "--references", type=int, metavar="N", help="A fold knows N of each label, drawn: small indexes."
    )
    options = parser.parse_args(arguments)
    carry_out("methods", options, lambda: rounded(measure(options)), tables, indent=None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run; one seed where it is only tried."""
    clock = Clock()
    head = about("methods", command=command_of("methods", options), git_commit=commit())
    found = [_measured(name, options, clock) for name in encoders_of(options)]
    return {**head, "encoders": found, "elapsed_s": clock.elapsed_s}


def _measured(name: str, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    encoder = load_encoder(name)
    layers = layers_of(encoder.spec.layers)
    given = embedded(encoder, layers, data=options.data, images=options.images, say=clock.say)
    statistics = given.statistics()
    with workplace() as work:
        world = World.of(given, work)
    pixels = np.stack([statistics[identity] for identity in world.rows.content_ids])
    taking_part = [e for e in entries(encoder.spec.layers) if re.search(options.entries, e.name)]
    seeds = SEEDS[: 1 if options.images else options.seeds or len(SEEDS)]
    folds, few = list(outer_folds(world, seeds)), options.references
    outer, inner, seconds = [], [], defaultdict(float)
    for number, fold in enumerate(folds):
        clock.say(
            f"fold {number + 1} of {len(folds)}: without {fold.family} and {fold.source}, seed {fold.seed}"
        )
        outer += _judged(world, thinned(world, fold, few), taking_part, pixels, seconds)
        inside = [thinned(world, each, few) for each in inner_folds(world, fold)]
        inner += _inner(world, fold, inside, taking_part, seconds)
    return {
        "encoder": name,
        "layers": list(given.layers),
        "folds": [
            {"family": f.family, "source": f.source, "seed": f.seed, "queries": int(f.queries.sum())}
            for f in folds
        ],
        "eligible": [entry.name for entry in taking_part if entry.eligible],
        "outer": outer,
        "inner": inner,
        "seconds": dict(seconds),
    }


# ---------------------------------------------------------------- folds


def _judged(
    world: World, fold: Fold, taking_part: Sequence[Entry], pixels: Any, seconds: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Each entry in one outer fold, by how many images of the family are known."""
    contest = Contest(world, fold)
    fake = world.rows.fake[fold.queries]
    unseen = fold.unseen[fold.queries]
    for n in OUTER_N:
        references = fold.taught(n)
        for entry in taking_part:
            started = time.perf_counter()
            scores = contest.scores(entry, references, fold.queries | fold.calib)
            seconds[entry.name] += time.perf_counter() - started
            asked = fold.queries[fold.queries | fold.calib]
            quality = _quality(scores[asked], fake, unseen)
            known, known_fake = scores[~asked], world.rows.fake[fold.calib]
            quality |= _flagged(scores[asked], fake, unseen, known, known_fake)
            ratio = fit_likelihood_ratio(known[known_fake], known[~known_fake])(scores[asked])
            stated = calibration_metrics(ratio, fake)
            quality |= {"cllr": stated["cllr"], "ece": stated["ece"]}
            yield {"fold": _key(fold), "n": n, "entry": entry.name, **quality}
        trivial = logistic(pixels[references], world.rows.fake[references], pixels[fold.queries])
        yield {"fold": _key(fold), "n": n, "entry": PIXELS, **_quality(trivial, fake, unseen)}


def _inner(
    world: World,
    outer: Fold,
    inside: Sequence[Fold],
    taking_part: Sequence[Entry],
    seconds: dict[str, float],
) -> Iterator[dict[str, Any]]:
    """Mean AUC of each entry over the inner folds and the numbers known: what choices are made by."""
    found: dict[str, list[float]] = defaultdict(list)
    for fold in inside:
        contest = Contest(world, fold)
        fake = world.rows.fake[fold.queries]
        for n in INNER_N:
            references = fold.taught(n)
            for entry in taking_part:
                if isinstance(entry, VoteEntry) or entry.inner:
                    started = time.perf_counter()
                    scores = contest.scores(entry, references, fold.queries)
                    seconds[entry.name] += time.perf_counter() - started
                    found[entry.name].append(auroc(scores, fake))
    for name, values in found.items():
        yield {"fold": _key(outer), "entry": name, "auc": float(np.mean(values))}


def _key(fold: Fold) -> str:
    return f"{fold.family} / {fold.source} / {fold.seed}"


def _flagged(scores: Scores, fake: Any, unseen: Any, known: Scores, known_fake: Any) -> dict[str, float]:
    """Shares above the threshold that 5 % of the photographs set aside, all of known sources, exceed."""
    threshold = np.quantile(known[~known_fake], 0.95)
    parts = {
        "recall_calibrated": scores[fake],
        "flagged_known": scores[~fake & ~unseen],
        "flagged_unseen": scores[unseen],
        "recall_known": known[known_fake],
    }
    return {name: float((part > threshold).mean()) for name, part in parts.items() if len(part)}


def _quality(scores: Scores, fake: Any, unseen: Any) -> dict[str, float]:
    alone = fake | unseen
    return {
        "fakes_above": float((scores[fake] > 0).mean()),
        "photographs_above": float((scores[~fake] > 0).mean()),
        "auc": auroc(scores, fake),
        "auc_unseen_source": auroc(scores[alone], fake[alone]),
        "ap": average_precision(scores, fake),
        "recall": tpr_at_fpr(scores, fake, fpr=0.05),
    }


# ---------------------------------------------------------------- choosing and tables


def chosen(result: Mapping[str, Any], *, eligible: bool) -> dict[str, str]:
    """Outer fold → the entry that its inner folds prefer: mean AUC over inner folds and numbers known."""
    allowed = set(result["eligible"]) if eligible else {row["entry"] for row in result["inner"]}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in result["inner"]:
        if row["entry"] in allowed:
            found[row["fold"]][row["entry"]].append(row["auc"])
    return {fold: max(by, key=lambda name: float(np.mean(by[name]))) for fold, by in found.items()}


def overall_choice(result: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Entries by their mean inner AUC over all folds, best first: how the default was chosen."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in result["inner"]:
        found[row["entry"]].append(row["auc"])
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return sorted(means.items(), key=lambda pair: -pair[1])


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown, best inner AUC first."""
    found = by_encoder(result)
    rows = beside(found, _rows)
    folds = " and ".join(dict.fromkeys(str(len(one["folds"])) for one in found))
    head = f"{told(found)}; {origin(result)}. {folds} outer folds."
    shown = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    lines = [[row[name] for name in shown] for row in rows]
    return f"{head}\n\n{markdown_table([name.strip() for name in shown], lines)}"


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    inner = dict(overall_choice(found))
    best, best_of_all = chosen(found, eligible=True), chosen(found, eligible=False)
    by_name: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in found["outer"]:
        names = [row["entry"]]
        names += [CHOSEN] * (best.get(row["fold"]) == row["entry"])
        names += [CHOSEN_OF_ALL] * (best_of_all.get(row["fold"]) == row["entry"])
        for name in names:
            by_name[name][row["n"]].append(row)
    for name in sorted(by_name, key=lambda n: (n not in (CHOSEN, CHOSEN_OF_ALL), -inner.get(n, 0))):
        auc = "-" if name not in inner else f"{inner[name]:.3f}"
        measured = {head: _mean(by_name[name][n], what) for head, (what, n) in _COLUMNS.items()}
        worst = {"flagged, worst source": _worst(by_name[name][20])}
        yield {"method": name, "inner AUC": auc} | measured | worst


def _mean(rows: Sequence[Mapping[str, Any]], what: str) -> str:
    values = [row[what] for row in rows if what in row]
    return f"{np.mean(values):.2f}".lstrip("0") if values else "-"


def _worst(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the sources held out, the largest share of photographs flagged, mean over its folds."""
    by_source = defaultdict(list)
    for row in rows:
        if "flagged_unseen" in row:
            by_source[row["fold"].split(" / ")[1]].append(row["flagged_unseen"])
    return f"{max(map(np.mean, by_source.values())):.2f}".lstrip("0") if by_source else "-"


if __name__ == "__main__":
    main()
