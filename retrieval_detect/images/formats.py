"""Which format bytes are of, told by how they begin and never by a name; and the way out of other formats."""

from __future__ import annotations

from retrieval_detect.images.codes import refusal

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00\x10\x00\x00\x00CR", "RAW"),  # Canon: a TIFF whose first page is a JPEG of the camera's making
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\x00\x00\x00\x0cJXL ", "JXL"),
    (b"\xff\x0a", "JXL"),
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"II\x1a\x00\x00\x00HEAPCCDR", "RAW"),  # Canon, before 2004
    (b"IIRO", "RAW"),  # Olympus, three ways
    (b"IIRS", "RAW"),
    (b"MMOR", "RAW"),
    (b"IIU\x00", "RAW"),  # Panasonic, Leica
    (b"\x00MRM", "RAW"),  # Minolta
    (b"FOVb", "RAW"),  # Sigma
)
_HEIF = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"),
    *(b"avci", b"avcs", b"jpeg", b"jpgs", b"j2ki", b"j2is", b"vvic", b"vvis", b"evbi", b"evbs", b"heoi"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "RAW"} | dict.fromkeys(_HEIF, "HEIF")
_MOST_BRANDS = 64
DEVELOP = "Develop it to JPEG or TIFF first, for instance with darktable or RawTherapee."
_WAYS_OUT = {
    "HEIF": ("HEIC or another HEIF", "Convert it to PNG first, for instance with pillow-heif."),
    "JXL": ("JPEG XL", "Convert it to PNG first, for instance with pillow-jxl-plugin."),
    "RAW": ("camera raw", DEVELOP),
}
_LOOKALIKES = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML text"),
    (b"%pdf", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
)


def format_of(data: bytes) -> str:
    """One of ``FORMATS``; raises ``ImageError`` for any other."""
    name = sniffed(data)
    if name in FORMATS:
        return name
    if name in _WAYS_OUT:
        kind, way_out = _WAYS_OUT[name]
        raise refusal("format-not-supported", kind, hint=way_out)
    start = data[:64].lstrip().lower()
    kind = next((kind for prefix, kind in _LOOKALIKES if start.startswith(prefix)), "")
    detail = kind if data else "the file is empty"
    raise refusal("not-an-image", detail, hint=f"rd reads {', '.join(FORMATS)}.")


def sniffed(data: bytes) -> str:
    """A format by how bytes begin, one of ``FORMATS`` or one with a way out; empty if it is neither."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # The brand of an ISO base media file, then, behind a version, those that it is compatible with.
        end = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
        brands = [data[8:12], *(data[i : i + 4] for i in range(16, end, 4))]
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in found else next(iter(found), "")  # mif1 alone means little
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), "")
