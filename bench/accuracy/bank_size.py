"""How much larger banks tell better, and what they cost."""

from __future__ import annotations

from bench.accuracy._common import Study, columns_of, main

STUDY = Study(
    "bank_size",
    runs=(
        (
            "--protocol",
            "bank-size",
            "--n",
            "30,100,300,1000,3000,10000,30000,100000,300000",
            "--set",
            "seeds=5",
        ),
    ),
    table=columns_of("n", "draws", "auroc", "auroc_low", "auroc_high", "seconds_a_query", "vectors_bytes"),
    teach="all",
    layout="ufd",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
