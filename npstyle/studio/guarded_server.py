"""A server behind the guard: its address, its token, and how it begins and ends."""

from __future__ import annotations

import errno
import secrets
import socket

import uvicorn
from starlette.types import ASGIApp

from npstyle.errors import UserError
from npstyle.studio.events import Listeners
from npstyle.studio.guard import LOOPBACK, Guard

MAX_CONNECTIONS = 200
MAX_PORT = 65535


class GuardedServer(uvicorn.Server):
    """An application at an address, behind the `Guard`; `run` serves until `should_exit`, Ctrl-C or SIGTERM.

    Parameters
    ----------
    app : ASGI application
    listeners : Listeners
        Those who look at its events.
    listening : socket
        As `listen` makes it.
    host : str
        The address or name that it listens at.

    Attributes
    ----------
    url : str
        The address to open, with the token.
    """

    def __init__(
        self, app: ASGIApp, listeners: Listeners, listening: socket.socket, host: str = "127.0.0.1"
    ) -> None:
        self.listeners = listeners
        self.socket = listening
        self.port = self.socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        name = f"[{host}]" if ":" in host else host
        every = host in ("0.0.0.0", "::")
        self.url = f"http://{'127.0.0.1' if every else name}:{self.port}/?token={self.token}"
        hosts = (*LOOPBACK, "*", socket.gethostname().lower()) if every else (*LOOPBACK, name.lower())
        super().__init__(
            uvicorn.Config(
                Guard(app, self.token, hosts, self.port),
                log_level="critical",  # the log of accesses would have the token in it
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="on",
                http="h11",
                loop="asyncio",
                limit_concurrency=MAX_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; the events first, as otherwise all connections would be waited for."""
        self.listeners.end()
        await super().shutdown(sockets)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; the port is free again afterwards."""
        try:
            super().run(sockets or [self.socket])
        finally:
            self.socket.close()


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket that listens at an address; at a port that is free, if it is 0.

    Raises
    ------
    UserError
        The port is taken, or the host is not this machine.
    """
    if port > MAX_PORT:  # getaddrinfo would take the lower 16 bits
        raise UserError("--port", str(port), f"a port up to {MAX_PORT}", "leave it out")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        found = f"{host!r} ({error})"
        raise UserError("--host", found, "an address of this machine", "leave it out") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # now, as the address is printed and opened before `run`
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRNOTAVAIL:
            found = f"{host!r} ({error.strerror})"
            raise UserError("--host", found, "an address of this machine", "leave it out") from error
        found = f"{port} at {host} ({error.strerror or error})"
        raise UserError("--port", found, "a port that is free", "leave it out") from error
    return bound
