"""Generators learnt one by one: recall on the new, what the old lose, seconds an added image.

The banks begin with the photographs and the first generator of --order; each of the others follows, with 0 to
100 references.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice

from bench._data import ORDER, encoders_of, listed
from bench.accuracy._common import Json, Study, main, table
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.newcomers import RD
from retrieval_detect.images.items import file_item

_TIMED = 50


def study(order: str) -> Study:
    """Of generators in this order, oldest first; ``""`` takes the dates that a set states."""
    given = ("--order", order) if order else ()
    return Study(
        "incremental",
        runs=(("--protocol", "incremental", "--set", "seeds=3", *given),),
        table=tables,
        teach="all",
        layout="ai-genbench",
        also=embedding,
    )


def embedding(options: argparse.Namespace) -> dict[str, Json]:
    """Seconds to read and embed an image: the protocol's own seconds begin where its vector is known."""
    if options.index:
        return {}
    items = [file_item(i.path, i.path.name) for i in listed(options.data, _TIMED) if i.fake]
    rounds_s: dict[str, list[float]] = {}
    for name in encoders_of(options):
        encoder = load_encoder(name)
        for start in range(3):
            chosen = list(islice(items, start, None, 3))[:_TIMED]
            started_s = time.perf_counter()
            found = len(list(embed(chosen, encoder, layers=tuple(encoder.spec.layers))))
            rounds_s.setdefault(name, []).append((time.perf_counter() - started_s) / found)
    return {"embedding_an_image_s": rounds_s}


# ---------------------------------------------------------------- tables


def tables(runs: Sequence[Json]) -> str:
    """Recall on the new, what the old keep, photographs flagged and seconds, as Markdown."""
    numbers = sorted({row["n"] for row in runs[0]["rows"]})
    kept = ("past", "transfer", "transfer_low", "transfer_high")
    return "\n\n".join(
        [
            table(runs, ("new", "method", *map(str, numbers)), _learnt),
            table(
                runs, ("new", "references", "old", "recall before", "change", "low", "high", "lost"), _kept
            ),
            table(
                runs, ("generator", "method", "n", *kept, "fpr", "fpr_frozen", "seconds_an_image"), _flagged
            ),
        ]
    )


def _learnt(run: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Recall on the new generator by number of its references."""
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for row in run["rows"]:
        own = rows.setdefault(
            (row["generator"], row["method"]), {"new": row["generator"], "method": row["method"]}
        )
        own[f"{row['n']}"] = row["recall"]
    return list(rows.values())


def _kept(run: Mapping[str, Json]) -> list[dict[str, Json]]:
    """What each old generator keeps once a new one is known by all references drawn."""
    found = [old for old in run["detail"]["kept"] if old["method"] == RD]
    most = {old["generator"]: old["n"] for old in found}
    return [
        {"new": old["generator"], "references": old["n"], "old": old["old"], "recall before": old["recall"]}
        | {key: f"{100 * old[key]:+.1f}" for key in ("change", "low", "high")}
        | {"lost": old["high"] < 0}
        for old in found
        if old["n"] == most[old["generator"]]
    ]


def _flagged(run: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Photographs flagged, old generators together, and seconds, by rd and beside it."""
    most = {row["generator"]: row["n"] for row in run["rows"]}
    return [row for row in run["rows"] if row["n"] in (0, most[row["generator"]])]


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--order", default=",".join(ORDER))
    own, others = parser.parse_known_args(arguments)
    main(study(own.order), f"{__doc__} --order GENERATOR,… names others, oldest first.", others)


if __name__ == "__main__":
    _main(sys.argv[1:])
