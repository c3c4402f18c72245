"""Every error rd raises on purpose.

::

    RdError                       message + hint + exit_code
    ├── UsageError                the call cannot be meant as written
    │   └── BadName               a name that is none
    ├── ConfigError               rd.toml, an RD_* variable or a recipe is wrong
    ├── ImageError                one input cannot be used; carries a reason code
    ├── EncoderError
    │   ├── WeightsUnavailable    weights are not here and cannot be fetched
    │   └── EncoderMismatch       vectors of two encoders would be mixed
    ├── IndexStateError
    │   ├── IndexNotFound
    │   ├── IndexCorrupt          a file differs from its recorded checksum
    │   ├── IndexLocked           another writer is at work
    │   ├── FormatUnsupported     written by a newer rd
    │   ├── LabelConflict         the same image under both labels
    │   └── EmptyBank             a vote needs references of both labels
    ├── CaseDamaged           an examiner's log is not what was written
    └── SearchError
        ├── VectorError           NaN, zero, wrong shape or dtype
        └── FaissUnavailable      none or several FAISS distributions, or no such device

A message says what is wrong and where; ``hint`` says what to do next. Each class also
inherits the nearest builtin, so callers that catch ``ValueError`` keep working.
"""

from __future__ import annotations


class RdError(Exception):
    """Base of all errors of rd.

    Parameters
    ----------
    message : what is wrong, and where, in one sentence.
    hint : what the reader can do next; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def in_full(self) -> str:
        """What is wrong and what to do, for places that have one line."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(RdError, ValueError):
    """The call or command cannot be meant as written."""

    exit_code = 2


class BadName(UsageError):
    """A name that is none: too long, or with characters that nobody sees."""


class ConfigError(RdError, ValueError):
    """A setting or recipe is wrong; the message names the file and the key."""

    exit_code = 2


class ImageError(RdError, ValueError):
    """One image cannot be used.

    ``reason`` is a stable code such as ``"truncated"`` (see ``images.codes.REASONS``); ``uri``
    names the input and is filled in by whoever knows it.
    """

    def __init__(self, message: str, *, reason: str, uri: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.uri = uri


class EncoderError(RdError, RuntimeError):
    """An encoder cannot be built or used."""


class WeightsUnavailable(EncoderError, FileNotFoundError):
    """Weights are neither here nor to be had; the hint lists the ways out."""


class EncoderMismatch(EncoderError, ValueError):
    """The encoder at hand is not the one the index was built with."""


class IndexStateError(RdError, RuntimeError):
    """Something is wrong with an index directory."""


class IndexNotFound(IndexStateError, FileNotFoundError):
    """There is no index where one was named."""


class IndexCorrupt(IndexStateError, ValueError):
    """A file of the index is missing or differs from its recorded checksum."""


class IndexLocked(IndexStateError, TimeoutError):
    """Another process is writing to the index."""


class FormatUnsupported(IndexStateError, ValueError):
    """The index was written in a format this version does not know."""


class LabelConflict(IndexStateError, ValueError):
    """The same image was given, or is stored, under both labels."""


class EmptyBank(IndexStateError, ValueError):
    """A vote was asked of a bank without references."""


class CaseDamaged(RdError, ValueError):
    """The log of a case was changed after it was written."""


class SearchError(RdError, RuntimeError):
    """Vectors cannot be searched."""


class VectorError(SearchError, ValueError):
    """A vector is not finite, is zero, or has the wrong shape or dtype."""


class FaissUnavailable(SearchError, ImportError):
    """FAISS is absent, installed twice over, or lacks the device asked for."""
