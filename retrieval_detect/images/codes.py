"""What is told about an image, refused or read: stable codes and their words."""

from __future__ import annotations

from retrieval_detect.errors import ImageError

REASONS: dict[str, str] = {
    "corrupt": "the file is damaged",
    "format-not-supported": "the format is not supported",
    "not-an-image": "this is not an image in a format rd reads",
    "pixel-type": "the pixels are of a type without a known range",
    "too-elongated": "the image is too long for its width",
    "too-many-bytes": "the file is too large",
    "too-many-pixels": "the image has too many pixels",
    "too-small": "the image is too small",
    "truncated": "the file is cut short",
    "undecodable": "the image cannot be decoded",
    "unreadable": "the file cannot be read",
}
"""Reason code of an ``ImageError`` → what it means. Codes are stable; sentences may change."""


NOTES: dict[str, str] = {
    "alpha-on-white": "transparent parts were laid on white",
    "cmyk-converted": "CMYK was converted to RGB without its colour profile",
    "exif-rotated": "turned upright as its EXIF says",
    "first-frame": "only the first of several frames or pages was read",
    "grey-16-bit": "16-bit grey was scaled to 8 bits",
    "icc-ignored": "the colour profile was not applied",
    "jpeg-mistake": "a mistake of the program that wrote the JPEG was passed over; no pixel rests on it",
    "metadata-unreadable": "broken metadata was left out",
    "xmp-rotated": "turned upright as its XMP says (EXIF says nothing; many viewers look at no other)",
}
"""Code in ``DecodedImage.notes`` → what was done."""


def refusal(reason: str, detail: str = "", *, hint: str = "") -> ImageError:
    """An error with a code of ``REASONS``; ``detail`` says what is so in this file."""
    message = f"{REASONS[reason]}: {detail}" if detail else REASONS[reason]
    return ImageError(message, reason=reason, hint=hint)
