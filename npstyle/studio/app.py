"""What the server answers: the page, and what the page asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

import npstyle
from npstyle import images
from npstyle.errors import UserError, check_integer
from npstyle.presets import PRESETS
from npstyle.settings import CHOICES, Settings
from npstyle.studio.estimates import Estimate, estimate
from npstyle.studio.folder import (
    BEFORE,
    LOSSES,
    MAX_PIXELS,
    MAX_UPLOAD,
    PICTURE,
    PICTURE_16_BITS,
    PREVIEW,
    Job,
    check_regions,
)
from npstyle.studio.inputs import MAX_STYLES, InputFile, Inputs
from npstyle.studio.orders import Order
from npstyle.studio.pages import MissingError, Page, application, event_stream, read_body, read_object
from npstyle.studio.queue import Queue

# What can be fetched of a painting, and what may be kept by the browser as it never changes.
JOB_FILES = {"preview": PREVIEW, "before": BEFORE, "picture": PICTURE}
EXAMPLES = Path(npstyle.__file__).parents[1] / "examples"  # of a checkout
EXAMPLE_NAMES = ("content.jpg", "style.jpg")


class Studio(Page):
    """The handlers of all requests.

    Parameters
    ----------
    queue : Queue
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.queue, self.folder = queue, queue.folder
        self._decoding = asyncio.Semaphore(1)  # pictures are large: one at a time

    def application(self) -> Starlette:
        """The application, without the `Guard`."""
        routes = [
            ("GET", "/", self.page),
            ("GET", "/static/{name}", self.static),
            ("GET", "/api/choices", self.choices),
            ("GET", "/api/events", self.events),
            ("POST", "/api/pictures", self.upload),
            ("GET", "/api/pictures/{id}", self.thumbnail),
            ("POST", "/api/examples", self.examples),
            ("POST", "/api/estimate", self.estimate),
            ("POST", "/api/jobs", self.create),
            ("DELETE", "/api/jobs/{id}", self.delete),
            ("GET", "/api/jobs/{id}/losses", self.losses),
            ("GET", "/api/jobs/{id}/download", self.download),
            ("POST", "/api/jobs/{id}/inputs", self.inputs),
            ("GET", "/api/jobs/{id}/inputs/{file}", self.input_file),
            ("POST", "/api/jobs/{id}/next", self.next_level),
            ("POST", "/api/jobs/{id}/go-on", self.go_on),
            ("POST", "/api/jobs/{id}/{action:str}", self.act),
            ("GET", "/api/jobs/{id}/{file:str}", self.file),
        ]

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self.queue.start()
            try:
                yield
            finally:
                await self.queue.close()

        return application(routes, lifespan)

    # --------------------------------------------------------------------------------------------
    # The page
    # --------------------------------------------------------------------------------------------

    async def choices(self, _: Request) -> Response:
        """What the form offers."""
        names = ("statistics", "color", "init", "pooling", "padding", "optimizer", "mixture")
        defaults = {name: getattr(Settings(), name) for name in (*names, "iterations", "content_weight")}
        more = {name: getattr(Settings(), name) for name in ("tv_weight", "keep_edges", "min_size")}
        return JSONResponse(
            {
                "version": npstyle.__version__,
                "presets": list(PRESETS),
                "choices": {name: CHOICES[name] for name in names},
                "defaults": {**defaults, **more},
                "max_upload": MAX_UPLOAD,
                "max_pixels": MAX_PIXELS,
                "max_styles": MAX_STYLES,
                "examples": all((EXAMPLES / name).is_file() for name in EXAMPLE_NAMES),
            }
        )

    async def events(self, _: Request) -> Response:
        return event_stream(self.queue.listeners, self.queue.events())

    # --------------------------------------------------------------------------------------------
    # Pictures and orders
    # --------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        """The file as the body, its name in the address."""
        data = await read_body(request, MAX_UPLOAD, "picture")
        return JSONResponse(await self._add(request.query_params.get("name", ""), data))

    async def examples(self, _: Request) -> Response:
        if not all((EXAMPLES / name).is_file() for name in EXAMPLE_NAMES):
            raise MissingError("example")
        return JSONResponse([await self._add(name, (EXAMPLES / name).read_bytes()) for name in EXAMPLE_NAMES])

    async def inputs(self, request: Request) -> Response:
        """The pictures and masks of a painting as if they were uploaded again."""
        files = self.folder.inputs(self._job(request)).items()
        added = {name: await self._add(file.name, file.path.read_bytes()) for name, file in files}
        return JSONResponse(vars(Inputs.of(added)))

    async def input_file(self, request: Request) -> Response:
        """A mask of a painting, or the picture it starts from: files that its command names."""
        job, file = self._job(request), request.path_params["file"]
        if file not in job.more or not (self.folder.pictures / job.id / file).is_file():
            raise MissingError("file")
        headers = {"content-disposition": f'attachment; filename="{_ascii(job.more[file])}"'}
        kind = "application/octet-stream"
        return FileResponse(self.folder.pictures / job.id / file, media_type=kind, headers=headers)

    async def _add(self, name: str, data: bytes) -> dict[str, Any]:
        async with self._decoding:
            upload = await asyncio.to_thread(self.folder.add_upload, name, data)
        return vars(upload)

    async def thumbnail(self, request: Request) -> Response:
        return FileResponse(self.folder.thumbnail(request.path_params["id"]), media_type="image/jpeg")

    async def estimate(self, request: Request) -> Response:
        _, estimated = await self._read(request)
        return JSONResponse(estimated.as_json(self.queue.rate, self.queue.trial_rate))

    async def create(self, request: Request) -> Response:
        inputs, estimated = await self._read(request)
        async with self._decoding:
            await asyncio.to_thread(check_regions, inputs)
        job = self.queue.add(inputs, estimated)
        return JSONResponse({"id": job.id}, status_code=201)

    async def _read(self, request: Request) -> tuple[Inputs[InputFile], Estimate]:
        """The pictures that a page names, and what it takes to paint what it asks for."""
        values = await read_object(request)
        content = self._uploads([values.get("content")], "content")[0]
        styles = self._uploads(values.get("styles"), "styles")
        if not styles:
            raise UserError("styles", "0 paintings", f"1 to {MAX_STYLES}", "choose some")
        masks = values.get("masks") or {}
        if not isinstance(masks, dict):
            raise UserError("masks", "no object", "one", "reload the page")
        content_masks = self._uploads(masks.get("content") or [], "masks")
        style_masks = self._uploads(masks.get("styles") or [], "masks")
        keep = None if masks.get("keep") is None else self._uploads([masks["keep"]], "masks")[0]
        start = None if values.get("start") is None else self._uploads([values["start"]], "start")[0]
        inputs = Inputs(content, styles, content_masks, style_masks, keep, start)
        order = Order.read(values.get("options", {}))
        random = "random" in (self.queue.weights, order.options.get("weights"))
        sizes = inputs.map(lambda file: file.size)
        return inputs, await asyncio.to_thread(estimate, order, sizes, self.queue.threads, random)

    def _uploads(self, ids: Any, what: str) -> tuple[InputFile, ...]:
        """The uploads of a list of IDs."""
        if not isinstance(ids, list):
            raise UserError(what, "no list", "one", "reload the page")
        if len(ids) > MAX_STYLES:
            raise UserError(what, f"{len(ids)} pictures", f"at most {MAX_STYLES}", "take fewer")
        return tuple(self.folder.uploaded(self.folder.upload(id, what)) for id in ids)

    # --------------------------------------------------------------------------------------------
    # Paintings
    # --------------------------------------------------------------------------------------------

    async def act(self, request: Request) -> Response:
        job, action = self._job(request), request.path_params["action"]
        actions = {"stop": self.queue.stop, "pause": self.queue.pause, "continue": self.queue.resume}
        if action in ("up", "down", "first"):
            await self.queue.move(job, action)
        elif action in actions:
            await actions[action](job)
        else:
            raise MissingError("action")
        return Response(status_code=204)

    async def next_level(self, request: Request) -> Response:
        """End a level, which the page names: it may have ended meanwhile."""
        job, values = self._job(request), await read_object(request)
        await self.queue.next_level(job, check_integer("level", values.get("level"), 1))
        return Response(status_code=204)

    async def go_on(self, request: Request) -> Response:
        """Begin a painting of another strength from the present picture."""
        job, values = self._job(request), await read_object(request)
        if values.get("strength") is None:
            raise UserError("strength", "none", "a number", "choose one")
        await self.queue.go_on(job, values["strength"])
        return Response(status_code=204)

    async def delete(self, request: Request) -> Response:
        await self.queue.remove(self._job(request))
        return Response(status_code=204)

    async def file(self, request: Request) -> Response:
        file = JOB_FILES.get(request.path_params["file"])
        path = self.folder.pictures / self._job(request).id / (file or "")
        if file is None or not path.is_file():
            raise MissingError("file")
        kind = "image/png" if file == PICTURE else "image/jpeg"
        return FileResponse(path, media_type=kind)

    async def losses(self, request: Request) -> Response:
        """The losses of all iterations as JSON lines."""
        path = self.folder.pictures / self._job(request).id / LOSSES
        text = path.read_bytes() if path.is_file() else b""
        return Response(text, media_type="application/jsonl")

    async def download(self, request: Request) -> Response:
        """The picture as PNG, JPEG, or TIFF with 16 bits, under a name of its own."""
        job, form = self._job(request), request.query_params.get("format", "png")
        folder = self.folder.pictures / job.id
        path = folder / (PICTURE_16_BITS if form == "tiff" else PICTURE)
        if form not in ("png", "jpg", "tiff") or not path.is_file():
            raise MissingError("file")
        if form == "jpg":
            async with self._decoding:
                data = await asyncio.to_thread(_as_jpeg, path)
        else:
            data = path.read_bytes()
        names = {"content-disposition": f'attachment; filename="{job.output_name}.{form}"'}
        return Response(data, media_type=f"image/{form.replace('jpg', 'jpeg')}", headers=names)

    def _job(self, request: Request) -> Job:
        job = self.queue.jobs.get(request.path_params["id"])
        if job is None:
            raise MissingError("picture")
        return job


def _ascii(name: str) -> str:
    """A name as a header may have it."""
    return re.sub(r"[^\w. -]+", "_", name, flags=re.ASCII)


def _as_jpeg(path: Path) -> bytes:
    return images.encode("x.jpg", images.read(path), text=images.read_text(path))
