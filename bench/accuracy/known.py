"""Generators and sources the banks know: every vote beside what else one would train on the same references.

Four of every five images of a folder teach, the fifth is asked about: in-distribution, which shows what the
data allow and promises nothing for other data. A new generator is what ``few_shot`` asks about.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.accuracy._common import Json, Study, main, table


def by_auc(runs: Sequence[Json]) -> str:
    """A row a method: mean over generators, then each against all photographs asked about."""
    names = [name for name in runs[0]["detail"]["methods"]["rd"]["columns"] if name != "mean"]
    head = ("method", "AUC (95 %)", "recall at 1 % false alarms", "accuracy at score 0", "calibrated")
    return table(runs, (*head, *(f"AUC, {name}" for name in names)), _rows)


def _rows(run: Json) -> list[dict[str, str]]:
    methods = {name: said["columns"] for name, said in run["detail"]["methods"].items() if "columns" in said}
    rows = []
    for name, columns in sorted(methods.items(), key=lambda method: method[0] != "rd"):
        mean, ends = columns["mean"], columns["mean"]["auroc_interval"]
        rows.append(
            {
                "method": name,
                "AUC (95 %)": f"{mean['auroc']:.2f} ({ends['low']:.2f} to {ends['high']:.2f})",
                "recall at 1 % false alarms": f"{mean['tpr_at_1_fpr']:.2f}",
                "accuracy at score 0": f"{mean['acc_fixed']:.2f}",
                "calibrated": f"{mean['acc_calibrated']:.2f}" if "acc_calibrated" in mean else "-",
            }
            | {f"AUC, {column}": f"{own['auroc']:.2f}" for column, own in columns.items()}
        )
    return rows


STUDY = Study(
    "known",
    runs=((),),
    table=by_auc,
    teach="fifths",
    methods=("nearest:1", "mean:3", "mean:9", "majority:3", "majority:9"),
    plots="ROC.*",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
