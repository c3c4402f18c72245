"""What every request must pass, and what every answer carries: addresses, tokens, origins, sizes, headers."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from retrieval_detect.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from retrieval_detect.web.settings import ServeSettings

_LOG = logging.getLogger(__name__)
SHORTEST_TOKEN = 16
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_READS = {"GET", "HEAD", "OPTIONS"}
_OPEN = ("/healthz", "/static/")


def require_safe(settings: ServeSettings) -> None:
    """Raise ``UsageError`` for an address that strangers can reach without a token, or a token too short."""
    if settings.token is not None and len(settings.token) < SHORTEST_TOKEN:
        raise UsageError(
            f"the token is shorter than {SHORTEST_TOKEN} characters", hint="Make one: openssl rand -hex 24"
        )
    if settings.token is None and not is_loopback(settings.host):
        raise UsageError(
            f"{settings.host} can be reached from other machines, and there is no token",
            hint="Give one: --token-file FILE or RD_TOKEN, or stay at --host 127.0.0.1.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _Refused(Exception):
    """Ends a request: status, code, sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Guard:
    """ASGI middleware around everything else.

    A server on another address than loopback asks for the token wherever it answers about an index or an
    image; on loopback only where something is written.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings
        self._all_need_token = not is_loopback(settings.host)
        self._names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, limit, answer, log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        started = time.perf_counter()
        try:
            self._check(scope)
            await self._app(scope, self._limited(receive, answer), answer)
        except _Refused as refused:
            await answer.refuse(refused)
        finally:
            elapsed_s = time.perf_counter() - started
            _LOG.info("%s %s %d %.3fs", scope["method"], _shown(scope), answer.status, elapsed_s)

    # ------------------------------------------------------------ before the request is handled

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""))
        if scope["method"] not in _READS:
            _check_origin(headers)
        if self._needs_token(scope["path"], scope["method"]) and not self._has_token(headers):
            raise _Refused(401, "token", "this needs the token of the server")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.body_bytes:
            raise self._too_large()

    def _check_host(self, host: str) -> None:
        """A name that is not ours was made to point here by somebody else's page (DNS rebinding)."""
        name = (urlsplit(f"//{host}").hostname or "") if host.isprintable() else ""
        if name not in self._names and not _is_address(name):
            raise _Refused(421, "host", "the server is not known by this name (see --allow-host)")

    def _needs_token(self, path: str, method: str) -> bool:
        if path.startswith("/v1/banks/") and method not in _READS:
            return True
        return self._all_need_token and path != "/" and not path.startswith(_OPEN)

    def _has_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        expected = self._settings.token
        if expected is None or kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), expected.encode())

    # ------------------------------------------------------------ while it is received

    def _limited(self, receive: Receive, answer: _Answer) -> Receive:
        """``receive`` that counts, and waits for a slow sender only so long.

        A refusal is sent at once and looks to the application as if the sender had gone.
        """
        until = time.monotonic() + self._settings.receive_s
        left = self._settings.body_bytes
        done = False

        async def limited() -> Message:
            nonlocal left, done
            if done:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                await answer.refuse(_Refused(408, "too-slow", "the request did not arrive in time"))
                return {"type": "http.disconnect"}
            left -= len(message.get("body", b""))
            if left < 0:
                await answer.refuse(self._too_large())
                return {"type": "http.disconnect"}
            done = not message.get("more_body", False)
            return message

        return limited

    def _too_large(self) -> _Refused:
        most = self._settings.body_bytes >> 20
        return _Refused(413, "too-many-bytes", f"a request may hold {most} MiB at most")


def _check_origin(headers: Headers) -> None:
    """Pages of others must not make a browser write here."""
    origin = headers.get("origin")
    same = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if not same or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise _Refused(403, "origin", "requests from other pages are refused")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _shown(scope: Scope) -> str:
    """The route, not the path: what somebody typed may hold a name."""
    route = scope.get("route")
    return getattr(route, "path", "-")


class _Answer:
    """``send`` that adds the headers, remembers the status, and is deaf after a refusal."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._refused = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if not self._refused:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def refuse(self, refused: _Refused) -> None:
        """Answer in the place of the application, unless it has begun to."""
        if self.status:
            return
        self._refused = True
        body = json.dumps({"error": refused.code, "message": refused.message}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refused.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self._pass_on({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self._pass_on({"type": "http.response.body", "body": body})
