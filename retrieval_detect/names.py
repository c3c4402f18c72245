"""What a name is: of a generator, its family, a source, a category, a batch, a contributor, and their like.

Names that look alike must be alike: two spellings of one generator would be two generators to every vote.
"""

from __future__ import annotations

import unicodedata
from dataclasses import fields
from functools import lru_cache

from retrieval_detect.errors import BadName
from retrieval_detect.types import Facts

LONGEST = 200
"""Characters that a name may have."""
LONGEST_WRITTEN = 2000
"""Characters that are kept of a caption, or of a url."""
WRITTEN = ("caption", "url")
"""Fields of ``types.Facts`` that hold what was written beside an image, of any length."""
NAMED = tuple(f.name for f in fields(Facts) if f.name not in ("label", *WRITTEN))
"""Fields of ``types.Facts``, and columns of rows, that hold names."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Not seen either, but words of some scripts are spelt with them."""


def printable(name: str) -> str:
    r"""A name as valid Unicode: bytes that are not UTF-8 become ``\xNN``, halves of a pair ``\uNNNN``."""
    return _valid(name).encode("utf-8", "backslashreplace").decode()


def checked(text: str, what: str) -> str:
    """The one spelling of a name: NFC, without stray spaces; empty stays empty.

    ``what`` it names, for people. Raises ``BadName`` for characters that nobody sees, such as line breaks and
    escapes, and for more than ``LONGEST`` characters.
    """
    bare = text.strip()
    if hidden := next((c for c in _valid(bare) if _is_hidden(c)), None):
        raise BadName(
            f"{what} {shown(bare)} holds the invisible character U+{ord(hidden):04X}",
            hint="Write it in letters, digits, signs and spaces, on one line.",
        )
    name = spelling(bare)
    if len(name) > LONGEST:
        raise BadName(
            f"{what} {shown(name)} has {len(name):,} characters, a name has {LONGEST} at most",
            hint="Shorten it.",
        )
    return name


def spelling(text: str) -> str:
    """What ``checked`` makes of a name; of what is none, the nearest that is one. To look names up by."""
    visible = (c for c in _valid(text) if c.isspace() or not _is_hidden(c))
    return " ".join(unicodedata.normalize("NFC", "".join(visible)).split())


@lru_cache(maxsize=1024)
def named(facts: Facts) -> Facts:
    """Facts with every name ``checked``, and of what was written the nearest that is one line."""
    texts = {name: checked(getattr(facts, name), name.replace("_", " ")) for name in NAMED}
    texts |= {name: spelling(getattr(facts, name))[:LONGEST_WRITTEN] for name in WRITTEN}
    return Facts(facts.label, **texts)


def shown(name: str) -> str:
    """A name for a message: quoted, short, every character of it visible."""
    text = ascii(name) if any(map(_is_hidden, name)) else repr(name)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def _valid(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair that no text has
        return text


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE and character not in _JOINERS
