"""The main job, measured: ``python -m bench.main_job``. README.md says what each number means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench._data import Embeddings, add_data, embedded, encoders_of, workplace
from bench._frame import Clock, about, by_encoder, carry_out, command_of, markdown_table, parser_of, rounded
from bench._growth import ROUNDS, SIZES, growth, growth_table
from bench._machine import commit
from bench._speed import speed, speed_rows
from retrieval_detect.encoders.registry import load_encoder

if TYPE_CHECKING:
    import argparse

_TRIED_SIZES, _TRIED_ROUNDS = (300, 1_000, 3_000), 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the JSON, print the tables."""
    parser = parser_of("main_job", __doc__)
    add_data(parser)
    parser.add_argument(
        "--built",
        type=int,
        metavar="N",
        help="Build indexes of the first N of each folder: what a slow encoder leaves time for.",
    )
    options = parser.parse_args(arguments)
    carry_out("main_job", options, lambda: rounded(measure(options)), tables)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one run, by names that carry their units."""
    clock = Clock()
    head = about("main_job", command=command_of("main_job", options), git_commit=commit())
    images = options.images or options.built
    given = [
        embedded(load_encoder(name), data=options.data, images=images, say=clock.say)
        for name in encoders_of(options)
    ]
    found = []
    for own in given:
        clock.say(f"speed with {own.encoder.spec.name}")
        with workplace() as work:
            found.append(_measured(own, speed(own, work, say=clock.say)))
    sizes, rounds = (_TRIED_SIZES, _TRIED_ROUNDS) if options.images else (SIZES, ROUNDS)
    with workplace() as work:
        grown = growth(work, sizes=sizes, rounds=rounds, say=clock.say)
    tried = bool(options.images)
    return {**head, "quick": tried, "encoders": found, "growth": grown, "elapsed_s": clock.elapsed_s}


def _measured(given: Embeddings, found: dict[str, Any]) -> dict[str, Any]:
    spec = given.encoder.spec
    return {"encoder": {"name": spec.name, "engine": spec.engine, "note": spec.note}, "speed": found}


def tables(result: Mapping[str, Any]) -> str:
    """Every table, with headings."""
    found = by_encoder(result)
    rows = [speed_rows(one["speed"]) for one in found]
    heads = ["rd"] if len(found) == 1 else [f"rd, `{one['encoder']['name']}`" for one in found]
    cells = [[own[0][0], *(c for row in own for c in row[1:])] for own in zip(*rows, strict=True)]
    return "\n".join(
        [
            *["**A trial run on a few images: none of these numbers counts.**\n"] * result["quick"],
            _heading(result),
            "\n### Speed and size\n",
            markdown_table(["", *(c for head in heads for c in (head, "beside it"))], cells),
            "\n### Adding to a growing index\n",
            *growth_table(result["growth"]),
        ]
    )


def _heading(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    encoders = [one["encoder"] for one in by_encoder(result)]
    named = ", ".join(f"`{e['name']}` ({e['note']}), {e['engine']}" for e in encoders)
    faiss = next((f"{name} {versions[name]}" for name in versions if name.startswith("faiss")), "no FAISS")
    device = machine["gpu"] or "no GPU"
    return (
        f"Encoder{'s' * (len(encoders) > 1)} {named}. {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {device}; "
        f"Python {versions['python']}, torch {versions['torch']}, {faiss}. "
        f"{result['date'][:10]}, commit {(result['git_commit'] or 'unknown')[:12]}, `{result['command']}`."
    )


if __name__ == "__main__":
    main()
