"""Every projection, vote and head in one nested table: ``python -m bench.methods``.

Embeds each image once; README.md says what the protocol is. About half an hour on two idle cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench._contest import Contest, Entry, VoteEntry, entries
from bench._data import DEFAULT_DATA, load
from bench._frame import Clock, about, carry_out, origin, parser_of, rounded
from bench._index import Origin
from bench._machine import commit
from bench._nested import INNER_N, OUTER_N, SEEDS, Fold, World, inner_folds, merged, outer_folds
from retrieval_detect.encoders.canaries import canary_vectors
from retrieval_detect.encoders.registry import OFFLINE_ENCODER, load_encoder
from retrieval_detect.scoring.likelihood import cllr, fit_likelihood_ratio
from retrieval_detect.scoring.metrics import auc, recall_at_fpr
from retrieval_detect.store.training import load_training_set

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

CHOSEN, CHOSEN_OF_ALL = (
    "chosen by the inner folds, of what may be the default",
    "chosen by the inner folds, of all",
)
PIXELS = "trivial pixel statistics"
DEFAULT = "density, T=0.1: nullspace proj, directions=32"
_BINS = 15


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("methods", __doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--quick", action="store_true", help="One seed, few images: tries the code.")
    options = parser.parse_args(arguments)
    measured = lambda: rounded(measure(options.data, quick=options.quick))  # noqa: E731
    carry_out("methods", options, measured, tables, indent=None)


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """All numbers of one run."""
    clock = Clock()
    head = about("methods", command="python -m bench.methods" + " --quick" * quick, git_commit=commit())
    encoder = load_encoder(OFFLINE_ENCODER)
    layers = tuple(layer for layer in encoder.spec.layers if layer not in ("block01", "block02"))
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        os.environ["RD_CACHE"] = str(work / "cache")
        samples = load(data, encoder, per_folder=60 if quick else None, say=clock.say, layers=layers)
        store = Origin(encoder.spec, canary_vectors(encoder, layers)).create(work / "all", samples)
        snapshot = store.snapshot()
        rows, calib = merged(
            *(load_training_set(snapshot, layers, split=split) for split in ("bank", "calib"))  # type: ignore[arg-type]
        )
        paths = [row["uri"] for row in snapshot.take(rows.row_ids.tolist(), ["uri"])]
    by_path = {str(sample.path): sample for sample in samples}
    world = World(rows, np.array([by_path[path].place for path in paths]), calib)
    pixels = np.stack([by_path[path].statistics for path in paths])
    taking_part = entries()
    folds = list(outer_folds(world, SEEDS[:1] if quick else SEEDS))
    outer, inner, seconds = [], [], defaultdict(float)
    for number, fold in enumerate(folds):
        clock.say(
            f"fold {number + 1} of {len(folds)}: without {fold.family} and {fold.source}, seed {fold.seed}"
        )
        outer += _judged(world, fold, taking_part, pixels, seconds)
        inner += _inner(world, fold, taking_part, seconds)
    return {
        **head,
        "encoder": encoder.spec.name,
        "layers": list(layers),
        "folds": [
            {"family": f.family, "source": f.source, "seed": f.seed, "queries": int(f.queries.sum())}
            for f in folds
        ],
        "eligible": [entry.name for entry in taking_part if entry.eligible],
        "outer": outer,
        "inner": inner,
        "seconds": dict(seconds),
        "elapsed_s": clock.elapsed_s,
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
            quality |= _calibrated(scores[~asked], world.rows.fake[fold.calib], scores[asked], fake)
            yield {"fold": _key(fold), "n": n, "entry": entry.name, **quality}
        trivial = _regression(pixels[references], world.rows.fake[references], pixels[fold.queries])
        yield {"fold": _key(fold), "n": n, "entry": PIXELS, **_quality(trivial, fake, unseen)}


def _inner(
    world: World, outer: Fold, taking_part: Sequence[Entry], seconds: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Mean AUC of each entry over the inner folds and the numbers known: what choices are made by."""
    found: dict[str, list[float]] = defaultdict(list)
    for fold in inner_folds(world, outer):
        contest = Contest(world, fold)
        fake = world.rows.fake[fold.queries]
        for n in INNER_N:
            references = fold.taught(n)
            for entry in taking_part:
                if isinstance(entry, VoteEntry) or entry.inner:
                    started = time.perf_counter()
                    scores = contest.scores(entry, references, fold.queries)
                    seconds[entry.name] += time.perf_counter() - started
                    found[entry.name].append(auc(scores[fake], scores[~fake]))
    for name, values in found.items():
        yield {"fold": _key(outer), "entry": name, "auc": float(np.mean(values))}


def _key(fold: Fold) -> str:
    return f"{fold.family} / {fold.source} / {fold.seed}"


# ---------------------------------------------------------------- measures


def _quality(scores: Scores, fake: Any, unseen: Any) -> dict[str, float]:
    from sklearn.metrics import average_precision_score

    return {
        "auc": auc(scores[fake], scores[~fake]),
        "auc_unseen_source": auc(scores[fake], scores[unseen]),
        "ap": float(average_precision_score(fake, scores)),
        "recall": recall_at_fpr(scores[fake], scores[~fake], fpr=0.05),
    }


def _calibrated(known: Scores, known_fake: Any, scores: Scores, fake: Any) -> dict[str, float]:
    """Cllr in bits, and expected calibration error, of ratios fitted on images of known names."""
    ratio = fit_likelihood_ratio(known[known_fake], known[~known_fake])(scores)
    chance = 1 / (1 + 10**-ratio)
    weights = np.where(fake, 0.5 / fake.sum(), 0.5 / (~fake).sum())
    bins = np.minimum((chance * _BINS).astype(int), _BINS - 1)
    gaps = [abs((weights[bins == b] * (chance[bins == b] - fake[bins == b])).sum()) for b in range(_BINS)]
    return {"cllr": float(cllr(ratio[fake], ratio[~fake])), "ece": float(np.sum(gaps))}


def _regression(known: Any, labels: Any, asked: Any) -> Scores:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(known, labels)
    scores: Scores = model.decision_function(asked)
    return scores


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
    inner = dict(overall_choice(result))
    by_fold = chosen(result, eligible=True), chosen(result, eligible=False)
    rows = defaultdict(lambda: defaultdict(list))
    for row in result["outer"]:
        for name in _names(row, *by_fold):
            rows[name][row["n"]].append(row)
    order = sorted(rows, key=lambda name: (name not in (CHOSEN, CHOSEN_OF_ALL), -inner.get(name, 0)))
    lines = [
        f"Encoder `{result['encoder']}`, no CLIP; {origin(result)}. {len(result['folds'])} outer folds.",
        "",
        "| method | inner AUC | AUC at n = 0 | 5 | 20 | 50 | recall 0 | 5 | 20 | 50 | AP 20 | Cllr 20 "
        "| ECE 20 | AUC 20, unseen source |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(name, inner.get(name), rows[name]) for name in order]
    return "\n".join(lines)


def _names(row: Mapping[str, Any], best: Mapping[str, str], best_of_all: Mapping[str, str]) -> list[str]:
    names = [row["entry"]]
    names += [CHOSEN] * (best.get(row["fold"]) == row["entry"])
    names += [CHOSEN_OF_ALL] * (best_of_all.get(row["fold"]) == row["entry"])
    return names


def _line(name: str, inner: float | None, by_n: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    def mean(n: int, what: str) -> str:
        values = [row[what] for row in by_n[n] if what in row]
        return f"{np.mean(values):.2f}".lstrip("0") if values else "-"

    cells = [name, "-" if inner is None else f"{inner:.3f}"]
    cells += [mean(n, what) for what in ("auc", "recall") for n in OUTER_N]
    cells += [mean(20, what) for what in ("ap", "cllr", "ece", "auc_unseen_source")]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
