"""One run of the command line on the studio's page: `npstyle CONTENT STYLE --watch`.

The run paints in this process's main thread, as without a page; a thread of its own serves what the run hands
to it. Nothing is written to the disk, and nothing is encoded while nobody looks.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.requests import Request as Asked
from starlette.responses import Response

from npstyle import images
from npstyle.errors import check_integer
from npstyle.run import NextLevel, Progress, Request, StyleResult
from npstyle.studio.events import Event, Listeners
from npstyle.studio.folder import DONE, FAILED, PAINTING, clean_name
from npstyle.studio.follower import PREVIEW_SIDE, Follower, before, level_facts, point_of
from npstyle.studio.guarded_server import GuardedServer, listen
from npstyle.studio.pages import MissingError, Page, application, event_stream, read_object
from npstyle.studio.report import completed

ID = "run"  # of the only painting
END_SECONDS = 3.0  # at most, that the end waits for the pages to have taken what they show


class WatchedRun(Page):
    """The handlers of a page that shows one run, and what that run has handed to it.

    Parameters
    ----------
    request : Request
        What is painted.
    job : dict
        What the page says of the run: `Queue.as_json`.
    """

    def __init__(self, request: Request, job: dict[str, Any]) -> None:
        super().__init__("npstyle", "watched")
        self.request = request
        self.job = {
            "id": ID,
            "status": PAINTING,
            "facts": {},
            "error": "",
            "inputs": False,
            "more": {},
            **job,
        }
        self.listeners = Listeners()
        self.files: dict[str, bytes] = {}
        self.points: list[dict[str, Any]] = []
        self.progress: Event = ("phase", {"id": ID, "phase": "start"})
        self.seen = self.stopped = False
        self.ended_level = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def application(self) -> Any:
        """The application, without the `Guard`."""

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            self._loop = asyncio.get_running_loop()
            yield

        return application(
            [
                ("GET", "/", self.page),
                ("GET", "/static/{name}", self.static),
                ("GET", "/api/events", self.events),
                ("GET", f"/api/jobs/{ID}/before", self.before),
                ("GET", f"/api/jobs/{ID}/losses", self.losses),
                ("POST", f"/api/jobs/{ID}/stop", self.stop),
                ("POST", f"/api/jobs/{ID}/next", self.next_level),
                ("GET", f"/api/jobs/{ID}/{{file:str}}", self.file),
            ],
            lifespan,
        )

    def publish(self, event: Event) -> None:
        """Tell it to those who look; from any thread."""
        with suppress(RuntimeError):  # the server has ended, which is no matter of the run
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.listeners.publish, event)

    async def events(self, _: Asked) -> Response:
        self.seen = True
        return event_stream(self.listeners, [("jobs", [self.job]), self.progress])

    async def before(self, _: Asked) -> Response:
        """The photograph, made when it is first looked at."""
        if "before" not in self.files:
            self.files["before"] = await asyncio.to_thread(before, self.request)
        return Response(self.files["before"], media_type="image/jpeg")

    async def file(self, asked: Asked) -> Response:
        if asked.path_params["file"] not in self.files:
            raise MissingError("file")
        return Response(self.files[asked.path_params["file"]], media_type="image/jpeg")

    async def losses(self, _: Asked) -> Response:
        text = "".join(json.dumps(point) + "\n" for point in list(self.points))
        return Response(text, media_type="application/jsonl")

    async def stop(self, _: Asked) -> Response:
        """Keep the picture as it is, after this iteration."""
        self.stopped = True
        return Response(status_code=204)

    async def next_level(self, asked: Asked) -> Response:
        """End a level, which the page names, after this iteration, and continue with the next."""
        self.ended_level = check_integer("level", (await read_object(asked)).get("level"), 1)
        return Response(status_code=204)


class Watch:
    """The page of a run, as a context; it is there until the run has ended.

    Parameters
    ----------
    request : Request
    command : str
        The command that paints the same.
    names : sequence of str
        Of the pictures' files, the photograph's first.

    Attributes
    ----------
    url : str
        The address of the page, with its token.
    """

    def __init__(self, request: Request, command: str, names: Sequence[str]) -> None:
        width, height = request.result_size
        content, *styles = map(clean_name, names)
        job = {"content": content, "styles": styles, "width": width, "height": height, "options": {}}
        self._run = WatchedRun(request, {**job, "command": command})
        self._server = GuardedServer(self._run.application(), self._run.listeners, listen())
        self.url = self._server.url
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._expected = False  # whether a browser was opened
        self._follower = Follower(self._send, self._show, lambda: len(self._run.listeners) > 0)

    def open_browser(self) -> None:
        """Open the page; in a thread, as a browser may take its time."""

        def show() -> None:
            self._expected = webbrowser.open(self.url)

        threading.Thread(target=show, daemon=True).start()

    def after_iteration(self, progress: Progress) -> None:
        """Show an iteration; StopIteration or NextLevel if the page asks for the end of run or level."""
        self._run.points.append(point_of(progress))
        self._follower.after_iteration(progress)
        if self._run.stopped:
            raise StopIteration
        if self._run.ended_level == progress.level < progress.levels:
            raise NextLevel

    def finish(self, result: StyleResult, seconds: float, output: str) -> None:
        """Show the finished picture, and wait a moment for those who look to have it."""
        picture = images.fit(result.image, PREVIEW_SIDE)
        self._run.files["picture"] = images.encode("x.jpg", picture)
        self._run.points = completed(self._run.points, result)
        stopped = result.interrupted or (self._run.stopped and not result.success)
        height, width, _ = result.image.shape
        facts = {"width": width, "height": height, "seconds": seconds, "output": output, "stopped": stopped}
        facts["levels"] = [level_facts(level) for level in result.levels]
        self._end(status=DONE, facts=facts, error=result.message if result.diverged else "")

    def _end(self, **changes: Any) -> None:
        self._run.job = {**self._run.job, **changes}
        self._run.publish(("jobs", [self._run.job]))
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until and self._waited_for:
            time.sleep(0.02)

    @property
    def _waited_for(self) -> bool:
        """Whether a page still takes what it shows, or will come; it says that it has all by going away."""
        return len(self._run.listeners) > 0 or (self._expected and not self._run.seen)

    def _send(self, values: dict[str, Any]) -> None:
        self._run.progress = ("progress", {"id": ID, **values})
        self._run.publish(self._run.progress)

    def _show(self, preview: bytes) -> bool:
        self._run.files["preview"] = preview
        return True

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, _: object, exception: BaseException | None, __: object) -> None:
        if exception is not None and self._run.job["status"] == PAINTING:
            self._end(status=FAILED, error=str(exception) or "the run was interrupted; nothing was written")
        self._server.should_exit = True
        self._thread.join()
