"""How long ``rd eval --protocol all`` takes, from a cold cache, and that running it again redoes nothing.

Every image is in the index and asked about by every protocol; through the settings of robustness go as many
of each folder as ``rd eval`` takes unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench._data import ORDER, add_data, encoders_of, lay_out, listed
from bench._frame import about, carry_out, command_of, origin, parser_of
from bench._machine import commit
from bench.accuracy._common import rd
from retrieval_detect.report.tables import markdown_table

NAME = "accuracy-everything"
AT_MOST = 60
"""Of each folder, through each setting of robustness: the default of ``rd eval``."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both runs."""
    head = about(NAME, command=command_of("accuracy.everything", options), git_commit=commit())
    return {**head, "runs": [_timed(name, options) for name in encoders_of(options)]}


def _timed(encoder: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rd-bench-") as folder:
        work = Path(folder)
        data = lay_out(listed(options.data, options.images), work / "data")
        rd(
            *("build-index", "--real", data / "real", "--fake", data / "fake"),
            *("--encoder", encoder, "--index", work / "index"),
        )
        asked = ["--protocol", "all", "--order", options.order, "--set", f"at-most={options.at_most}"]
        asked += ["--index", work / "index", "--cache", work / "cache", "--out", work / "out"]
        seconds = []
        for _ in range(2):
            started_s = time.monotonic()
            rd("eval", data, *asked)
            seconds.append(round(time.monotonic() - started_s, 1))
        found = json.loads((work / "out" / "result.json").read_text(encoding="utf-8"))
    return {
        "encoder": encoder,
        "images": found["about"]["images"],
        "at_most": options.at_most,
        "protocols": list(found["results"]),
        "skipped": {skipped["protocol"]: skipped["reason"] for skipped in found["skipped"]},
        "elapsed_s": seconds[0],
        "again_s": seconds[1],
    }


def tables(result: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        {
            "encoder": f"`{run['encoder']}`",
            "images": run["images"],
            "of each folder, in robustness": run["at_most"] if run["at_most"] < run["images"] else "all",
            "protocols": len(run["protocols"]),
            "minutes": f"{run['elapsed_s'] / 60:.1f}",
            "again, s": f"{run['again_s']:.1f}",
        }
        for run in result["runs"]
    ]
    skipped = {f"`{name}`: {why}" for run in result["runs"] for name, why in run["skipped"].items()}
    return "\n\n".join(
        [
            f"{origin(result)}.",
            markdown_table(tuple(rows[0]), rows),
            *[f"Not measured: {'; '.join(sorted(skipped))}."] * bool(skipped),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, write the JSON, print the table."""
    parser = parser_of("accuracy.everything", __doc__)
    add_data(parser)
    parser.add_argument("--order", default=",".join(ORDER), help="Generators, oldest first.")
    parser.add_argument("--at-most", type=int, default=AT_MOST, help="Images of a folder in robustness.")
    options = parser.parse_args(arguments)
    carry_out(NAME, options, lambda: measure(options), tables)


if __name__ == "__main__":
    main(sys.argv[1:])
