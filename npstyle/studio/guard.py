"""Which requests are answered: those of a page that was opened with the token, by its own address.

Other pages in the same browser can send requests to this server, too, and give their own names its address
(DNS rebinding). So every request is refused unless

* Host is an address of this server,
* Origin, where there is one, is the same; it has to be there in requests that change something,
* the browser does not say that another site has sent it (Sec-Fetch-Site), and
* the cookie has the token.

The first address of the page has the token in it; it is answered by the cookie and an address without.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
READING = ("GET", "HEAD")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """The application behind a look at every request.

    Parameters
    ----------
    app : ASGI application
    token : str
    hosts : tuple of str
        Names and addresses of this server, as they stand in Host; "*" for every address that is a number.
    port : int
    """

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...], port: int) -> None:
        self.app, self.token, self.hosts, self.port = app, token, hosts, port
        self.cookie = f"npstyle-studio-{port}"  # cookies do not know ports, and there may be several servers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope)
        await (answer or self.app)(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """What a request is answered before it comes to the application; None if it may."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return _refusal("this server has another address: open the one that npstyle studio has printed")
        origins = headers.getlist("origin")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return _refusal("another page has sent this request")
        if scope["method"] not in READING and not origins:
            return _refusal("no page has sent this request")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if scope["path"] == "/" and scope["method"] == "GET" and given:
            return self._entrance(given[0])
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _refusal("another page has sent this request")
        if not self._is_token(_cookies(headers).get(self.cookie, "")):
            return _refusal("no token: open the address that npstyle studio has printed")
        return None

    def _entrance(self, given: str) -> Response:
        if not self._is_token(given):
            return _refusal("a wrong token: open the address that npstyle studio has printed last")
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(self.cookie, self.token, path="/", httponly=True, samesite="strict")
        return answer

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _is_own(self, host: str) -> bool:
        """Whether Host is this server's name or address, with its port."""
        name, colon, port = host.lower().rpartition(":")
        if not colon or port != str(self.port):
            return False
        return name in self.hosts or ("*" in self.hosts and _is_address(name))


def _is_address(name: str) -> bool:
    """Whether this is a number, which no other server can have as its name."""
    try:
        ipaddress.ip_address(re.sub(r"^\[(.*)\]$", r"\1", name))
    except ValueError:
        return False
    return True


def _cookies(headers: Headers) -> Mapping[str, str]:
    """The cookies of a request."""
    cookies: dict[str, str] = {}
    for line in headers.getlist("cookie"):
        try:
            cookies |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
        except CookieError:
            continue
    return cookies


def _refusal(reason: str) -> Response:
    return PlainTextResponse(f"npstyle studio: refused: {reason}\n", status_code=403)
