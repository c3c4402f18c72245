"""What recompression, blur and resizing do to scores and verdicts; the papers' settings by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.accuracy._common import Study, columns_of, main

AT_MOST = 30
"""Of each folder, through each setting."""


def study(at_most: int) -> Study:
    """With at most so many images of each folder: every setting is embedded anew."""
    return Study(
        "robustness",
        runs=(("--protocol", "robustness", "--set", f"at-most={at_most}"),),
        table=columns_of(
            *("setting", "settings_of", "auroc", "auroc_low", "auroc_high"),
            *("auroc_change", "change_low", "change_high", "ap", "acc_fixed", "acc_calibrated"),
            *("flipped", "flipped_real", "flipped_fake"),
        ),
        teach="fifths",
        layout="ufd",
        told=f" --at-most {at_most}" * (at_most != AT_MOST),
    )


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--at-most", type=int, default=AT_MOST)
    own, others = parser.parse_known_args(arguments)
    main(study(own.at_most), f"{__doc__} --at-most N takes N of each folder, not {AT_MOST}.", others)


if __name__ == "__main__":
    _main(sys.argv[1:])
