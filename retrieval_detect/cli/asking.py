"""What ``rd query`` and ``rd rescore`` share: the rate of false alarms, and among whom it holds."""

from __future__ import annotations

from typing import Any

import click

from retrieval_detect.cli.parts import RATE, option_with_parts
from retrieval_detect.errors import UsageError

_FPR = 0.05

fpr_option = option_with_parts(
    "--fpr",
    ("fpr", RATE),
    {"confidence": ("confidence", RATE), "fdr": ("fdr", RATE)},
    metavar="RATE[,confidence=P]",
    help=f"Share of photographs that may be called fake-like (default: {_FPR}); with confidence=P it is kept "
    "to with this probability over the draw of the calibration photographs. fdr=SHARE instead: of a batch, "
    "the share of photographs among those called fake-like.",
)
within_option = option_with_parts(
    "--within",
    ("within", click.Choice(["source", "format", "size"])),
    {"source": ("source", click.STRING)},
    metavar="SET",
    help="Keep to --fpr within each source, or among photographs of the image's own format or size; "
    "source=NAME: compare with this source's photographs alone.",
)


def settle_rates(asked: dict[str, Any]) -> None:
    """One kind of rate, and the usual one where none is given."""
    if asked.get("fdr") is not None and (asked["fpr"] is not None or asked["confidence"]):
        raise UsageError(
            "fdr=SHARE stands in the place of a rate and its confidence", hint="Give one of them."
        )
    if asked["fpr"] is None:
        asked["fpr"] = _FPR
