"""What every request must pass, and what every answer carries: addresses, tokens, origins, sizes, headers."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from retrieval_detect.errors import UsageError
from retrieval_detect.web.errors import FAILED, Busy, Refused, whereabouts

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
_REQUESTS_AN_IMAGE = 8
"""Requests at once for each place in the queue: enough to tell the others politely that it is full."""


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
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]"))
    return None


class Guard:
    """ASGI middleware around everything else.

    A server on another address than loopback asks for the token wherever it answers about an index or an
    image; on loopback only where something is written. Requests that are answered at once, and the bodies
    held for them, are limited; whatever fails below ends its own request alone.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._settings = app, settings
        self._all_need_token = not is_loopback(settings.host)
        self._names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.hosts)}
        self._requests = self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, limit, answer, log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        started = time.perf_counter()
        self._requests += 1
        held: list[int] = []
        try:
            self._check(scope)
            await self._app(scope, self._limited(receive, answer, held), answer)
        except Refused as refused:
            await answer.refuse(refused)
        except ClientDisconnect:
            pass  # gone, or refused while it was sending
        except Exception as error:  # noqa: BLE001 - it ends this request alone
            _LOG.error("%s %s failed: %s", scope["method"], _shown(scope), whereabouts(error))
            await answer.refuse(FAILED)
        finally:
            self._requests -= 1
            self._held_bytes -= sum(held)
            elapsed_s = time.perf_counter() - started
            _LOG.info("%s %s %d %.3fs", scope["method"], _shown(scope), answer.status, elapsed_s)

    # ------------------------------------------------------------ before the request is handled

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self._requests > _REQUESTS_AN_IMAGE * self._settings.queue_images and scope["path"] != "/healthz":
            message, hint = "too many requests are being answered", "Ask again in a second."
            raise Refused(503, "overloaded", message, hint=hint, headers={"Retry-After": "1"})
        self._check_host(headers.get("host", ""))
        if scope["method"] not in _READS:
            _check_origin(headers)
        if self._needs_token(scope["path"], scope["method"]):
            self._check_token(headers)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.body_bytes:
            raise self._too_large()

    def _check_host(self, host: str) -> None:
        """A name that is not ours was made to point here by somebody else's page (DNS rebinding)."""
        name = (urlsplit(f"//{host}").hostname or "") if host.isprintable() else ""
        if name not in self._names and _address(name) is None:
            message, hint = "the server is not known by this name", "Make it known: --allow-host NAME"
            raise Refused(421, "host", message, hint=hint)

    def _needs_token(self, path: str, method: str) -> bool:
        if path == "/v1/token" or (path.startswith("/v1/banks/") and method not in _READS):
            return True
        return self._all_need_token and path != "/" and not path.startswith(_OPEN)

    def _check_token(self, headers: Headers) -> None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        given = given.strip() if kind.lower() == "bearer" else ""
        expected = self._settings.token
        if expected is None:
            message = "this server was started without a token, so nobody may change its banks"
            hint = "Start it with one: --token-file FILE or RD_TOKEN."
        elif hmac.compare_digest(given.encode(), expected.encode()):
            return
        elif given:
            message, hint = "this is not the token of the server", "Ask whoever started it for the token."
        else:
            message = "this needs the token of the server"
            hint = "Give it under Token on the page, or send it: Authorization: Bearer TOKEN"
        raise Refused(401, "token", message, hint=hint, headers={"WWW-Authenticate": "Bearer"})

    # ------------------------------------------------------------ while it is received

    def _limited(self, receive: Receive, answer: _Answer, held: list[int]) -> Receive:
        """``receive`` that counts into ``held``, and waits for a slow sender only so long.

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
                late = "the request did not arrive in time"
                await answer.refuse(Refused(408, "too-slow", late, hint="Send it again."))
                return {"type": "http.disconnect"}
            held.append(len(message.get("body", b"")))
            left -= held[-1]
            self._held_bytes += held[-1]
            if left < 0 or self._held_bytes > self._settings.held_bytes:
                too_much = self._too_large() if left < 0 else Busy("too many images are on their way")
                await answer.refuse(too_much)
                return {"type": "http.disconnect"}
            done = not message.get("more_body", False)
            return message

        return limited

    def _too_large(self) -> Refused:
        message = f"a request may hold {self._settings.body_bytes >> 20} MiB at most"
        return Refused(413, "too-many-bytes", message, hint="Send fewer images at a time.")


def _check_origin(headers: Headers) -> None:
    """Pages of others must not make a browser write here."""
    origin = headers.get("origin")
    same = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    if not same or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        hint = "Use the page of this server, or a program that is none."
        raise Refused(403, "origin", "requests from other pages are refused", hint=hint)


def _shown(scope: Scope) -> str:
    """The route, not the path: what somebody typed may hold a name."""
    route = scope.get("route")
    return getattr(route, "path", "-")


class _Answer:
    """``send`` that adds the headers, remembers the status, and is deaf after a refusal."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
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

    async def refuse(self, refused: Refused) -> None:
        """Answer in the place of the application, unless it has begun to."""
        if self.status:
            return
        self._refused = True
        await refused.answer()(self._scope, self._receive, self._pass_on)
