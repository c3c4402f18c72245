"""CLIPping the Deception's table: linear probing, and what else of it an index holds, on 25 folders.

Khan and Dang-Nguyen 2024. Prompts and adapters take a text tower: train them on a CLIP index and name them
with --heads. A plain tree: one GAN teaches, all generators are asked about.
"""

from __future__ import annotations

from bench.accuracy._common import Study, by_method, main

STUDY = Study(
    "clipping",
    runs=((),),
    table=by_method,
    teach="one",
    layout="clipping",
    compare=("--compare", "clipping"),
    train=(
        ("linear", "--name", "linear-probe"),
        ("svm", "--name", "svm", "--set", "layer=proj"),
        ("prototype", "--name", "prototype"),
    ),
    plots="ROC.*",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
