"""Files of a form, taken apart as they arrive and kept in memory: nothing of them is written anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from retrieval_detect.errors import ImageError, UsageError
from retrieval_detect.names import printable
from retrieval_detect.web.errors import Refused

if TYPE_CHECKING:
    from fastapi import Request

    from retrieval_detect.types import ImageItem
    from retrieval_detect.web.decoding import Decoders
    from retrieval_detect.web.settings import ServeSettings

FIELD, BESIDE = "images", "beside"
LONGEST_NAME = 200
_HOW = f"Send each as {FIELD} of multipart/form-data: curl -F {FIELD}=@photo.jpg"


@dataclass(slots=True)
class _Upload:
    """One file of a form, in the field ``under``. ``size`` : of all that was sent, kept or not."""

    under: str
    name: str
    size: int = 0
    _kept: list[bytes] = field(default_factory=list)

    def take(self, data: bytes, most_bytes: int) -> None:
        """A further piece of the file; of one that is too large no more is kept."""
        self.size += len(data)
        if self.size <= most_bytes:
            self._kept.append(data)
        else:
            self._kept.clear()

    def read(self, most_bytes: int) -> bytes:
        """All of it; raises ``ImageError`` where that is more than ``most_bytes``."""
        if self.size > most_bytes:
            message = f"the file is too large: the limit is {most_bytes:,} bytes"
            raise ImageError(message, reason="too-many-bytes")
        if len(self._kept) != 1:
            self._kept = [b"".join(self._kept)]
        return self._kept[0]


async def uploads(
    request: Request, decoders: Decoders, settings: ServeSettings, *, fields: Sequence[str] = (FIELD,)
) -> dict[str, list[ImageItem]]:
    """The files of a request by field, to be decoded in processes of their own; at least one of ``FIELD``.

    Raises ``Refused`` or ``UsageError`` where it is no whole form of images. Until the end of the form has
    come nobody knows what is still missing, so that nothing is begun.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(422, "no-image", "there is no form with an image in this request", hint=_HOW)
    form = _Form(settings, fields)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
    except FormParserError as error:
        raise Refused(400, "form", "the form cannot be taken apart", hint=_HOW) from error
    if not form.ended:
        message = "the form breaks off: its closing boundary is missing"
        raise Refused(400, "form", message, hint="Nothing was done. Send it again, whole.")
    found: dict[str, list[ImageItem]] = {name: [] for name in fields}
    for upload in form.files:
        read = partial(upload.read, settings.file_bytes)
        found[upload.under].append(decoders.item(upload.name, read))
    if not found[FIELD]:
        raise Refused(422, "no-image", "there is no image in this form", hint=_HOW)
    return found


class _Form:
    """What the parser calls, in the order of the bytes; ``ended`` once the closing boundary has come."""

    def __init__(self, settings: ServeSettings, fields: Sequence[str]) -> None:
        self._settings, self._fields = settings, fields
        self._header = [b"", b""]
        self._disposition = b""
        self.files: list[_Upload] = []
        self.ended = False

    def callbacks(self) -> Any:
        """By the parser's names for them."""
        names = ("part_begin", "part_data", "header_field", "header_value", "header_end", "headers_finished")
        return {f"on_{name}": getattr(self, name) for name in (*names, "end")}

    def part_begin(self) -> None:
        self._header, self._disposition = [b"", b""], b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def headers_finished(self) -> None:
        self.files.append(_Upload(*_named(self._disposition, self._fields)))
        most = self._settings.most_files
        if len(self.files) > most:
            raise UsageError(f"more than {most} images at once", hint=f"Send {most} at a time.")

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.files[-1].take(data[start:end], self._settings.file_bytes)

    def end(self) -> None:
        self.ended = True


def _named(disposition: bytes, fields: Sequence[str]) -> tuple[str, str]:
    """The field, and the last part of the file's name, short and printable.

    ``filename*`` (RFC 5987) is read, too. Raises ``Refused`` for a part of the form that is no image file.
    """
    _, options = parse_options_header(disposition)
    field_name = _text(options.get(b"name", b""))
    if field_name not in fields:
        shown = printable(field_name)[:LONGEST_NAME]
        message = f"a part of the form is called {shown!r}, which says nothing here"
        raise Refused(422, "form", message, hint=_HOW)
    if b"filename" in options:
        given: str | None = _text(options[b"filename"])
    else:
        part = Message()
        part["Content-Disposition"] = disposition.decode("latin-1")
        try:
            given = part.get_filename()
        except ValueError:  # it names an alphabet that decodes nothing, or is no name at all
            given = ""
    if given is None:
        raise Refused(
            422, "form", f"a part called {field_name} has no file name, so it is no file", hint=_HOW
        )
    last = given.replace("\\", "/").rpartition("/")[2]
    name = "".join(c if c.isprintable() else "�" for c in printable(last))[:LONGEST_NAME]
    return field_name, name or "image"


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
