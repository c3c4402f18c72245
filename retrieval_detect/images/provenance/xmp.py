"""XMP packets: the program that says it made a file, IPTC's DigitalSourceType, links to C2PA manifests."""

from __future__ import annotations

from xml.parsers import expat

from retrieval_detect.images.provenance.words import short

_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_WANTED = {
    "http://ns.adobe.com/xap/1.0/ CreatorTool": "creator_tool",
    "http://ns.adobe.com/photoshop/1.0/ Credit": "credit",
    "http://ns.adobe.com/tiff/1.0/ Make": "make",
    "http://ns.adobe.com/tiff/1.0/ Model": "model",
    "http://purl.org/dc/terms/ provenance": "c2pa_link",
    f"{_IPTC} DigitalSourceType": "digital_source_type",
    f"{_IPTC} DigitalSourcefileType": "digital_source_type",  # the spelling of some programs
    f"{_IPTC} AISystemUsed": "ai_system",
    "http://www.tc260.org.cn/ns/AIGC/1.0/ AIGC": "aigc",
}
_RESOURCE = "http://www.w3.org/1999/02/22-rdf-syntax-ns# resource"


class _Refused(Exception):
    """A packet that declares a document type could declare entities, which grow."""


def read_xmp(packet: bytes) -> dict[str, str] | None:
    """The properties that are wanted and there; ``None`` where the packet cannot be read."""
    reader = _Reader()
    if packet.startswith((b"\xff\xfe", b"\xfe\xff")):
        packet = packet.decode("utf-16", "replace").encode()
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, _Refused):
        return None
    return {name: value for name, text in reader.found.items() if (value := short(text))}


def _refuse(*_declared: object) -> None:
    raise _Refused


class _Reader:
    """Takes wanted properties, be they attributes or elements with a text or a list in them."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._inside: tuple[str, int] | None = None
        self._depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        for attribute, value in attributes.items():
            if attribute in _WANTED:
                self.found.setdefault(_WANTED[attribute], value)
        if self._inside is None and name in _WANTED and _WANTED[name] not in self.found:
            self._inside = (_WANTED[name], self._depth)
            self.found[_WANTED[name]] = attributes.get(_RESOURCE, "")

    def text(self, text: str) -> None:
        if self._inside is not None:
            name, _ = self._inside
            if len(self.found[name]) < 4096:
                self.found[name] += text

    def end(self, _name: str) -> None:
        if self._inside is not None and self._inside[1] == self._depth:
            self._inside = None
        self._depth -= 1
