"""Words for what files say of themselves, and the limit to how much of it is repeated."""

from __future__ import annotations

MAX_CHARS = 200
"""Of a text that a file holds, no more is repeated."""

_SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "declares itself made by a generator",
    "compositeWithTrainedAlgorithmicMedia": "declares itself edited with a generator: parts are generated",
    "compositeSynthetic": "declares itself a composite with synthetic parts",
    "algorithmicMedia": "declares itself computed, without a trained generator",
    "algorithmicallyEnhanced": "declares itself enhanced by an algorithm",
    "dataDrivenMedia": "declares itself drawn from data",
    "digitalCapture": "declares itself taken with a digital camera",
    "computationalCapture": "declares itself taken with a camera that computes its pictures",
    "multiFrameComputationalCapture": "declares itself taken with a camera that computes its pictures",
    "negativeFilm": "declares itself scanned from film",
    "positiveFilm": "declares itself scanned from film",
    "print": "declares itself scanned from a print",
    "humanEdits": "declares itself edited by people",
    "minorHumanEdits": "declares itself edited by people",
    "compositeCapture": "declares itself a composite of photographs",
    "composite": "declares itself a composite",
    "digitalCreation": "declares itself drawn by people with a program",
    "digitalArt": "declares itself drawn by people with a program",
    "screenCapture": "declares itself a screenshot",
    "virtualRecording": "declares itself recorded in a virtual world",
    "softwareImage": "declares itself made with a program",
}


def short(text: str) -> str:
    """At most ``MAX_CHARS`` characters of valid Unicode, on one line."""
    line = " ".join(text[: 4 * MAX_CHARS].encode("utf-8", "replace").decode().split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"


def source_type(value: str) -> tuple[str, str]:
    """The name in a term of IPTC's DigitalSourceType vocabulary, and what it declares, in words.

    The term is a URI whose last part is the name; a name alone is met, too.
    """
    name = short(value.strip().rstrip("/").rpartition("/")[2])
    return name, _SOURCE_TYPES.get(name, f"declares itself of the type {name!r}")
