"""What recompression, blur and resizing do to scores and verdicts; the papers' settings by name."""

from __future__ import annotations

from bench.accuracy._common import Study, columns_of, main

STUDY = Study(
    "robustness",
    runs=(("--protocol", "robustness", "--set", "at-most=30"),),
    table=columns_of(
        *("setting", "settings_of", "auroc", "auroc_low", "auroc_high"),
        *("auroc_change", "change_low", "change_high", "ap", "acc_fixed", "acc_calibrated"),
        *("flipped", "flipped_real", "flipped_fake"),
    ),
    teach="fifths",
    layout="ufd",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
