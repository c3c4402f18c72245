"""How a request fails: one shape for all that goes wrong, and what the log may say of it."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from retrieval_detect.errors import (
    BadName,
    EmptyBank,
    ImageError,
    IndexLocked,
    LabelConflict,
    RdError,
    UsageError,
)
from retrieval_detect.names import printable

if TYPE_CHECKING:
    from fastapi import FastAPI, Request


class Refused(RdError):
    """Ends a request with a status, a ``code`` for programs, and headers of its own."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code, self.headers = status, code, dict(headers or {})

    def answer(self) -> JSONResponse:
        """What is sent."""
        return JSONResponse(body(self.code, self.message, self.hint), self.status, self.headers)


class Busy(Refused):
    """Too much is being worked on; ``retry_after_s`` : when it is worth asking again, whole seconds."""

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        hint = f"Send it again in {retry_after_s} second{'s' * (retry_after_s != 1)}."
        super().__init__(429, "Busy", message, hint=hint, headers={"Retry-After": str(retry_after_s)})


class Stopping(Refused):
    """The server is being stopped; what waited is not begun."""

    def __init__(self) -> None:
        super().__init__(503, "stopping", "the server is being stopped", hint="Ask again once it is back.")


_KINDS: Sequence[tuple[type[RdError], int, str]] = (
    (IndexLocked, 409, "Try again in a moment: a plan is kept until it has been carried out."),
    (LabelConflict, 409, "Choose the other label, or leave these images out."),
    (EmptyBank, 409, ""),
    (ImageError, 422, ""),
    (BadName, 422, ""),
    (UsageError, 400, ""),
    (RdError, 500, ""),
)
"""Each with its status, and with what can be done here where the error's own hint names commands."""
_OF_HTTP = {
    404: ("not-found", "there is nothing at this address", "All there is: /openapi.json"),
    405: ("method", "this address is not asked in this way", "Which methods it takes: /openapi.json"),
}
FAILED = Refused(
    500,
    "failed",
    "the server failed on this request",
    hint="Its log says where. Other requests are answered.",
)


def body(code: str, message: str, hint: str = "") -> dict[str, str]:
    """What every answer holds that is an error."""
    return {"error": code, "message": message, "hint": hint}


def whereabouts(error: BaseException) -> str:
    """What kind of error it is and where it was raised, for the log.

    Not what it says: that may be the name of an image, or pixels.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    cause = error.__cause__ or error.__context__
    return (f"{whereabouts(cause)}\nwhich led to\n" if cause else "") + f"{type(error).__name__}\n{frames}"


def add_handlers(app: FastAPI) -> None:
    """Put into our shape what routes raise, and what the framework does."""
    app.add_exception_handler(RdError, _explain)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _of_the_framework)


async def _explain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RdError)  # noqa: S101 - registered for no other
    if isinstance(error, Refused):
        return error.answer()
    status, hint = next((status, hint) for kind, status, hint in _KINDS if isinstance(error, kind))
    return JSONResponse(body(type(error).__name__, error.message, hint or error.hint), status)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Which field is wrong and why, without what was sent: that may be anything."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for no other
    wrong = [f"{'.'.join(map(str, e['loc'][1:])) or 'request'}: {e['msg']}" for e in error.errors()]
    message = printable("; ".join(wrong)[:1000])
    return JSONResponse(body("invalid", message, "What may be asked: /openapi.json"), 422)


async def _of_the_framework(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for no other
    code, message, hint = _OF_HTTP.get(error.status_code, ("http", str(error.detail), ""))
    return JSONResponse(body(code, message, hint), error.status_code, error.headers)
