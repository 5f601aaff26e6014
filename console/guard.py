"""Guard: which requests are let through to a route, and what every answer carries.

Owns Host, Origin, login and role checks, the security headers and the form of errors. Knows nothing of what routes do.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from console.logins import ANONYMOUS, Logins, Session
from console.settings import Options

log = logging.getLogger("yuzui.console")

COOKIE: Final = "yuzui_session"
SESSION: Final = web.RequestKey("session", Session)
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN: Final = "open"
SAFE: Final = frozenset({"GET", "HEAD"})
OURS: Final = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of requests that our own page, or a person at the address bar, makes."""


class Refused(Exception):  # noqa: N818 - says what happened
    """A request that gets an error: HTTP status and a sentence a person can act on."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


def json_answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer nobody keeps."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


async def json_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; none is an empty one. Raises Refused."""
    raw = await request.read()
    if raw and request.content_type != "application/json":
        raise Refused(415, "send application/json")
    try:
        asked = orjson.loads(raw) if raw else {}
    except orjson.JSONDecodeError:
        raise Refused(400, "this is not JSON") from None
    if not isinstance(asked, dict):
        raise Refused(400, "send a JSON object")
    return asked


class Guard:
    """The checks of one server. ``needs``: what a route asks for, by method and the path it was added with."""

    def __init__(self, options: Options, logins: Logins) -> None:
        self._options = options
        self._logins = logins
        self._names = {*options.hosts, options.host} - {"0.0.0.0", "::", ""}
        if is_loopback(options.host) or options.behind_proxy:
            self._names |= LOOPBACK
        self._scheme = "https" if options.tls_cert_file or options.behind_proxy else "http"
        self.needs: dict[tuple[str, str], str] = {}
        self.refused = 0
        self.asked = 0

    @property
    def secure(self) -> bool:
        """Whether people reach us by TLS only."""
        return self._scheme == "https"

    @property
    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """For the application: every request passes it, those without a route too."""

        @web.middleware
        async def passes(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            self.asked += 1
            try:
                self._admit(request)
                return await handler(request)
            except Refused as refused:
                self.refused += refused.status in (401, 403, 429)
                return json_answer({"error": str(refused)}, refused.status, refused.headers)
            except web.HTTPException as answer:
                return json_answer({"error": answer.reason}, answer.status)
            except ConnectionResetError:
                raise
            except Exception:
                log.exception("%s %s failed", request.method, request.match_info.route.name)
                return json_answer({"error": "our mistake; it is in the engine's log"}, 500)

        return passes

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Security headers on every answer, also on refusals and upgrades."""
        response.headers.update(HEADERS)
        response.headers.popall("Server", None)
        if self.secure:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"

    def address(self, request: web.Request) -> str:
        """Whose it is: of a proxy the last hop it names."""
        if self._options.behind_proxy:
            hops = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            if hops:
                return hops[:64]
        return request.remote or ""

    def _admit(self, request: web.Request) -> None:
        self._from_here(request)
        session = self._logins.whose(request.cookies.get(COOKIE))
        if session is None and self._options.anonymous_view and is_loopback(request.remote or ""):
            session = ANONYMOUS
        if session is not None:
            request[SESSION] = session
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        needs = self.needs.get((request.method, path), "view")
        if needs == OPEN:
            return
        if session is None:
            raise Refused(401, "log in first")
        if needs == "operate" and not session.may_act:
            if session is ANONYMOUS:
                raise Refused(401, "log in first: who acts is kept in the log")
            raise Refused(403, "this login may look, not act: role operate is needed")

    def _from_here(self, request: web.Request) -> None:
        host = _hostname(request.headers.get("Host", ""))
        if host not in self._names:
            raise Refused(403, "unknown host: name it in [console] hosts")
        origin = request.headers.get("Origin")
        told = origin is not None or request.headers.get("Upgrade") is not None or request.method not in SAFE
        if told and origin != f"{self._scheme}://{request.headers['Host']}":
            raise Refused(403, "not for pages of other sites: Origin must be this address")
        # A link from elsewhere may open the page; only the page itself may ask for data.
        path = request.path
        data = path.startswith("/api/") or path == "/ws"
        if data and request.headers.get("Sec-Fetch-Site", "none") not in OURS:
            raise Refused(403, "not for pages of other sites")


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine only."""
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
