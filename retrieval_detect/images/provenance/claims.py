"""What follows from what was found in a file, in words. A claim is what the file says, never what is so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from retrieval_detect.images.provenance.c2pa import NOT_READ
from retrieval_detect.images.provenance.words import source_type
from retrieval_detect.types import Claim, Provenance

FORGEABLE = "easily forged"
_GENERATED = frozenset(
    {"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"}
)
_STATES = {
    "Trusted": "signature intact, by a signer on a list of trusted ones",
    "Valid": "signature intact; anybody can sign, and who did was not checked",
    "Invalid": "the signature does not hold: altered since, or signed badly",
    "damaged": "it cannot be read",
}


def names_generator(found: Provenance) -> bool:
    """Whether a file says that a generator made it, or parts of it."""
    xmp, actions = found.xmp or {}, (found.c2pa or {}).get("actions", ())
    types = [source_type(xmp.get("digital_source_type", ""))[0]]
    types += [action.get("digital_source_type", "") for action in actions]
    return bool(found.text or {"aigc", "ai_system"} & xmp.keys() or _GENERATED.intersection(types))


def c2pa_claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Of a C2PA manifest: what made the file, and what its actions declare."""
    state = found["state"]
    if state == "not read":
        yield Claim("c2pa", f"C2PA manifest: {NOT_READ}")
        return
    detail, trusted = _STATES.get(state, _STATES["Invalid"]), state == "Trusted"
    types = [a["digital_source_type"] for a in found.get("actions", ()) if "digital_source_type" in a]
    for name in dict.fromkeys(types):
        yield Claim("c2pa", source_type(name)[1], detail, trusted)
    by = " ".join(f"{word} {found[key]}" for word, key in _BY if found.get(key))
    yield Claim("c2pa", f"C2PA manifest {by}".strip(), detail, trusted)


_BY = (("of", "claim_generator"), ("signed by", "signer"))


def text_claims(found: Mapping[str, str]) -> Iterator[Claim]:
    """Of the text that a generator program wrote."""
    named = [f"{name} {found[name]}" for name in ("model", "sampler", "seed") if name in found]
    tool = " ".join(found[name] for name in ("tool", "version") if name in found)
    yield Claim("text", f"settings of {tool}", ", ".join([*named, FORGEABLE]))


def xmp_claims(found: Mapping[str, str]) -> Iterator[Claim]:
    """Of an XMP packet: its source type, the programs it names, where its manifest lies."""
    if declared := found.get("digital_source_type"):
        yield Claim("xmp", source_type(declared)[1], FORGEABLE)
    if "aigc" in found:
        yield Claim("xmp", "carries a label of generated content (AIGC)", FORGEABLE)
    for name, words in _NAMED.items():
        if name in found:
            yield Claim("xmp", f"{words}: {found[name]}", FORGEABLE)
    if found.get("c2pa_link", "").startswith(("http://", "https://")):
        yield Claim("xmp", "names a C2PA manifest at a web address, which was not asked for", FORGEABLE)


_NAMED = {"ai_system": "AI system", "creator_tool": "program", "credit": "credit"}


def iptc_claims(found: Mapping[str, str]) -> Iterator[Claim]:
    """Of IPTC's records: a program, and whom a picture is credited to."""
    program = " ".join(found[name] for name in ("program", "version") if name in found)
    if program:
        yield Claim("iptc", f"program: {program}", FORGEABLE)
    if "credit" in found:
        yield Claim("iptc", f"credit: {found['credit']}", FORGEABLE)


def exif_claims(found: Mapping[str, Any]) -> Iterator[Claim]:
    """Of EXIF: a camera, or a program."""
    camera = " ".join(found[name] for name in ("make", "model") if name in found)
    if camera:
        more = [f"dated {found['date']}"] if "date" in found else []
        more += ["a position is stored"] if found.get("gps") else []
        yield Claim("exif", f"camera: {_once(camera)}", ", ".join([*more, FORGEABLE]))
    if "software" in found:
        yield Claim("exif", f"program: {found['software']}", FORGEABLE)


def _once(camera: str) -> str:
    """``Canon EOS R5`` of ``Canon Canon EOS R5``: many models begin with their maker."""
    first, _, rest = camera.partition(" ")
    return rest if rest.lower().startswith(f"{first.lower()} ") else camera
