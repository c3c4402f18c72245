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

from bench._data import _listed
from bench.accuracy._common import Json, Study, main
from retrieval_detect.encoders.pipeline import embed
from retrieval_detect.encoders.registry import load_encoder
from retrieval_detect.evaluate.newcomers import RD
from retrieval_detect.images.items import file_item
from retrieval_detect.report.tables import markdown_table

ORDER = "stylegan2_faces,sd1_diffusiondb,midjourney_shoes,dalle_mini,latent_diffusion"
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
    encoder = load_encoder(options.encoder)
    items = [
        file_item(path, path.name)
        for path, facts, _ in _listed(options.data, _TIMED)
        if facts.label == "fake"
    ]
    rounds_s = []
    for start in range(3):
        chosen = list(islice(items, start, None, 3))[:_TIMED]
        started_s = time.perf_counter()
        found = len(list(embed(chosen, encoder, layers=tuple(encoder.spec.layers))))
        rounds_s.append((time.perf_counter() - started_s) / found)
    return {"embedding_an_image_s": rounds_s}


# ---------------------------------------------------------------- tables


def tables(run: Mapping[str, Json]) -> str:
    """Recall on the new, what the old keep, photographs flagged and seconds, as Markdown."""
    return "\n\n".join([_learnt(run), _kept(run), _flagged(run)])


def _learnt(run: Mapping[str, Json]) -> str:
    """Recall on the new generator by number of its references."""
    rows: dict[tuple[str, str], dict[str, Json]] = {}
    for row in run["rows"]:
        own = rows.setdefault(
            (row["generator"], row["method"]), {"new": row["generator"], "method": row["method"]}
        )
        own[f"{row['n']}"] = row["recall"]
    numbers = sorted({row["n"] for row in run["rows"]})
    return markdown_table(("new", "method", *map(str, numbers)), list(rows.values()))


def _kept(run: Mapping[str, Json]) -> str:
    """What each old generator keeps once a new one is known by all references drawn."""
    found = [old for old in run["detail"]["kept"] if old["method"] == RD]
    most = {old["generator"]: old["n"] for old in found}
    rows = [
        {"new": old["generator"], "references": old["n"], "old": old["old"], "recall before": old["recall"]}
        | {key: f"{100 * old[key]:+.1f}" for key in ("change", "low", "high")}
        | {"lost": old["high"] < 0}
        for old in found
        if old["n"] == most[old["generator"]]
    ]
    return markdown_table(
        ("new", "references", "old", "recall before", "change", "low", "high", "lost"), rows
    )


def _flagged(run: Mapping[str, Json]) -> str:
    """Photographs flagged, old generators together, and seconds, by rd and beside it."""
    kept = ("past", "transfer", "transfer_low", "transfer_high")
    columns = ("generator", "method", "n", *kept, "fpr", "fpr_frozen", "seconds_an_image")
    most = {row["generator"]: row["n"] for row in run["rows"]}
    return markdown_table(columns, [row for row in run["rows"] if row["n"] in (0, most[row["generator"]])])


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--order", default=ORDER)
    own, others = parser.parse_known_args(arguments)
    main(study(own.order), f"{__doc__} --order GENERATOR,… names others, oldest first.", others)


if __name__ == "__main__":
    _main(sys.argv[1:])
