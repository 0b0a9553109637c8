"""What every server of the studio answers alike: the files of its page, events, and errors."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from npstyle.errors import UserError
from npstyle.studio.events import Event, Listeners
from npstyle.studio.static_files import TYPES, read_static

MAX_BODY = 64 * 1024  # bytes of what is no picture

Handler = Callable[[Request], Awaitable[Response]]


class MissingError(Exception):
    """There is no such thing: status 404."""


class Page:
    """The handlers of the page and of its files.

    Parameters
    ----------
    title : str
        The heading.
    kind : str
        The class of the page's body: what of the page is shown.
    """

    def __init__(self, title: str = "npstyle studio", kind: str = "") -> None:
        self._static = read_static()
        page = self._static["index.html"].decode()
        body = f'<body class="{kind}">' if kind else "<body>"
        self._page = page.replace("npstyle studio", title).replace("<body>", body)

    async def page(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._static:
            raise MissingError("file")
        kind = TYPES[name[name.rindex(".") :]]
        return Response(self._static[name], media_type=kind, headers={"cache-control": "no-cache"})


def application(routes: Sequence[tuple[str, str, Handler]], lifespan: Any = None) -> Starlette:
    """An application that answers these methods and paths."""
    return Starlette(
        routes=[Route(path, _answering(handler), methods=[method]) for method, path, handler in routes],
        lifespan=lifespan,
    )


def event_stream(listeners: Listeners, first: Sequence[Event]) -> Response:
    """Server-sent events, until the page or the server goes away."""
    return StreamingResponse(listeners.stream(first), media_type="text/event-stream")


async def read_body(request: Request, limit: int, name: str) -> bytes:
    """What was sent; UserError where it is too long, before all of it has come."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            found, expected = "too many bytes", f"at most {limit / 2**20:.3g} MiB"
            raise UserError(name, found, expected, "make it smaller first")
        parts.append(part)
    return b"".join(parts)


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    try:
        values = json.loads(await read_body(request, MAX_BODY, "options"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError("options", "no JSON", "an object", "reload the page")
    return values


def _answering(handler: Handler) -> Handler:
    """The handler, whose errors are answers: status 422 and what was wrong, or 404."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            name = error.name.partition(":")[0]
            words = {"field": name, "found": error.found, "expected": error.expected, "cure": error.cure}
            return JSONResponse({**words, "message": str(error)}, status_code=422)
        except MissingError as error:
            return JSONResponse({"field": "", "message": f"no such {error}"}, status_code=404)
        except MemoryError:
            words = {"field": "size", "message": "too little memory; try something smaller"}
            return JSONResponse(words, status_code=422)

    return answer
