"""A new generator from a few references, and a whole bank of a few images of each category.

The second is CLIPping the Deception's draw: 16 photographs and 16 fakes of each of 20 categories, 640 images.
"""

from __future__ import annotations

from bench.accuracy._common import Study, main, table

_RECALL = ("recall", "recall_low", "recall_high", "fpr")

STUDY = Study(
    "few_shot",
    runs=(("--protocol", "few-shot"), ("--protocol", "few-shot", "--per-category", "--set", "seeds=5")),
    table=lambda runs: table(
        runs,
        (
            *("method", "n", "auroc", "auroc_low", "auroc_high"),
            *(_RECALL if "recall" in runs[0]["columns"] else ("ap", "acc_fixed")),
        ),
        lambda run: [row for row in run["rows"] if row["generator"] == "mean"],
    ),
    teach="all",
    layout="clipping",
    plots="mean: .*",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
