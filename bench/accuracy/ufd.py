"""UniversalFakeDetect's table: candidates for its nearest-neighbour row, and its linear classifier.

Ojha et al. 2023 never published the code of that row; whoever has the images sees here which score makes it.
Published sets: 19 columns and StyleGAN2 apart, published rows beside. A plain tree: one GAN teaches, all
generators are asked about.
"""

from __future__ import annotations

from bench.accuracy._common import Study, by_method, main
from retrieval_detect.cli.commands.eval import CANDIDATES

STUDY = Study(
    "ufd",
    runs=((),),
    table=by_method,
    teach="one",
    layout="ufd",
    compare=("--compare", "ufd"),
    methods=CANDIDATES,
    train=(("linear", "--name", "lc", "--set", "optimizer=adamw"), ("linear", "--name", "lc-lbfgs")),
    plots="ROC.*",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
